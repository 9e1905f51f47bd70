"""What long work shows while it goes on, by a clock that the test moves."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from holdfast.interfaces.cli.progress import (
    EVENT_SECONDS,
    PLAIN_SECONDS,
    PLAIN_SECONDS_FIRST,
    RETRY_SECONDS,
    EventDisplay,
    Pace,
    PlainDisplay,
    RetryLines,
)
from holdfast.model.errors import Interrupted
from holdfast.model.events import Progress
from holdfast.storage.settled import Retry

MEBIBYTE = 1 << 20


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Lines:
    lines: list[str] = field(default_factory=list)

    def progress(self, subject: str, progress: Progress) -> None:
        raise AssertionError

    def line(self, text: str) -> None:
        self.lines.append(text)


def retry(number: int) -> Retry:
    return Retry("get", "s3://bucket/x", number, 0.4, "the store is busy")


def test_percent_rate_and_time_left_follow_from_what_was_done() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert pace.facts(Progress(0, 0)) == {"percent": None, "bytes_per_second": None, "seconds_left": None}
    clock.now += 2
    assert pace.facts(Progress(20, 100)) == {"percent": 20.0, "bytes_per_second": 10, "seconds_left": 8.0}
    clock.now += 10
    assert pace.facts(Progress(120, 100)) == {"percent": 100.0, "bytes_per_second": 10, "seconds_left": 0.0}


def test_a_plain_line_comes_now_and_then_for_each_source(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    display = PlainDisplay("backing up", clock)
    for _ in range(3):
        display.progress("orders", Progress(0, 0))
    clock.now += PLAIN_SECONDS_FIRST
    display.progress("orders", Progress(MEBIBYTE, 4 * MEBIBYTE))
    display.progress("orders", Progress(MEBIBYTE, 4 * MEBIBYTE))
    clock.now += PLAIN_SECONDS
    display.progress("orders", Progress(3 * MEBIBYTE, 4 * MEBIBYTE))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "orders: backing up, 25.0 %, 1.0 MiB of 4.0 MiB, 512 KiB/s, 6.0 s left",
        "orders: backing up, 75.0 %, 3.0 MiB of 4.0 MiB, 256 KiB/s, 4.0 s left",
    ]


def test_events_come_at_once_and_then_about_once_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    display = EventDisplay("restoring", clock)
    for step in range(5):
        display.progress("orders", Progress(step, 10, 1))
        clock.now += EVENT_SECONDS / 2
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["done_bytes"] for event in events] == [0, 2, 4]
    assert {event["event"] for event in events} == {"progress"}


def test_retries_are_told_but_not_one_line_each() -> None:
    clock, lines = Clock(), Lines()
    retries = RetryLines(lines, lambda: False, every=False, clock=clock)
    for number in range(1, 5):
        retries.on_retry(retry(number))
    clock.now += RETRY_SECONDS
    retries.on_retry(retry(5))
    assert lines.lines == [
        "retry 1 in 0.4 s: get: the store is busy",
        "retry 5 in 0.4 s: get: the store is busy (3 more meanwhile)",
    ]


def test_every_retry_is_told_where_verbose() -> None:
    lines = Lines()
    retries = RetryLines(lines, lambda: False, every=True, clock=Clock())
    for number in range(1, 5):
        retries.on_retry(retry(number))
    assert len(lines.lines) == 4


def test_a_retry_is_broken_off_once_somebody_asked_to_stop() -> None:
    retries = RetryLines(Lines(), lambda: True, every=False, clock=Clock())
    with pytest.raises(Interrupted):
        retries.on_retry(retry(1))
