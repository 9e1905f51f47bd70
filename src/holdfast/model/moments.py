"""The moment an operator asks for, as written on a command line, turned into an absolute time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from typing import TypeAlias

from holdfast.model.durations import parse_duration, shown
from holdfast.model.errors import ConfigInvalid

FUTURE_SLACK = timedelta(minutes=5)
"""A server's clock may run this far ahead of ours: a window's end that it gave is still taken as the past."""

MOMENT_HINT = (
    "Write ISO 8601 with a zone (2026-03-01T14:30:00Z, 2026-03-01 14:30+02:00), latest, now, -15m, "
    "yesterday 14:30 or today 09:00."
)
ZONE_HINT = "Add the zone (14:30Z, 14:30+02:00), or set `timezone:` in the configuration."


@dataclass(frozen=True, slots=True)
class Latest:
    """The latest moment that can be reached, whatever it is when the plan is made."""


LATEST = Latest()
Moment: TypeAlias = datetime | Latest
"""An aware time in UTC, or the latest reachable one."""

_CLOCK = r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,6}))?)?"
_ZONE = r"(?: ?(?P<zone>[Zz]|[+-]\d{2}(?::?\d{2})?))?"
_ABSOLUTE = re.compile(rf"(?P<day>\d{{4}}-\d{{2}}-\d{{2}})(?:[Tt ]{_CLOCK}{_ZONE})?", re.ASCII)
_DAY_WORD = re.compile(rf"(?P<day>today|yesterday) {_CLOCK}{_ZONE}", re.ASCII)
_DAYS_BACK = {"today": 0, "yesterday": 1}


def parse_moment(text: str, *, now: datetime, zone: tzinfo | None) -> Moment:
    """Read a TIME of the command line.

    ``zone`` is the configured timezone, None where there is none; then a time without a zone is refused. So are local
    times that the clock shows twice or never, and times more than ``FUTURE_SLACK`` ahead of ``now`` (aware).
    Raises ``ConfigInvalid``.
    """
    words = " ".join(text.split())
    lowered = words.lower()
    if lowered == "latest":
        return LATEST
    if lowered == "now":
        return now.astimezone(UTC)
    if lowered.startswith("-"):
        return now.astimezone(UTC) - parse_duration(lowered.removeprefix("-"))
    try:
        moment = _named_time(words, now, zone)
    except (ValueError, OverflowError) as error:
        raise ConfigInvalid(f"{shown(text)} is not a time that exists", hint=MOMENT_HINT) from error
    if moment > now + FUTURE_SLACK:
        meant, present = format_moment(moment), format_moment(now)
        raise ConfigInvalid(
            f"{shown(text)} is in the future: it means {meant}, now is {present}",
            hint="Ask for a moment that has passed, or for latest.",
        )
    return moment


def format_moment(moment: datetime, zone: tzinfo | None = None) -> str:
    """Return an absolute time for people: in the configured zone with its offset, else in UTC with ``Z``."""
    if zone is None:
        return moment.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"
    return moment.astimezone(zone).isoformat()


def _named_time(words: str, now: datetime, zone: tzinfo | None) -> datetime:
    """Read a day and a clock time; raises ValueError or OverflowError for what no calendar holds."""
    by_word = _DAY_WORD.fullmatch(words.lower())
    found = by_word or _ABSOLUTE.fullmatch(words)
    if found is None:
        raise ConfigInvalid(f"{shown(words)} is not a time", hint=MOMENT_HINT)
    if found["hour"] is None:
        raise ConfigInvalid(f"{shown(words)} names a day, not a moment", hint=f"Add the time of day: {words}T00:00:00Z")
    here = _written_zone(found["zone"]) if found["zone"] else zone
    if here is None:
        raise ConfigInvalid(f"{shown(words)} has no zone", hint=ZONE_HINT)
    if by_word is None:
        day = date.fromisoformat(found["day"])
    else:
        day = now.astimezone(here).date() - timedelta(days=_DAYS_BACK[found["day"]])
    microsecond = int((found["fraction"] or "").ljust(6, "0"))
    clock = time(int(found["hour"]), int(found["minute"]), int(found["second"] or 0), microsecond)
    return _only_reading(datetime.combine(day, clock), here)


def _written_zone(text: str) -> tzinfo:
    if text in {"Z", "z"}:
        return UTC
    digits = text[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if minutes > 59:
        raise ValueError("an offset has at most 59 minutes")
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(-offset if text[0] == "-" else offset)


def _only_reading(local: datetime, zone: tzinfo) -> datetime:
    """Return the one instant at which the clocks of ``zone`` show ``local``; refuses none and two."""
    first, second = local.replace(tzinfo=zone, fold=0), local.replace(tzinfo=zone, fold=1)
    if first.utcoffset() == second.utcoffset():
        return first.astimezone(UTC)
    readings = [reading.replace(tzinfo=timezone(_offset(reading))).isoformat() for reading in (first, second)]
    exists = first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == local
    what = "show twice" if exists else "never show"
    raise ConfigInvalid(
        f"the clocks of {zone} {what} {local.isoformat(sep=' ')}: it can be read as {' or as '.join(readings)}",
        hint="Write the one you mean, with its offset.",
    )


def _offset(moment: datetime) -> timedelta:
    offset = moment.utcoffset()
    if offset is None:
        raise ValueError("a time without a zone has no offset")
    return offset
