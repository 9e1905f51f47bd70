"""The kinds of value that the file is made of, each with its reader and its JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Annotated, Any
from zoneinfo import ZoneInfo, available_timezones

from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from holdfast.config.addresses import (
    ADDRESS_FORMS,
    REPOSITORY_HINT,
    checked_address,
    normalized_repository_url,
)
from holdfast.config.problems import did_you_mean, sentence_of
from holdfast.config.secret_references import SecretReference, read_reference
from holdfast.model.durations import parse_duration, parse_rate, parse_size, shown
from holdfast.model.errors import ConfigInvalid
from holdfast.model.schedules import SCHEDULE_HINT, Schedule, parse_schedule
from holdfast.model.secrets import Secret

NAME_CHARACTERS_MAX = 48
APPLICATION_CHARACTERS_MAX = 64
TEXT_SHOWN_MAX = 80
EXPLAINED = "explained"
"""The error type whose message is already what the operator should read."""

_NAME = re.compile(rf"[a-z0-9][a-z0-9_-]{{0,{NAME_CHARACTERS_MAX - 1}}}", re.ASCII)
_APPLICATION = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{APPLICATION_CHARACTERS_MAX - 1}}}", re.ASCII)


def parse_name(text: str) -> str:
    """Return a source's or repository's name if it is one. Raises ``ConfigInvalid``."""
    if not _NAME.fullmatch(text):
        raise ConfigInvalid(
            f"{shown(text)} is not a name",
            hint=f"A name is a-z, 0-9, - and _, begins with a letter or digit, and has at most {NAME_CHARACTERS_MAX}.",
        )
    return text


def parse_application(text: str) -> str:
    """Return an application's name if it is one. Raises ``ConfigInvalid``."""
    if not _APPLICATION.fullmatch(text):
        raise ConfigInvalid(
            f"{shown(text)} is not the name of an application",
            hint="A name is letters, digits, ., - and _, begins with a letter or digit, "
            f"and has at most {APPLICATION_CHARACTERS_MAX}",
        )
    return text


def parse_zone(text: str) -> ZoneInfo:
    """Return the timezone of that name. Raises ``ConfigInvalid``."""
    try:
        return ZoneInfo(text)
    except (KeyError, ValueError, OSError) as error:
        known = sorted(available_timezones())
        near = did_you_mean(text, known) if known else "Install the package tzdata."
        raise ConfigInvalid(
            f"{shown(text)} is not a timezone",
            hint=near if len(near) < TEXT_SHOWN_MAX else "Write a name such as Europe/Kyiv or UTC.",
        ) from error


def _positive_duration(text: str) -> timedelta:
    duration = parse_duration(text)
    if not duration:
        raise ConfigInvalid(f"{shown(text)} is no time at all", hint="Write more than 0.")
    return duration


def _positive_rate(text: str) -> int:
    rate = parse_rate(text)
    if not rate:
        raise ConfigInvalid(f"{shown(text)} would never end", hint="Write more than 0, or remove the key for no limit.")
    return rate


def _explained(parse: Callable[[str], Any], wanted: str) -> Callable[[object], Any]:
    """Wrap a reader of text so that pydantic carries its message and hint."""

    def validate(value: object) -> Any:
        if not isinstance(value, str):
            raise PydanticCustomError(EXPLAINED, "{sentence}", {"sentence": f"read {_kind_of(value)}; {wanted}"})
        try:
            return parse(value)
        except ConfigInvalid as error:
            raise PydanticCustomError(EXPLAINED, "{sentence}", {"sentence": sentence_of(error)}) from error

    return validate


def _address(kind: str) -> PlainValidator:
    return PlainValidator(_explained(partial(checked_address, kind), f"write {ADDRESS_FORMS[kind]}"))


def _kind_of(value: object) -> str:
    if isinstance(value, bool):
        return "true or false (put a word in quotes)"
    if isinstance(value, int):
        return str(value)
    return "a list" if isinstance(value, list) else "keys"


def _secret(value: object) -> SecretReference:
    try:
        return read_reference(value)
    except ConfigInvalid as error:
        raise PydanticCustomError(EXPLAINED, "{sentence}", {"sentence": sentence_of(error)}) from error


def _notice_target(value: object) -> SecretReference:
    return SecretReference(clear=Secret(value)) if isinstance(value, str) and value else _secret(value)


_TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
_SECRET_SCHEMA: dict[str, Any] = {
    "type": "object",
    "oneOf": [
        {"properties": {"env": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}}, "required": ["env"]},
        {"properties": {"file": _TEXT}, "required": ["file"]},
        {"properties": {"command": {"type": "array", "items": _TEXT, "minItems": 1}}, "required": ["command"]},
        {"properties": {"clear": _TEXT}, "required": ["clear"]},
    ],
    "maxProperties": 1,
    "$comment": "secret",
}

Name = Annotated[
    str,
    PlainValidator(_explained(parse_name, "write a name in quotes")),
    WithJsonSchema({"type": "string", "pattern": f"^{_NAME.pattern}$", "$comment": "name"}),
]
Application = Annotated[
    str,
    PlainValidator(_explained(parse_application, "write a name in quotes")),
    WithJsonSchema(
        {"type": "string", "pattern": f"^{_APPLICATION.pattern}$", "examples": ["shop"], "$comment": "name"}
    ),
]
Zone = Annotated[
    ZoneInfo,
    PlainValidator(_explained(parse_zone, "write a name such as Europe/Kyiv")),
    WithJsonSchema(_TEXT | {"examples": ["Europe/Kyiv", "UTC"]}),
]
Duration = Annotated[
    timedelta,
    PlainValidator(_explained(_positive_duration, "a duration has a unit: 30d, 15m, 1h30m, 5s")),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^(?=.)(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?$",
            "examples": ["30d", "15m", "1h30m", "5s"],
            "$comment": "duration",
        }
    ),
]
Rate = Annotated[
    int,
    PlainValidator(_explained(_positive_rate, "a rate has a unit: 64KiB/s, 50MiB/s")),
    WithJsonSchema(
        {"type": "string", "pattern": r"^\d+ ?([KMGT]i?)?B/s$", "examples": ["50MiB/s"], "$comment": "rate"}
    ),
]
Size = Annotated[
    int,
    PlainValidator(_explained(parse_size, "a size has a unit: 500MiB, 20GiB")),
    WithJsonSchema({"type": "string", "pattern": r"^\d+ ?([KMGT]i?)?B$", "examples": ["20GiB"], "$comment": "size"}),
]
ScheduleText = Annotated[
    Schedule,
    PlainValidator(_explained(parse_schedule, SCHEDULE_HINT)),
    WithJsonSchema(
        _TEXT | {"examples": ["hourly", "daily", "weekly", "monthly", "never", "30 2 * * *"], "$comment": "schedule"}
    ),
]
RepositoryUrl = Annotated[
    str,
    PlainValidator(_explained(normalized_repository_url, REPOSITORY_HINT)),
    WithJsonSchema(_TEXT | {"examples": ["file:///backups/holdfast", "s3://shop-backups/holdfast"]}),
]
PostgresAddress = Annotated[str, _address("postgres"), WithJsonSchema({"type": "string"})]
RedisAddress = Annotated[str, _address("redis"), WithJsonSchema(_TEXT)]
SearchAddress = Annotated[str, _address("search"), WithJsonSchema(_TEXT)]
BucketAddress = Annotated[str, _address("bucket"), WithJsonSchema(_TEXT)]
SecretField = Annotated[SecretReference, PlainValidator(_secret), WithJsonSchema(_SECRET_SCHEMA)]
NoticeTarget = Annotated[
    SecretReference,
    PlainValidator(_notice_target),
    WithJsonSchema({"anyOf": [_TEXT, _SECRET_SCHEMA], "$comment": "text or secret"}),
]
