"""Durations, sizes and rates as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.model.durations import (
    DURATION_MAX,
    SHOWN_CHARACTERS_MAX,
    format_duration,
    parse_duration,
    parse_rate,
    parse_size,
)
from holdfast.model.errors import ConfigInvalid


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("30d", timedelta(days=30)),
        ("15m", timedelta(minutes=15)),
        ("1h30m", timedelta(minutes=90)),
        ("5s", timedelta(seconds=5)),
        ("2w", timedelta(days=14)),
        ("500ms", timedelta(milliseconds=500)),
        ("1m1ms", timedelta(minutes=1, milliseconds=1)),
        ("0s", timedelta()),
    ],
)
def test_a_duration_is_numbers_with_units_largest_first(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text", ["", "30", "30 days", "1.5h", "30m1h", "1h1h", "-5s", "5S", "٣d", "1mo", "5s\n", " 5s"]
)
def test_anything_else_is_refused_with_the_forms_that_are_right(text: str) -> None:
    with pytest.raises(ConfigInvalid, match="is not a duration") as refused:
        parse_duration(text)
    assert "30d, 15m, 1h30m" in refused.value.hint


@pytest.mark.parametrize("text", ["36501d", "999999999w", "999999999w999999999d"])
def test_a_duration_beyond_the_bound_is_refused(text: str) -> None:
    with pytest.raises(ConfigInvalid, match="longer than any duration"):
        parse_duration(text)


def test_what_was_read_is_cut_short_in_the_message() -> None:
    with pytest.raises(ConfigInvalid) as refused:
        parse_duration("x" * 10_000)
    assert len(refused.value.message) < SHOWN_CHARACTERS_MAX + 40


@settings(deadline=None)
@given(st.timedeltas(min_value=timedelta(), max_value=DURATION_MAX))
def test_what_is_formatted_reads_back_to_the_millisecond(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration - duration % timedelta(milliseconds=1)


def test_a_negative_duration_is_never_written() -> None:
    with pytest.raises(ValueError, match="negative"):
        format_duration(timedelta(seconds=-1))


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("0B", 0), ("512B", 512), ("64KiB", 65536), ("32 MiB", 32 * 2**20), ("1GB", 10**9), ("2TiB", 2 * 2**40)],
)
def test_a_size_is_a_number_with_a_unit(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "64", "64K", "64kib", "1.5GiB", "-1B", "9999999TiB"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ConfigInvalid):
        parse_size(text)


def test_a_rate_is_a_size_per_second() -> None:
    assert parse_rate("64KiB/s") == 65536
    for text in ("64KiB", "64/s", "KiB/s", "64KiB/m"):
        with pytest.raises(ConfigInvalid, match="is not a rate"):
            parse_rate(text)
