"""Which answer restore_command gets for a segment: whole, filled up, absent, or an alarm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import pytest

from holdfast.model.errors import ConfigInvalid, IntegrityBroken
from holdfast.model.logs import Generation, Sample, Stretch
from holdfast.sources.postgres.follow.timelines import generation_of, read_history
from holdfast.sources.postgres.wal_files import WalFileName, parse_wal_name
from holdfast.sources.postgres.wal_parts import find_segment

SEGMENT = 16 << 20
FIRST = generation_of(read_history("7", 1, b""), SEGMENT)
SECOND = generation_of(read_history("7", 2, b"1\t0/3000148\tpromoted\n"), SEGMENT)


class Listed:
    """A log of which only the extent matters."""

    def __init__(self, *held: tuple[Generation, list[Stretch]]) -> None:
        self._held = held

    def generations(self) -> Sequence[Generation]:
        return [generation for generation, _ in self._held]

    def stretches(self, generation: str) -> Sequence[Stretch]:
        return next(stretches for one, stretches in self._held if one.id == generation)

    def read(self, generation: str, stretch: Stretch) -> Iterator[bytes]:
        raise NotImplementedError

    def samples(self, generation: str, stretch: Stretch) -> Sequence[Sample]:
        raise NotImplementedError

    def samples_around(self, generation: str, at: datetime) -> tuple[Sample | None, Sample | None]:
        raise NotImplementedError


def segment(number: int, timeline: int = 1) -> WalFileName:
    name = parse_wal_name(f"{timeline:08X}{0:08X}{number:08X}")
    assert name is not None
    return name


def at(segments: float) -> int:
    return int(segments * SEGMENT)


def test_a_segment_that_is_stored_is_whole_and_never_changes() -> None:
    part = find_segment(Listed((FIRST, [Stretch(at(2), at(5))])), segment(3), "7")
    assert part is not None
    assert part.is_complete
    assert part.stretch == Stretch(at(3), at(4))


def test_w10_the_last_segment_is_filled_with_zeros_and_is_not_one_to_keep() -> None:
    part = find_segment(Listed((FIRST, [Stretch(at(2), at(4.25))])), segment(4), "7")
    assert part is not None
    assert not part.is_complete
    assert (part.stretch, part.zeros) == (Stretch(at(4), at(4.25)), at(0.75))


def test_what_is_behind_the_end_or_of_another_timeline_certainly_is_not_there() -> None:
    log = Listed((FIRST, [Stretch(at(2), at(4))]), (SECOND, [Stretch(at(3), at(6))]))
    assert find_segment(log, segment(4), "7") is None
    assert find_segment(log, segment(3, timeline=3), "7") is None
    assert find_segment(log, segment(3), "8") is None
    assert find_segment(log, segment(2, timeline=2), "7") is None
    assert find_segment(Listed(), segment(3), None) is None
    assert find_segment(Listed((FIRST, [])), segment(3), None) is None


@pytest.mark.parametrize("number", [1, 4, 5, 6])
def test_w11_a_hole_is_an_alarm_and_not_the_end_of_the_log(number: int) -> None:
    log = Listed((FIRST, [Stretch(at(2), at(4.5)), Stretch(at(6.5), at(9))]))
    with pytest.raises(IntegrityBroken):
        find_segment(log, segment(number), "7")


def test_a_timeline_of_two_systems_needs_to_be_told_which() -> None:
    other = generation_of(read_history("8", 1, b""), SEGMENT)
    log = Listed((FIRST, [Stretch(at(2), at(4))]), (other, [Stretch(at(2), at(4))]))
    with pytest.raises(ConfigInvalid):
        find_segment(log, segment(3), None)
    found = find_segment(log, segment(3), "8")
    assert found is not None
    assert found.generation == other.id
