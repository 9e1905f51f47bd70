"""When something is due again: hourly, daily, weekly, monthly, never, or five cron fields."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise

from holdfast.model.durations import shown
from holdfast.model.errors import ConfigInvalid

SCHEDULE_HINT = 'Write hourly, daily, weekly, monthly, never, or five cron fields such as "30 2 * * *" (at 02:30).'

_NAMED_GAPS = {
    "hourly": timedelta(hours=1),
    "daily": timedelta(days=1),
    "weekly": timedelta(weeks=1),
    "monthly": timedelta(days=31),
}
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_PART = re.compile(r"(\*|[0-9a-z]{1,3}(?:-[0-9a-z]{1,3})?)(?:/([1-9][0-9]?))?", re.ASCII)

_CYCLE_FIRST_DAY = date(2024, 1, 1)
_CYCLE_DAYS = 28 * 365 + 7
"""After 28 years dates, leap days and weekdays come back together: every gap that a cron line can have."""


@dataclass(frozen=True, slots=True)
class Cron:
    """The five fields as the numbers they allow, ascending; weekdays count from Sunday, 0."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    either_day: bool
    """Both day fields are restricted: a day that fits one of them is enough, as in every cron."""

    def falls_on(self, day: date) -> bool:
        """Whether the line names this day at all."""
        if day.month not in self.months:
            return False
        in_month, in_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (in_month or in_week) if self.either_day else (in_month and in_week)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule as written. ``gap_max`` is the longest time between two runs, None for ``never``."""

    text: str
    gap_max: timedelta | None
    cron: Cron | None = None


def parse_schedule(text: str) -> Schedule:
    """Read a named schedule or a cron line. Raises ``ConfigInvalid``."""
    if text == "never":
        return Schedule(text, None)
    if text in _NAMED_GAPS:
        return Schedule(text, _NAMED_GAPS[text])
    fields = text.lower().split()
    if len(fields) != 5:
        raise ConfigInvalid(f"{shown(text)} is not a schedule", hint=SCHEDULE_HINT)
    minutes, hours, days, months, weekdays = (
        _numbers(field, low, high, names, text)
        for field, (low, high, names) in zip(
            fields, ((0, 59, []), (0, 23, []), (1, 31, []), (1, 12, _MONTHS), (0, 7, _WEEKDAYS)), strict=True
        )
    )
    cron = Cron(
        minutes,
        hours,
        days,
        months,
        tuple(sorted({day % 7 for day in weekdays})),
        either_day=not fields[2].startswith("*") and not fields[4].startswith("*"),
    )
    return Schedule(text, _gap_max(cron, text), cron)


def _numbers(field: str, low: int, high: int, names: list[str], text: str) -> tuple[int, ...]:
    allowed: set[int] = set()
    for part in field.split(","):
        found = _PART.fullmatch(part)
        if found is None:
            raise ConfigInvalid(f"{shown(text)} is not a schedule: {shown(part)} is no cron field", hint=SCHEDULE_HINT)
        span, step = found[1], found[2]
        first, _, last = span.partition("-")
        if span == "*":
            start, end = low, high
        else:
            start = _number(first, low, names, text)
            end = _number(last, low, names, text) if last else (high if step else start)
        if not low <= start <= end <= high:
            raise ConfigInvalid(
                f"{shown(text)} is not a schedule: {shown(part)} is outside {low} to {high}", hint=SCHEDULE_HINT
            )
        allowed.update(range(start, end + 1, int(step or 1)))
    return tuple(sorted(allowed))


def _number(word: str, low: int, names: list[str], text: str) -> int:
    if word in names:
        return names.index(word) + low
    if not word.isdigit():
        raise ConfigInvalid(f"{shown(text)} is not a schedule: {shown(word)} is no number", hint=SCHEDULE_HINT)
    return int(word)


def _gap_max(cron: Cron, text: str) -> timedelta:
    """The longest time between two runs, walked over one whole cycle of the calendar."""
    days = (_CYCLE_FIRST_DAY + timedelta(days=number) for number in range(_CYCLE_DAYS))
    named = [day for day in days if cron.falls_on(day)]
    if not named:
        raise ConfigInvalid(f"{shown(text)} names a day that never comes", hint=SCHEDULE_HINT)
    times = [timedelta(hours=hour, minutes=minute) for hour in cron.hours for minute in cron.minutes]
    inside = max((later - earlier for earlier, later in pairwise(times)), default=timedelta())
    next_cycle = named[0] + timedelta(days=_CYCLE_DAYS)
    days_apart = max(later - earlier for earlier, later in pairwise([*named, next_cycle]))
    return max(inside, days_apart - times[-1] + times[0])
