"""Moments of the command line: which instant each form means, and which forms are refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.model.documents import format_time
from holdfast.model.durations import format_duration
from holdfast.model.errors import ConfigInvalid
from holdfast.model.moments import FUTURE_SLACK, LATEST, format_moment, parse_moment

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
KYIV = ZoneInfo("Europe/Kyiv")
ZONES = st.sampled_from([ZoneInfo(name) for name in ("UTC", "Europe/Kyiv", "America/St_Johns", "Pacific/Apia")])
PAST = st.integers(min_value=0, max_value=1_700_000_000_000_000).map(
    lambda microseconds: datetime(1973, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-03-01T14:30:00Z", datetime(2026, 3, 1, 14, 30, tzinfo=UTC)),
        ("2026-03-01t14:30z", datetime(2026, 3, 1, 14, 30, tzinfo=UTC)),
        ("2026-03-01 14:30+02:00", datetime(2026, 3, 1, 12, 30, tzinfo=UTC)),
        ("2026-03-01 14:30:00.5+02", datetime(2026, 3, 1, 12, 30, 0, 500_000, tzinfo=UTC)),
        ("2026-03-01 14:30 -0330", datetime(2026, 3, 1, 18, 0, tzinfo=UTC)),
        ("2026-03-01T14:30", datetime(2026, 3, 1, 12, 30, tzinfo=UTC)),
        ("  today   9:00 ", datetime(2026, 11, 20, 7, 0, tzinfo=UTC)),
        ("Yesterday 14:30", datetime(2026, 11, 19, 12, 30, tzinfo=UTC)),
        ("yesterday 14:30Z", datetime(2026, 11, 19, 14, 30, tzinfo=UTC)),
        ("-15m", NOW - timedelta(minutes=15)),
        ("-1h30m", NOW - timedelta(minutes=90)),
        ("now", NOW),
    ],
)
def test_each_form_means_one_instant(text: str, meant: datetime) -> None:
    assert parse_moment(text, now=NOW, zone=KYIV) == meant


def test_latest_is_not_yet_a_time() -> None:
    assert parse_moment("latest", now=NOW, zone=None) is LATEST


def test_yesterday_is_the_day_before_in_the_configured_zone() -> None:
    late_in_utc = datetime(2026, 7, 10, 22, 30, tzinfo=UTC)  # already the 11th in Kyiv
    assert parse_moment("yesterday 12:00", now=late_in_utc, zone=KYIV) == datetime(2026, 7, 10, 9, 0, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2026-03-01T14:30:00", "yesterday 14:30", "today 09:00"])
def test_r5_a_time_without_a_zone_is_refused_unless_one_is_configured(text: str) -> None:
    with pytest.raises(ConfigInvalid, match="has no zone") as refused:
        parse_moment(text, now=NOW, zone=None)
    assert "timezone:" in refused.value.hint


def test_a_time_that_the_clocks_show_twice_is_refused_with_both_readings() -> None:
    with pytest.raises(ConfigInvalid, match="show twice") as refused:
        parse_moment("2026-10-25 03:30", now=NOW, zone=KYIV)
    assert "2026-10-25T03:30:00+03:00" in refused.value.message
    assert "2026-10-25T03:30:00+02:00" in refused.value.message


def test_a_time_that_the_clocks_never_show_is_refused_with_both_readings() -> None:
    with pytest.raises(ConfigInvalid, match="never show") as refused:
        parse_moment("2026-03-29 03:30", now=NOW, zone=KYIV)
    assert "2026-03-29T03:30:00+02:00" in refused.value.message
    assert "2026-03-29T03:30:00+03:00" in refused.value.message


def test_either_reading_of_a_doubled_time_can_be_asked_for_by_its_offset() -> None:
    first = parse_moment("2026-10-25 03:30+03:00", now=NOW, zone=KYIV)
    second = parse_moment("2026-10-25 03:30+02:00", now=NOW, zone=KYIV)
    assert isinstance(first, datetime)
    assert isinstance(second, datetime)
    assert second - first == timedelta(hours=1)


@pytest.mark.parametrize("text", ["2026-11-20T12:06:00Z", "today 23:00", "9999-12-31T23:59:59Z"])
def test_a_time_in_the_future_is_refused_with_what_it_means(text: str) -> None:
    with pytest.raises(ConfigInvalid, match="is in the future"):
        parse_moment(text, now=NOW, zone=KYIV)


def test_a_server_clock_slightly_ahead_of_ours_is_not_the_future() -> None:
    assert parse_moment(format_time(NOW + FUTURE_SLACK), now=NOW, zone=None) == NOW + FUTURE_SLACK


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "-15",
        "+15m",
        "tomorrow 09:00",
        "yesterday",
        "14:30",
        "2026-03-01",
        "2026-02-30T10:00Z",
        "2026-03-01T24:00Z",
        "2026-03-01T10:60Z",
        "2026-03-01T10:00:60Z",
        "2026-03-01T10:00+25:00",
        "2026-03-01T10:00+02:75",
        "0001-01-01T00:00+14:00",
        "2026-3-1T10:00Z",
        "20260301T100000Z",
        "01.03.2026 10:00Z",
        "2026-03-01T10:00:00.1234567Z",
        "-99999999w",
    ],
)
def test_what_names_no_moment_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        parse_moment(text, now=NOW, zone=KYIV)
    assert refused.value.hint


@settings(deadline=None)
@given(PAST)
def test_times_that_holdfast_prints_are_read_back(moment: datetime) -> None:
    assert parse_moment(format_time(moment), now=NOW, zone=None) == moment


@settings(deadline=None)
@given(PAST, ZONES)
def test_echoed_times_are_read_back_in_every_zone(moment: datetime, zone: ZoneInfo) -> None:
    assert parse_moment(format_moment(moment, zone), now=NOW, zone=None) == moment
    assert parse_moment(format_moment(moment), now=NOW, zone=None) == moment


@settings(deadline=None)
@given(PAST, ZONES)
def test_a_local_time_is_read_exactly_where_the_clocks_show_it_once(moment: datetime, zone: ZoneInfo) -> None:
    local = moment.astimezone(zone)
    text = local.replace(tzinfo=None).isoformat(sep=" ")
    text += ":00" if len(text) == len("2026-01-01 00:00") else ""
    if local.replace(fold=0).utcoffset() == local.replace(fold=1).utcoffset():
        assert parse_moment(text, now=NOW, zone=zone) == moment
    else:
        with pytest.raises(ConfigInvalid, match="show twice"):
            parse_moment(text, now=NOW, zone=zone)


@settings(deadline=None)
@given(st.timedeltas(min_value=timedelta(), max_value=timedelta(days=36_500)))
def test_a_relative_time_is_that_far_back_from_now(back: timedelta) -> None:
    back -= back % timedelta(milliseconds=1)
    assert parse_moment(f"-{format_duration(back)}", now=NOW, zone=None) == NOW - back


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_a_past_moment_or_refused(text: str) -> None:
    try:
        moment = parse_moment(text, now=NOW, zone=KYIV)
    except ConfigInvalid:
        return
    assert moment is LATEST or (isinstance(moment, datetime) and moment <= NOW + FUTURE_SLACK)


def test_an_echoed_time_shows_its_zone() -> None:
    moment = datetime(2026, 7, 1, 12, 0, tzinfo=timezone(timedelta(hours=1)))
    assert format_moment(moment) == "2026-07-01T11:00:00Z"
    assert format_moment(moment, KYIV) == "2026-07-01T14:00:00+03:00"
