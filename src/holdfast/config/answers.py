"""From the words on ``init``'s command line, and the usual environment variables, to what the file will say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from holdfast.config.addresses import (
    ADDRESS_FORMS,
    checked_address,
    dsn_parameters,
    normalized_repository_url,
    split_address,
)
from holdfast.config.fields import parse_name
from holdfast.config.problems import did_you_mean
from holdfast.config.secret_references import SecretReference
from holdfast.config.template import RepositoryAnswer, SourceAnswer
from holdfast.model.errors import ConfigInvalid
from holdfast.model.secrets import Secret

DEFAULT_PASSPHRASE = SecretReference(env="HOLDFAST_PASSPHRASE")
FIRST_REPOSITORY = "primary"
REPOSITORY_OPTIONS = ("region", "endpoint", "profile", "path_style", "offsite")

_NEEDS_QUOTES = re.compile(r"[\s'\\]|^$")
_LIBPQ_VARIABLES = {
    "PGSERVICE": "service",
    "PGHOST": "host",
    "PGPORT": "port",
    "PGUSER": "user",
    "PGDATABASE": "dbname",
}
_URL_VARIABLES = (
    ("DATABASE_URL", "postgres"),
    ("POSTGRES_URL", "postgres"),
    ("REDIS_URL", "redis"),
    ("ELASTICSEARCH_URL", "search"),
    ("OPENSEARCH_URL", "search"),
)
_BUCKET_VARIABLES = ("AWS_S3_BUCKET", "AWS_BUCKET", "S3_BUCKET")


@dataclass(frozen=True, slots=True)
class SourceFound:
    """A source to write, and the password that was in its address: kept out of the file, to be put into a variable."""

    answer: SourceAnswer
    password: Secret | None
    origin: str


def repository_answers(texts: Sequence[str], folder: Path) -> tuple[RepositoryAnswer, ...]:
    """Read every ``[NAME=]URL``; paths begin at ``folder``; ``?region=...&endpoint=...`` become keys of their own.

    Raises ``ConfigInvalid``.
    """
    answers: dict[str, RepositoryAnswer] = {}
    for number, text in enumerate(texts, 1):
        name, url = _name_and_rest(text)
        answer = _repository(name or (FIRST_REPOSITORY if number == 1 else f"copy{number}"), url, folder)
        if answer.name in answers:
            raise ConfigInvalid(f"two repositories are named {answer.name}", hint="Write NAME=URL for each.")
        answers[answer.name] = answer
    return tuple(answers.values())


def source_found(text: str) -> SourceFound:
    """Read ``NAME=URL``, or ``NAME=`` and a libpq ``key=value`` address. Raises ``ConfigInvalid``."""
    name, address = _name_and_rest(text)
    if name is None or not address:
        raise ConfigInvalid(
            "a source has no name", hint="Write NAME=URL, such as orders=postgresql://backup@db.internal/shop."
        )
    return _source(parse_name(name), address, "the command line")


def detected_sources(environment: Mapping[str, str]) -> tuple[SourceFound, ...]:
    """Return the servers that the usual variables name; what cannot be read as an address is passed over."""
    found: dict[str, SourceFound] = {}
    for source in _detected(environment):
        found.setdefault(source.answer.name, source)
    return tuple(found.values())


def password_variable(name: str) -> str:
    """Return the variable that the file will read a source's password from."""
    return f"HOLDFAST_{re.sub('[^A-Z0-9]', '_', name.upper())}_PASSWORD"


def _name_and_rest(text: str) -> tuple[str | None, str]:
    name, equals, rest = text.partition("=")
    if not equals or "/" in name or ":" in name:
        return None, text
    return parse_name(name), rest


def _repository(name: str, text: str, folder: Path) -> RepositoryAnswer:
    address, question, query = text.partition("?")
    url = normalized_repository_url(address if "://" in address else str((folder / address).absolute()))
    options = dict(parse_qsl(query, keep_blank_values=True)) if question else {}
    for option in options:
        if option not in REPOSITORY_OPTIONS:
            raise ConfigInvalid(
                f"repository {name}: {option} is no option of a repository",
                hint=did_you_mean(option, REPOSITORY_OPTIONS),
            )
    return RepositoryAnswer(
        name=name,
        url=url,
        region=options.get("region"),
        endpoint=options.get("endpoint"),
        profile=options.get("profile"),
        path_style=_truth(name, "path_style", options),
        offsite=bool(_truth(name, "offsite", options)),
    )


def _truth(name: str, option: str, options: Mapping[str, str]) -> bool | None:
    word = options.get(option)
    if word not in {None, "true", "false"}:
        raise ConfigInvalid(f"repository {name}: {option} is neither true nor false", hint=f"Write {option}=true.")
    return None if word is None else word == "true"


def _source(name: str, text: str, origin: str) -> SourceFound:
    if "://" in text.partition("=")[0]:
        parts = split_address(text)
        kind, address, password = parts.kind, parts.address, parts.password
    else:
        parameters = dsn_parameters(text)
        if not parameters:
            raise ConfigInvalid(
                f"the address of source {name} is of no kind", hint=f"Write {'; '.join(ADDRESS_FORMS.values())}."
            )
        in_clear = parameters.pop("password", None)
        kind, password = "postgres", Secret(in_clear) if in_clear else None
        address = text if in_clear is None else _dsn(parameters)
    checked_address(kind, address)
    reference = SecretReference(env=password_variable(name)) if password else None
    return SourceFound(SourceAnswer(name, kind, address, reference), password, origin)


def _dsn(parameters: Mapping[str, str]) -> str:
    return " ".join(f"{word}={_dsn_value(value)}" for word, value in parameters.items())


def _dsn_value(value: str) -> str:
    if not _NEEDS_QUOTES.search(value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _detected(environment: Mapping[str, str]) -> Iterator[SourceFound]:
    named = {word: environment[variable] for variable, word in _LIBPQ_VARIABLES.items() if environment.get(variable)}
    if named.keys() & {"service", "host"}:
        password = SecretReference(env="PGPASSWORD") if environment.get("PGPASSWORD") else None
        yield SourceFound(SourceAnswer("postgres", "postgres", _dsn(named), password), None, "PG* variables")
    for variable, kind in _URL_VARIABLES:
        source = _from_variable(kind, environment.get(variable, ""), f"${variable}")
        if source is not None:
            yield source
    for variable in _BUCKET_VARIABLES:
        bucket = environment.get(variable, "").removeprefix("s3://")
        source = _from_variable("bucket", f"s3://{bucket}" if bucket else "", f"${variable}")
        if source is not None:
            yield source


def _from_variable(kind: str, address: str, origin: str) -> SourceFound | None:
    if not address:
        return None
    try:
        source = _source(kind, address, origin)
    except ConfigInvalid:
        return None
    return source if source.answer.kind == kind else None
