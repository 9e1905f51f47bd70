"""The way along timelines: which line's bytes are taken where, and what ends the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pytest

from holdfast.model.documents import JsonObject
from holdfast.model.errors import IntegrityBroken
from holdfast.model.logs import Generation, Sample, Stretch
from holdfast.sources.postgres.wal_path import line_of, lines_of, parse_history, path_from

SEGMENT = 16 << 20
FORK = 5 * SEGMENT + 8192 * 7 + 40


@dataclass
class HeldLog:
    """A log of which only the listing matters."""

    held: dict[str, list[Stretch]]
    lines: list[Generation] = field(default_factory=list)

    def generations(self) -> Sequence[Generation]:
        return self.lines

    def stretches(self, generation: str) -> Sequence[Stretch]:
        return self.held[generation]

    def read(self, generation: str, stretch: Stretch) -> Iterator[bytes]:
        yield bytes(stretch.size_bytes)

    def samples(self, generation: str, stretch: Stretch) -> Sequence[Sample]:
        return ()

    def samples_around(self, generation: str, at: datetime) -> tuple[Sample | None, Sample | None]:
        return None, None


def generation(timeline: int, history: str = "", begins: int = 0) -> Generation:
    details: JsonObject = {"kind": "postgres", "system_identifier": "7", "timeline": timeline, "history": history}
    return Generation(f"t{timeline}", begins, details={**details, "segment_bytes": SEGMENT})


HISTORY = f"1\t{FORK >> 32:X}/{FORK & 0xFFFFFFFF:X}\tno recovery target specified\n"
FIRST, SECOND = generation(1), generation(2, HISTORY, 5 * SEGMENT)


def log_of(first: list[Stretch], second: list[Stretch]) -> HeldLog:
    return HeldLog({"t1": first, "t2": second}, [FIRST, SECOND])


def legs_of(log: HeldLog, start: int, timeline: int = 1, goal: int = 2) -> list[tuple[int, int, int]] | None:
    lines = lines_of(log.generations())["7"]
    path = path_from(log, lines, lines[goal], timeline, start)
    if path is None:
        return None
    return [(leg.line.timeline, leg.stretch.start, leg.stretch.end) for leg in path.legs]


def test_the_segment_of_a_switch_is_taken_from_the_new_timeline() -> None:
    log = log_of([Stretch(SEGMENT, FORK + 500)], [Stretch(5 * SEGMENT, 9 * SEGMENT)])
    assert legs_of(log, 2 * SEGMENT) == [(1, SEGMENT, 5 * SEGMENT), (2, 5 * SEGMENT, 9 * SEGMENT)]


def test_where_the_new_timeline_lacks_it_the_old_one_gives_it_up_to_the_switch() -> None:
    log = log_of([Stretch(SEGMENT, FORK + 500)], [Stretch(FORK, 9 * SEGMENT)])
    assert legs_of(log, 2 * SEGMENT) == [(1, SEGMENT, FORK), (2, FORK, 9 * SEGMENT)]


def test_a_tail_of_the_old_timeline_is_not_needed_where_the_new_one_repeats_it() -> None:
    log = log_of([Stretch(SEGMENT, 5 * SEGMENT)], [Stretch(5 * SEGMENT, 9 * SEGMENT)])
    assert legs_of(log, 2 * SEGMENT) == [(1, SEGMENT, 5 * SEGMENT), (2, 5 * SEGMENT, 9 * SEGMENT)]


def test_a_hole_before_the_switch_ends_the_way_and_is_named() -> None:
    log = log_of([Stretch(SEGMENT, 4 * SEGMENT)], [Stretch(5 * SEGMENT, 9 * SEGMENT)])
    assert legs_of(log, 2 * SEGMENT) == [(1, SEGMENT, 4 * SEGMENT)]
    lines = lines_of(log.generations())["7"]
    path = path_from(log, lines, lines[2], 1, 2 * SEGMENT)
    assert path is not None
    assert path.hole == "the log of timeline 1 lacks 0/4000000 to 0/5000000"


def test_a_hole_on_the_last_timeline_is_named_where_the_log_goes_on() -> None:
    log = log_of([Stretch(0, 2 * SEGMENT), Stretch(3 * SEGMENT, 4 * SEGMENT)], [])
    lines = lines_of(log.generations())["7"]
    path = path_from(log, lines, lines[1], 1, SEGMENT)
    assert path is not None
    assert (path.end, path.hole) == (2 * SEGMENT, "the log of timeline 1 lacks 0/2000000 to 0/3000000")


def test_the_tail_behind_a_switch_belongs_to_the_old_timeline_alone() -> None:
    log = log_of([Stretch(SEGMENT, 7 * SEGMENT)], [Stretch(5 * SEGMENT, 9 * SEGMENT)])
    assert legs_of(log, 2 * SEGMENT, goal=1) == [(1, SEGMENT, 7 * SEGMENT)]
    second = lines_of(log.generations())["7"][2]
    assert second.descends_from(1, FORK)
    assert not second.descends_from(1, FORK + 8)
    assert second.timeline_at(FORK - 8) == 1
    assert second.timeline_at(FORK) == 2


def test_w16_a_backup_whose_end_the_log_does_not_hold_has_no_way() -> None:
    log = log_of([Stretch(3 * SEGMENT, 4 * SEGMENT)], [])
    assert legs_of(log, 2 * SEGMENT + 100, goal=1) is None
    assert legs_of(log, 4 * SEGMENT + 100, goal=1) is None


def test_a_backup_within_the_segment_of_a_switch_goes_on_with_the_new_timeline() -> None:
    log = log_of([Stretch(SEGMENT, FORK)], [Stretch(5 * SEGMENT, 9 * SEGMENT)])
    assert legs_of(log, 5 * SEGMENT + 8192 + 96) == [(2, 5 * SEGMENT, 9 * SEGMENT)]


def test_a_history_is_read_with_its_comments_and_hexadecimal_positions() -> None:
    text = "# by hand\n1\t0/A000028\tno recovery target specified\n\n10\t1/B374d848\tbefore 2026\n"
    assert parse_history(text) == ((1, 0xA000028), (10, 0x1B374D848))


def test_a_generation_of_another_kind_is_no_timeline_and_a_wrong_one_is_broken() -> None:
    assert line_of(Generation("r", 0, details={"kind": "redis"})) is None
    with pytest.raises(IntegrityBroken):
        line_of(Generation("t", 0, details={"kind": "postgres", "timeline": "2"}))
