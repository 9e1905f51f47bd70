"""Facts about the log in a restored folder: whole up to the stop position, nothing after it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from backup_example import DETAILS, MIB, Backup, written
from hypothesis import given
from hypothesis import strategies as st

from holdfast.model.errors import IntegrityBroken
from holdfast.sources.postgres.details import BackupDetails, format_lsn
from holdfast.sources.postgres.refill_wal import choose_wal, segment_name

TARGET = Path("/restored/cluster")


def whole(details: BackupDetails, *names: str) -> list[tuple[str, int]]:
    return [(name, details.wal_segment_size) for name in names]


def test_the_last_segment_is_zeroed_after_the_stop_position() -> None:
    plan = Backup().plan(TARGET)
    zeroed = {step.path.name: step.zero_from for step in plan.files if step.path.parent == TARGET / "pg_wal"}
    assert zeroed == {"000000010000000000000002": None, "000000010000000000000003": 0x130}


def test_segments_after_the_stop_position_are_dropped() -> None:
    plan = Backup().with_paths({"pg_wal/000000010000000000000004": b"wal"}).plan(TARGET)
    assert TARGET / "pg_wal/000000010000000000000004" not in written(plan)
    assert TARGET / "pg_wal/archive_status/000000010000000000000004.done" not in written(plan)


def test_a_stop_at_a_segment_boundary_ends_with_a_whole_segment() -> None:
    details = replace(DETAILS, stop_lsn="0/3000000")
    names = ("000000010000000000000002", "000000010000000000000003")
    assert choose_wal(details, whole(details, *names)).kept == (("000000010000000000000002", None),)


def test_partial_and_temporary_files_are_dropped_and_history_files_kept() -> None:
    paths = {
        "pg_wal/000000010000000000000003.partial": b"x",
        "pg_wal/xlogtemp.17": b"x",
        "pg_wal/00000001.history": b"x",
        "pg_wal/summaries/0000000100000000010000280000000001000130.summary": b"x",
    }
    names = {path.name for path in written(Backup().with_paths(paths).plan(TARGET))}
    assert "00000001.history" in names
    assert not names & {"000000010000000000000003.partial", "xlogtemp.17"}
    assert not any(name.endswith(".summary") for name in names)


def test_every_restored_log_file_counts_as_archived_already() -> None:
    paths = {"pg_wal/archive_status/000000010000000000000002.ready": b"", "pg_wal/00000001.history": b"x"}
    names = {path.name for path in written(Backup().with_paths(paths).plan(TARGET)) if "archive_status" in path.parts}
    segments = ("000000010000000000000002", "000000010000000000000003", "00000001.history")
    assert names == {f"{name}.done" for name in segments}


@pytest.mark.parametrize("missing", ["000000010000000000000002", "000000010000000000000003"])
def test_a_missing_segment_is_named(missing: str) -> None:
    with pytest.raises(IntegrityBroken, match=missing):
        Backup().without(f"pg_wal/{missing}").plan(TARGET)


def test_a_segment_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(IntegrityBroken, match="holds 4 bytes"):
        Backup().with_paths({"pg_wal/000000010000000000000003": b"half"}).plan(TARGET)


def test_a_standby_that_followed_to_a_new_timeline_keeps_both_sides_of_the_switch() -> None:
    details = replace(DETAILS, stop_timeline=10, stop_lsn="0/4000010", in_recovery=True)
    names = (
        "000000010000000000000002",
        "000000010000000000000003",
        "0000000A0000000000000003",
        "0000000A0000000000000004",
        "0000000B0000000000000004",
    )
    choice = choose_wal(details, [*whole(details, *names), ("0000000A.history", 40)])
    assert {name for name, _ in choice.kept} == {"0000000A.history", *names[:4]}


@given(
    st.sampled_from([1, 16, 64, 1024]).map(lambda size: size * MIB),
    st.integers(1, 1 << 45),
    st.integers(1, 1 << 24),
    st.integers(0, 3),
    st.integers(1, 0xFFFFFFFF),
)
def test_exactly_the_bytes_up_to_the_stop_position_remain(
    size: int, start: int, length: int, beyond: int, timeline: int
) -> None:
    stop = start + length
    details = replace(
        DETAILS,
        wal_segment_size=size,
        start_lsn=format_lsn(start),
        stop_lsn=format_lsn(stop),
        start_timeline=timeline,
        stop_timeline=timeline,
    )
    numbers = range(start // size, stop // size + 1 + beyond)
    choice = choose_wal(details, whole(details, *(segment_name(timeline, number, size) for number in numbers)))
    kept = sum(size if zero_from is None else zero_from for _, zero_from in choice.kept)
    assert kept == stop - start // size * size
    assert [zero_from for _, zero_from in choice.kept[:-1]] == [None] * (len(choice.kept) - 1)
