"""How a change log is cut: every byte once, in order, with the samples and gaps that belong to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.repository.log_examples import FIRST, SECOND, at, log_bytes
from tests.unit.repository.repository_examples import NOW

from holdfast.backup.following_cut import SAMPLES_WAITING_MAX, TAIL_BYTES, Cutter, Piece
from holdfast.model.errors import IntegrityBroken
from holdfast.model.logs import Sample


def cutter(piece_bytes_max: int = 100, end: int | None = None, tail: bytes = b"") -> Cutter:
    made = Cutter(piece_bytes_max)
    made.begin(FIRST, end, tail)
    return made


def append(made: Cutter, start: int, end: int) -> list[Piece]:
    return made.append(start, log_bytes(start, end), 0.0, NOW)


def places(pieces: list[Piece]) -> list[tuple[int, int]]:
    return [(piece.start, piece.end) for piece in pieces]


@given(st.lists(st.integers(1, 70), max_size=20), st.integers(1, 50))
def test_pieces_hold_every_byte_once_and_are_of_bounded_size(sizes: list[int], most: int) -> None:
    made, at_position, pieces = cutter(most), 500, []
    for size in sizes:
        pieces += append(made, at_position, at_position + size)
        at_position += size
    pieces += made.cut(NOW)
    assert b"".join(bytes(piece.content) for piece in pieces) == log_bytes(500, at_position)
    assert all(0 < piece.size_bytes <= most for piece in pieces)
    assert [piece.start for piece in pieces] == [500, *(piece.end for piece in pieces)][: len(pieces)]
    assert made.size_bytes == 0


def test_what_comes_again_is_passed_over() -> None:
    made = cutter()
    append(made, 0, 50)
    append(made, 20, 50)
    append(made, 30, 70)
    append(made, 0, 10)
    (piece,) = made.cut(NOW)
    assert bytes(piece.content) == log_bytes(0, 70)


def test_other_bytes_than_before_are_refused() -> None:
    made = cutter()
    append(made, 0, 50)
    with pytest.raises(IntegrityBroken, match="other bytes of its log at position 14"):
        made.append(20, b"x" * 40, 0.0, NOW)
    resumed = cutter(end=50, tail=log_bytes(30, 50))
    append(resumed, 40, 60)
    with pytest.raises(IntegrityBroken):
        cutter(end=50, tail=log_bytes(30, 50)).append(45, b"x" * 40, 0.0, NOW)


def test_a_hole_cuts_and_is_untold_unless_a_reason_was_given() -> None:
    made = cutter()
    append(made, 0, 50)
    assert places(append(made, 70, 90)) == [(0, 50)]
    (piece,) = made.cut(NOW)
    assert (piece.start, piece.untold, piece.gap) == (70, True, None)
    made.tell_gap("the slot was lost")
    append(made, 95, 99)
    (piece,) = made.cut(NOW)
    assert (piece.start, piece.untold, piece.gap) == (95, False, "the slot was lost")
    append(made, 99, 105)
    (piece,) = made.cut(NOW)
    assert (piece.untold, piece.gap) == (False, None)


def test_bytes_that_begin_beyond_the_stored_end_are_a_hole() -> None:
    made = cutter(end=50)
    append(made, 70, 90)
    assert made.cut(NOW)[0].untold
    fresh = cutter()
    append(fresh, 70, 90)
    assert not fresh.cut(NOW)[0].untold


def test_a_sample_goes_with_the_bytes_before_it_and_waits_for_them() -> None:
    made = cutter()
    append(made, 0, 50)
    for second, position in [(1, 0), (2, 30), (3, 50), (4, 80)]:
        made.sample(Sample(at(second), position))
    assert [one.position for one in made.cut(NOW)[0].samples] == [0, 30, 50]
    made.sample(Sample(at(5), 50))
    append(made, 50, 80)
    # In order of time, whatever the positions say.
    assert made.cut(NOW)[0].samples == (Sample(at(4), 80), Sample(at(5), 50))
    assert list(made.waiting_samples) == []


def test_a_quiet_time_keeps_its_first_and_its_newest_sample() -> None:
    made = cutter()
    append(made, 0, 50)
    made.cut(NOW)
    for second in range(3600):
        made.sample(Sample(at(second), 50))
    assert list(made.waiting_samples) == [Sample(at(0), 50), Sample(at(3599), 50)]
    append(made, 50, 60)
    assert made.cut(NOW)[0].samples == (Sample(at(0), 50), Sample(at(3599), 50))


def test_samples_that_wait_are_bounded() -> None:
    made = cutter()
    for second in range(3 * SAMPLES_WAITING_MAX):
        made.sample(Sample(at(second), second))
    assert len(made.waiting_samples) <= SAMPLES_WAITING_MAX
    assert made.waiting_samples[-1].position == 3 * SAMPLES_WAITING_MAX - 1


def test_another_generation_forgets_the_samples_of_the_one_before() -> None:
    made = cutter()
    made.sample(Sample(at(0), 50))
    made.begin(FIRST, None, b"")
    assert len(made.waiting_samples) == 1
    made.begin(SECOND, None, b"")
    assert list(made.waiting_samples) == []


def test_only_so_many_of_the_last_bytes_are_remembered() -> None:
    made = cutter(1 << 20)
    append(made, 0, 5 * TAIL_BYTES)
    assert made.tail == log_bytes(4 * TAIL_BYTES, 5 * TAIL_BYTES)
    append(made, 5 * TAIL_BYTES, 5 * TAIL_BYTES + 9)
    assert made.tail == log_bytes(4 * TAIL_BYTES + 9, 5 * TAIL_BYTES + 9)
