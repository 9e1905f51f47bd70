"""Schedules: what is a schedule, and the longest time that it leaves between two runs."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from holdfast.model.errors import ConfigInvalid
from holdfast.model.schedules import parse_schedule


@pytest.mark.parametrize(
    ("text", "gap"),
    [
        ("hourly", timedelta(hours=1)),
        ("daily", timedelta(days=1)),
        ("weekly", timedelta(weeks=1)),
        ("monthly", timedelta(days=31)),
        ("* * * * *", timedelta(minutes=1)),
        ("*/15 * * * *", timedelta(minutes=15)),
        ("30 2 * * *", timedelta(days=1)),
        ("0 2,14 * * *", timedelta(hours=12)),
        ("0 2,8 * * *", timedelta(hours=18)),
        ("0 0 * * mon-fri", timedelta(days=3)),
        ("0 0 * * 0", timedelta(weeks=1)),
        ("0 0 * * 7", timedelta(weeks=1)),
        ("0 0 1 * *", timedelta(days=31)),
        ("0 0 1 jan *", timedelta(days=366)),
        ("0 0 29 2 *", timedelta(days=1461)),
        ("0 0 1,15 * sun", timedelta(days=7)),
    ],
)
def test_the_longest_gap_of_a_schedule_is_known(text: str, gap: timedelta) -> None:
    assert parse_schedule(text).gap_max == gap


def test_never_has_no_gap() -> None:
    assert parse_schedule("never").gap_max is None


def test_either_day_field_is_enough_where_both_are_given() -> None:
    cron = parse_schedule("0 0 13 * fri").cron
    assert cron is not None
    assert cron.falls_on(date(2026, 3, 6))  # a Friday
    assert cron.falls_on(date(2026, 4, 13))  # a Monday, the 13th
    assert not cron.falls_on(date(2026, 4, 14))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dayly",
        "Daily",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "5-1 * * * *",
        "*/0 * * * *",
        "a * * * *",
        "1, * * * *",
        "0 0 30 2 *",
        "0 0 ² * *",
    ],
)
def test_what_is_no_schedule_is_refused_with_the_forms_that_are_right(text: str) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        parse_schedule(text)
    assert "hourly, daily, weekly, monthly, never" in refused.value.hint
