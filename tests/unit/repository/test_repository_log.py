"""The log in a repository: what a listing tells, and what reading, resuming and merging make of whatever is there."""

from __future__ import annotations

import json
from concurrent.futures import Executor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.repository.log_examples import (
    FIRST,
    SECOND,
    THIRD,
    at,
    header,
    listed,
    log_bytes,
    named,
    one_listed,
    put,
)
from tests.unit.repository.repository_examples import (
    NOW,
    RUN,
    area_of,
    entry_like,
    flipped,
    in_folder,
    memory,
    object_names,
    replace_object,
    settled,
    take,
)

from holdfast.model.documents import encode_document
from holdfast.model.errors import Conflict, IntegrityBroken, KeyInvalid, NotFound, Unavailable
from holdfast.model.logs import Sample, Stretch, holes, union
from holdfast.repository import history as histories
from holdfast.repository.area import Area
from holdfast.repository.checking import check_area
from holdfast.repository.format import names, rules
from holdfast.repository.format.container import ObjectType
from holdfast.repository.format.entry import EntryKind, encode_entry, parse_entry
from holdfast.repository.format.log import FRAME_BYTES, SAMPLES_MAX, SPAN_BYTES_MAX, thinned
from holdfast.repository.format.names import SpanName
from holdfast.repository.log.listing import ListedSpan, in_order, latest, lineage, list_generations, list_log
from holdfast.repository.log.merging import (
    DELETE_AFTER,
    Author,
    MergeRun,
    condemn_merged,
    delete_condemned,
    merge_log,
    merge_run,
    plan_merges,
)
from holdfast.repository.log.reading import PART_BYTES, StoredLog, plan_parts
from holdfast.repository.log.resuming import resume_place
from holdfast.repository.log.spans import put_generation, put_span, read_generation, seal_span
from holdfast.storage.faulty import Fault, FaultKind, FaultyStore
from holdfast.storage.opening import open_store
from holdfast.storage.settings import StoreSettings

LATER = NOW + timedelta(days=400)
"""By then everything that these tests put is older than a day, whatever the clock of the store says."""


def name_of(area: Area, span: SpanName) -> str:
    return names.log_span(area.keys.area, span)


def read(area: Area, executor: Executor, start: int, end: int) -> bytes:
    return b"".join(StoredLog(area, executor).read(FIRST.id, Stretch(start, end)))


# Names and listings


def test_names_of_the_log_are_read_back_and_no_others() -> None:
    area = area_of().keys.area
    span = SpanName(FIRST.id, 0x16B374D848, 0x16B3800000, "0f" * 32)
    name = names.log_span(area, span)
    assert name.endswith(f"/log/{FIRST.id}/00000016b374d848-00000016b3800000-{'0f' * 32}")
    place = names.log(area)
    assert names.parse_log(place, name) == span
    assert names.parse_log(place, names.log_generation(area, FIRST.id)) == FIRST.id
    odd = [name[:-1], name + "x", name.replace("-0000", "-g000"), names.log(area) + "generation", f"x{name}"]
    odd.append(names.log_span(area, SpanName(FIRST.id, 7, 7, "0f" * 32)))
    odd.append(names.log_span(area, SpanName(FIRST.id, 9, 7, "0f" * 32)))
    assert [names.parse_log(place, one) for one in odd] == [None] * len(odd)


def test_a_gap_is_visible_from_a_listing_alone(executor: Executor) -> None:
    store = FaultyStore(open_store(StoreSettings("memory://")))
    area = area_of(settled(store))
    put(area, 100, 200)
    put(area, 300, 400)
    put(area, 150, 250)
    before = len(store.points)
    listing = list_log(area)
    assert listing.stretches(FIRST.id) == [Stretch(100, 250), Stretch(300, 400)]
    assert holes(listing.stretches(FIRST.id), Stretch(100, 400)) == [Stretch(250, 300)]
    assert {point.split()[1] for point in store.points[before:]} == {"list"}


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), max_size=20))
def test_a_listing_tells_the_union_of_its_spans(spans: list[tuple[int, int]]) -> None:
    stretches = [(start, start + size) for start, size in spans]
    assert listed(*stretches).stretches(FIRST.id) == union(Stretch(*one) for one in stretches)


def test_generations_are_told_parents_first_whatever_their_order_of_names() -> None:
    moved = [replace(THIRD, id="01" * 16), replace(SECOND, id="ff" * 16), FIRST]
    moved[0] = replace(moved[0], parent=moved[1].id)
    stored = [(generation, NOW) for generation in moved]
    assert in_order(stored) == [FIRST, moved[1], moved[0]]
    assert latest(in_order(stored)) == moved[0]
    assert lineage(moved, moved[1].id) == [FIRST, moved[1]]


def test_the_generation_begun_last_is_the_latest_of_several_ends() -> None:
    fork = replace(SECOND, id="0d" * 16)
    order = in_order([(FIRST, at(0)), (SECOND, at(5)), (fork, at(9))])
    assert latest(order) == fork
    assert latest(in_order([(FIRST, at(0)), (SECOND, at(9)), (fork, at(5))])) == SECOND
    assert latest([]) is None


def test_a_generation_whose_parent_is_not_stored_still_has_its_place() -> None:
    assert in_order([(THIRD, NOW), (FIRST, at(1))]) == [THIRD, FIRST]


@pytest.mark.parametrize("in_a_folder", [True, False])
def test_generations_are_found_without_listing_their_spans(in_a_folder: bool, tmp_path: Path) -> None:
    inner = in_folder(tmp_path) if in_a_folder else memory()
    store = FaultyStore(inner)
    area = area_of(settled(store))
    assert list_generations(area) == frozenset()
    for generation in (FIRST, SECOND, THIRD):
        for start in range(2000, 2300, 10):
            put(area, start, start + 10, generation=generation)
    area.store.delete(names.log_generation(area.keys.area, SECOND.id))
    for strange in ("0", "zz/x", f"{FIRST.id}/0", f"{THIRD.id}/zzz"):
        area.store.create(names.log(area.keys.area) + strange, b"strange")
    before = len(store.points)
    assert list_generations(area) == list_log(area).generations == {FIRST.id, THIRD.id}
    assert len(store.points) - before < 40


# Generations


def test_a_generation_is_stored_once_and_the_same_again_is_fine(executor: Executor) -> None:
    area = area_of()
    put_generation(area, SECOND, NOW)
    put_generation(area, SECOND, at(60))
    assert read_generation(area, SECOND.id) == (SECOND, NOW)


@pytest.mark.parametrize(
    "other", [{"begins": 800}, {"fork": 1001}, {"parent": "d4" * 16}, {"details": {"history": "another"}}]
)
def test_another_generation_under_a_taken_id_is_refused(other: dict[str, object]) -> None:
    area = area_of()
    put_generation(area, SECOND, NOW)
    with pytest.raises(Conflict, match="stored already, with another history"):
        put_generation(area, replace(SECOND, **other), NOW)  # type: ignore[arg-type]
    assert read_generation(area, SECOND.id)[0] == SECOND


def test_of_two_who_store_one_id_with_different_histories_at_once_one_is_refused() -> None:
    store = FaultyStore(memory(), (Fault(FaultKind.EXISTS_LIE, operation="create", times=0),))
    area = area_of(settled(store))
    other = replace(SECOND, details={"history": "another"})

    class Racing:
        """Lets the other one in between the look and the put."""

        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

        def create(self, name: str, data: bytes) -> None:
            put_generation(area, other, NOW)
            store.create(name, data)

    with pytest.raises(Conflict):
        put_generation(area_of(settled(Racing())), SECOND, NOW)  # type: ignore[arg-type]
    assert read_generation(area, SECOND.id)[0] == other


@pytest.mark.parametrize(
    "impossible",
    [{"id": "xyz"}, {"begins": -1}, {"begins": 1001}, {"fork": None}, {"parent": None}, {"parent": SECOND.id}],
)
def test_an_impossible_generation_is_not_stored(impossible: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="is no generation"):
        put_generation(area_of(), replace(SECOND, **impossible), NOW)  # type: ignore[arg-type]


# Reading


def test_any_range_reads_back_exactly(executor: Executor, tmp_path: Path) -> None:
    area = area_of(in_folder(tmp_path))
    end = 10 + 3 * FRAME_BYTES
    put(area, 10, end)
    put(area, end, end + 7)
    whole = log_bytes(10, end + 7)
    for start, stop in [(10, end + 7), (10, 11), (end - 1, end + 1), (FRAME_BYTES, FRAME_BYTES + 30), (end, end + 7)]:
        assert read(area, executor, start, stop) == whole[start - 10 : stop - 10]


def test_a_range_of_a_large_span_is_read_without_the_rest() -> None:
    from concurrent.futures import ThreadPoolExecutor

    store = FaultyStore(open_store(StoreSettings("memory://")))
    area = area_of(settled(store))
    span = put(area, 0, 8 * FRAME_BYTES)
    size = store.head(name_of(area, span)).size_bytes
    asked: list[int] = []
    inner = store.get

    def counted(name: str, start: int = 0, end: int | None = None) -> object:
        data = inner(name, start, end)
        asked.append(len(data))
        return data

    store.get = counted  # type: ignore[method-assign, assignment]
    with ThreadPoolExecutor(2) as pool:
        assert read(area, pool, 5 * FRAME_BYTES + 3, 5 * FRAME_BYTES + 9) == log_bytes(5 * FRAME_BYTES, 5 << 20 | 9)[3:]
    assert sum(asked) < size / 4


def test_a_hole_is_refused_before_anything_is_given(executor: Executor) -> None:
    area = area_of()
    put(area, 0, 100)
    put(area, 150, 300)
    pieces = StoredLog(area, executor).read(FIRST.id, Stretch(0, 300))
    with pytest.raises(IntegrityBroken, match=r"lacks position 64 of generation a1a1"):
        next(iter(pieces))


def test_overlapping_spans_that_agree_are_one(executor: Executor) -> None:
    area = area_of()
    for start, end in [(0, 100), (50, 150), (60, 90), (0, 100), (140, 300)]:
        put(area, start, end)
    assert read(area, executor, 0, 300) == log_bytes(0, 300)


@pytest.mark.parametrize("other", [(50, 150), (60, 90), (0, 100), (99, 300)])
def test_overlapping_spans_that_differ_are_refused(other: tuple[int, int], executor: Executor) -> None:
    area = area_of()
    put(area, 0, 100)
    put(area, *other, flavour=b"another server")
    with pytest.raises(IntegrityBroken, match="two spans of the log of shop/orders tell different bytes"):
        read(area, executor, 0, max(100, other[1]))


def test_what_lies_beside_a_difference_still_reads(executor: Executor) -> None:
    area = area_of()
    put(area, 0, 100)
    put(area, 50, 150, flavour=b"another server")
    assert read(area, executor, 0, 50) == log_bytes(0, 50)


@pytest.mark.parametrize("large", [False, True])
def test_a_broken_span_is_read_from_another_that_holds_its_positions(large: bool, executor: Executor) -> None:
    area = area_of()
    end = 3 * FRAME_BYTES if large else 300
    broken = put(area, 0, end)
    put(area, 0, end // 2 + 20)
    put(area, end // 2, end)
    sound = bytes(area.store.get(name_of(area, broken)))
    for bit in range(0, 8 * len(sound), 8 * len(sound) // 23):
        replace_object(area.store, name_of(area, broken), flipped(sound, bit))
        assert read(area, executor, 0, end) == log_bytes(0, end)


@pytest.mark.parametrize("large", [False, True])
def test_no_flipped_bit_of_the_only_span_is_read_silently(large: bool, executor: Executor) -> None:
    area = area_of()
    end = 2 * FRAME_BYTES if large else 300
    only = put(area, 0, end)
    sound = bytes(area.store.get(name_of(area, only)))
    for bit in range(0, 8 * len(sound), 8 * len(sound) // 31 | 1):
        replace_object(area.store, name_of(area, only), flipped(sound, bit))
        try:
            assert read(area, executor, 0, end) == log_bytes(0, end)
        except IntegrityBroken:
            continue


def test_a_span_that_bears_the_name_of_another_is_refused(executor: Executor) -> None:
    area = area_of()
    put_generation(area, FIRST, NOW)
    for moved in ({"start": 50, "end": 150}, {"generation": SECOND.id}, {"digest": "00" * 32}):
        span = put(area, 0, 100)
        false = span._replace(**moved)
        area.store.create(name_of(area, false), area.store.get(name_of(area, span)))
        log = StoredLog(area, executor)
        with pytest.raises(IntegrityBroken):
            log.header(next(one for one in log.spans(false.generation) if one.name == false))
        for name in object_names(area.store, names.log(area.keys.area)):
            if not name.endswith("generation"):
                area.store.delete(name)


def test_spans_merged_and_deleted_while_reading_are_found_in_what_took_their_place(executor: Executor) -> None:
    area = area_of()
    small = [put(area, start, start + 100) for start in range(0, 1000, 100)]
    log = StoredLog(area, executor)
    stretch = Stretch(0, 1000)
    merge_run(StoredLog(area, executor), area, MergeRun(FIRST.id, stretch, tuple(log.spans(FIRST.id))))
    for span in small:
        area.store.delete(name_of(area, span))
    assert b"".join(log.read(FIRST.id, stretch)) == log_bytes(0, 1000)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=12), st.integers(0, 60), st.integers(1, 30))
def test_parts_cover_every_position_once_as_far_as_there_is_no_hole(
    spans: list[tuple[int, int]], start: int, size: int
) -> None:
    ordered = sorted(one_listed(begin, begin + length) for begin, length in spans)
    parts, reached = plan_parts(ordered, start, start + size)
    missing = holes((Stretch(span.name.start, span.name.end) for span in ordered), Stretch(start, start + size))
    assert reached == (missing[0].start if missing else start + size)
    edges = [start, *(part.end for part in parts)]
    assert [part.start for part in parts] == edges[:-1]
    for part in parts:
        assert part.span.name.start <= part.start < part.end <= part.span.name.end
        for span in ordered:
            overlaps = span.name.start < part.end and span.name.end > part.start
            assert (span in part.others) == (overlaps and span is not part.span) or span == part.span


def test_parts_are_of_bounded_size() -> None:
    parts, _ = plan_parts([one_listed(0, SPAN_BYTES_MAX)], 5, SPAN_BYTES_MAX)
    assert max(part.end - part.start for part in parts) == PART_BYTES


def test_a_store_that_is_away_is_not_taken_for_a_hole(executor: Executor) -> None:
    inner = memory()
    put(area_of(inner), 0, 100)
    away = FaultyStore(inner, (Fault(FaultKind.ERROR_503, operation="get", name_part="/log/"),))
    with pytest.raises(Unavailable):
        read(area_of(settled(away)), executor, 0, 100)


# Samples


def test_samples_are_told_in_order_and_only_those_of_the_stretch(executor: Executor) -> None:
    area = area_of()
    put(area, 0, 100, samples=[Sample(at(1), 0), Sample(at(2), 100)])
    put(area, 100, 200, samples=[Sample(at(9), 100), Sample(at(10), 200)])
    log = StoredLog(area, executor)
    assert log.samples(FIRST.id, Stretch(0, 200)) == [
        Sample(at(n), p) for n, p in [(1, 0), (2, 100), (9, 100), (10, 200)]
    ]
    assert log.samples(FIRST.id, Stretch(50, 199)) == [Sample(at(2), 100), Sample(at(9), 100)]


def test_a_moment_in_a_long_log_is_found_with_few_reads(executor: Executor) -> None:
    store = FaultyStore(open_store(StoreSettings("memory://")))
    area = area_of(settled(store))
    for number in range(200):
        put(area, number * 10, number * 10 + 10, samples=[Sample(at(number), number * 10 + 10)] if number % 3 else [])
    log = StoredLog(area, executor)
    before = len(store.points)
    assert log.samples_around(FIRST.id, at(100.5)) == (Sample(at(100), 1010), Sample(at(101), 1020))
    assert log.samples_around(FIRST.id, at(-1)) == (None, Sample(at(1), 20))
    assert log.samples_around(FIRST.id, at(500)) == (Sample(at(199), 2000), None)
    assert sum(point.startswith("after get") for point in store.points[before:]) < 100


def test_samples_are_thinned_to_the_first_the_last_and_some_between() -> None:
    many = [Sample(at(number), number) for number in range(1000)]
    kept = thinned(many)
    assert (len(kept), kept[0], kept[-1]) == (SAMPLES_MAX, many[0], many[-1])
    assert list(kept) == sorted(set(kept))
    assert thinned(many[:5]) == tuple(many[:5])


# Where following goes on


def test_following_goes_on_at_the_end_of_the_last_stretch(executor: Executor) -> None:
    area = area_of()
    assert resume_place(StoredLog(area, executor)) is None
    put(area, 100, 200)
    put(area, 200, 250)
    place = resume_place(StoredLog(area, executor))
    assert place is not None
    assert (place.generation, place.position) == (FIRST, 250)


def test_a_hole_that_a_dead_follower_left_is_gone_back_behind(executor: Executor) -> None:
    area = area_of()
    for start, end in [(0, 100), (200, 300), (400, 500)]:
        put(area, start, end)
    place = resume_place(StoredLog(area, executor))
    assert place is not None
    assert place.position == 100


def test_a_gap_that_was_told_is_not_gone_back_behind(executor: Executor) -> None:
    area = area_of()
    put(area, 0, 100)
    put(area, 200, 300, gap="the slot was lost")
    put(area, 400, 500)
    place = resume_place(StoredLog(area, executor))
    assert place is not None
    assert place.position == 300


def test_a_gap_told_by_a_span_that_begins_within_what_a_dead_follower_left_counts(executor: Executor) -> None:
    area = area_of()
    put(area, 0, 100)
    put(area, 200, 300)  # left beyond a hole by one that died
    put(area, 250, 400, gap="the slot was lost")
    place = resume_place(StoredLog(area, executor))
    assert place is not None
    assert place.position == 400


def test_a_generation_without_bytes_is_gone_on_from_its_parent(executor: Executor) -> None:
    area = area_of()
    put(area, 0, 950)
    put_generation(area, SECOND, at(5))
    place = resume_place(StoredLog(area, executor))
    assert place is not None
    assert (place.generation, place.position) == (FIRST, 950)
    put(area, 900, 1100, generation=SECOND)
    place = resume_place(StoredLog(area, executor))
    assert place is not None
    assert (place.generation, place.position) == (SECOND, 1100)


# Merging

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MIB = 1 << 20


def planned(*spans: tuple[int, int, timedelta]) -> list[Stretch]:
    listing = {FIRST.id: tuple(sorted(ListedSpan(*named(start, end, NOW - age)) for start, end, age in spans))}
    return [run.stretch for run in plan_merges(replace(listed(), spans=listing), NOW)]


def test_spans_younger_than_an_hour_are_left_alone() -> None:
    assert planned((0, 10, HOUR / 2), (10, 20, HOUR / 2)) == []
    assert planned((0, 10, HOUR), (10, 20, HOUR), (20, 30, HOUR / 2)) == [Stretch(0, 20)]


def test_only_runs_without_a_hole_are_merged() -> None:
    assert planned((0, 10, HOUR), (10, 20, HOUR), (21, 30, HOUR), (30, 40, HOUR), (50, 60, HOUR)) == [
        Stretch(0, 20),
        Stretch(21, 40),
    ]


def test_what_was_merged_an_hour_ago_is_not_merged_each_hour_again() -> None:
    assert planned((0, 100, 2 * HOUR), (100, 110, HOUR), (110, 120, HOUR)) == [Stretch(100, 120)]
    assert planned((0, 100, DAY), (100, 110, DAY)) == [Stretch(0, 110)]


def test_no_merged_span_is_larger_than_a_span_may_be_and_full_ones_stay() -> None:
    spans = [(number * 10 * MIB, (number + 1) * 10 * MIB, DAY) for number in range(13)]
    assert planned(*spans) == [Stretch(0, 60 * MIB), Stretch(60 * MIB, 120 * MIB)]
    assert planned((0, 40 * MIB, DAY), (40 * MIB, 50 * MIB, DAY), (50 * MIB, 60 * MIB, DAY)) == [
        Stretch(40 * MIB, 60 * MIB)
    ]


def test_what_lies_within_another_span_is_not_merged() -> None:
    assert planned((0, 100, DAY), (0, 50, DAY), (50, 100, DAY)) == []


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 40), st.integers(0, 50)), max_size=25))
def test_a_merge_holds_exactly_the_union_of_spans_without_a_hole(spans: list[tuple[int, int, int]]) -> None:
    rows = {named(start, start + size, NOW - age * HOUR) for start, size, age in spans}
    listing = replace(listed(), spans={FIRST.id: tuple(sorted(ListedSpan(*row) for row in rows))})
    seen: set[str] = set()
    for run in plan_merges(listing, NOW):
        assert len(run.spans) > 1
        stretches = [Stretch(span.name.start, span.name.end) for span in run.spans]
        assert holes(stretches, run.stretch) == []
        assert (min(stretches).start, max(one.end for one in stretches)) == (run.stretch.start, run.stretch.end)
        digests = {span.name.digest for span in run.spans}
        assert not digests & seen
        seen |= digests


def test_a_merged_log_reads_the_same_and_tells_the_same(executor: Executor) -> None:
    area = area_of()
    for number in range(20):
        samples = [Sample(at(number), number * 50), Sample(at(number + 0.5), number * 50 + 60)]
        put(area, number * 50, number * 50 + 60, samples=samples, gap="told" if number == 3 else None)
    before = StoredLog(area, executor)
    told = before.samples(FIRST.id, Stretch(0, 1010))
    (merged,) = merge_log(area, executor, LATER)
    assert (merged.start, merged.end) == (0, 1010)
    after = StoredLog(area, executor)
    assert read(area, executor, 0, 1010) == log_bytes(0, 1010)
    large = next(span for span in after.spans(FIRST.id) if span.name == merged)
    assert (after.header(large).merged, after.header(large).gap) == (20, "told")
    assert list(after.header(large).samples) == told
    assert merge_log(area, executor, LATER) == []


def test_spans_that_differ_are_not_merged(executor: Executor) -> None:
    area = area_of()
    put(area, 0, 100)
    put(area, 50, 150, flavour=b"another server")
    before = object_names(area.store)
    with pytest.raises(IntegrityBroken):
        merge_log(area, executor, LATER)
    assert object_names(area.store) == before


AUTHOR = Author(RUN, "here", NOW)


def merged_area(executor: Executor) -> tuple[Area, SpanName, list[SpanName]]:
    area = area_of()
    small = [put(area, start, start + 100) for start in range(0, 500, 100)]
    (merged,) = merge_log(area, executor, LATER)
    return area, merged, small


def test_what_was_merged_is_let_go_by_an_entry_and_deleted_a_day_later(executor: Executor) -> None:
    area, merged, small = merged_area(executor)
    history = condemn_merged(area, histories.read_history(area, executor, None), AUTHOR)
    history = histories.read_history(area, executor, None)
    entry = history.entries[-1][0]
    assert (entry.kind, entry.spans, entry.log_ends) == (EntryKind.CONDEMN, (merged,), ((FIRST.id, 500),))
    assert delete_condemned(area, history, NOW + DELETE_AFTER - timedelta(seconds=1)) == []
    assert sorted(delete_condemned(area, history, NOW + DELETE_AFTER)) == small
    assert [span.name for span in StoredLog(area, executor).spans(FIRST.id)] == [merged]
    assert read(area, executor, 0, 500) == log_bytes(0, 500)
    assert delete_condemned(area, history, NOW + DELETE_AFTER) == []
    assert condemn_merged(area, history, AUTHOR) is history


def test_nothing_is_deleted_whose_bytes_are_not_in_what_stays(executor: Executor) -> None:
    area, merged, small = merged_area(executor)
    strange = put(area, 100, 200, flavour=b"another server")
    history = condemn_merged(area, histories.read_history(area, executor, None), AUTHOR)
    assert sorted(delete_condemned(area, history, LATER)) == small
    assert {span.name for span in StoredLog(area, executor).spans(FIRST.id)} == {merged, strange}


@pytest.mark.parametrize("how", ["missing", "broken"])
def test_nothing_is_deleted_while_what_should_stay_is_not_sound(how: str, executor: Executor) -> None:
    area, merged, _ = merged_area(executor)
    history = condemn_merged(area, histories.read_history(area, executor, None), AUTHOR)
    sound = bytes(area.store.get(name_of(area, merged)))
    if how == "missing":
        area.store.delete(name_of(area, merged))
    else:
        replace_object(area.store, name_of(area, merged), flipped(sound, 8 * 200))
    assert delete_condemned(area, history, LATER) == []
    assert read(area, executor, 0, 500) == log_bytes(0, 500)


def test_without_an_entry_nothing_is_deleted(executor: Executor) -> None:
    area, _, _ = merged_area(executor)
    assert delete_condemned(area, histories.read_history(area, executor, None), LATER) == []


def test_of_two_merges_of_the_same_positions_exactly_one_stays(executor: Executor) -> None:
    area, merged, _ = merged_area(executor)
    log = StoredLog(area, executor)
    small = tuple(span for span in log.spans(FIRST.id) if span.name != merged)
    again = merge_run(log, area, MergeRun(FIRST.id, Stretch(0, 500), small))
    history = histories.read_history(area, executor, None)
    for kept in (merged, again):
        entry = entry_like(EntryKind.CONDEMN, spans=(kept,), reason="merged")
        history = histories.append(area, history, lambda _, entry=entry: entry)  # type: ignore[misc]
    delete_condemned(area, history, LATER)
    delete_condemned(area, history, LATER)
    assert [span.name for span in StoredLog(area, executor).spans(FIRST.id)] == [min(merged, again)]
    assert read(area, executor, 0, 500) == log_bytes(0, 500)


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 8), st.integers(0, 2)), max_size=14, unique=True),
    st.data(),
)
def test_whatever_is_kept_and_in_whatever_order_it_is_deleted_no_position_is_lost(
    rows: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    spans = [SpanName(FIRST.id, start, start + size, f"{salt:064x}") for start, size, salt in rows]
    kept = [span for span in spans if data.draw(st.booleans())]
    covered = {position for span in spans for position in range(span.start, span.end)}
    there = set(spans)
    pairs = rules.keepers_of(kept, spans)
    for span, keeper in data.draw(st.permutations(pairs)):
        if keeper in there:
            there.discard(span)
    assert {position for span in there for position in range(span.start, span.end)} == covered


def test_a_host_with_a_slot_of_one_source_cannot_let_spans_go(executor: Executor) -> None:
    area, _, _ = merged_area(executor)
    narrow = replace(area, keys=replace(area.keys, roots=None))
    with pytest.raises(KeyInvalid):
        condemn_merged(narrow, histories.read_history(narrow, executor, None), AUTHOR)


def test_given_up_log_is_deleted_up_to_where_it_begins(executor: Executor) -> None:
    area = area_of()
    old, across, new = put(area, 0, 100), put(area, 90, 210), put(area, 210, 300)
    history = histories.read_history(area, executor, None)
    entry = entry_like(EntryKind.CONDEMN, log_starts=((FIRST.id, 200),), reason="expired")
    history = histories.append(area, history, lambda _: entry)
    assert delete_condemned(area, history, LATER) == [old]
    assert [span.name for span in StoredLog(area, executor).spans(FIRST.id)] == [across, new]


# What the history tells of the log


def test_a_backup_entry_tells_where_the_log_ends(executor: Executor) -> None:
    area = area_of()
    area.catalog("postgres", NOW)
    put(area, 0, 100)
    take(area, {"a": b"x"}, executor)
    put(area, 100, 150)
    take(area, {"a": b"y"}, executor)
    entries = [entry for entry, _ in histories.read_history(area, executor, None).entries]
    assert [entry.log_ends for entry in entries] == [((FIRST.id, 100),), ((FIRST.id, 150),)]


def test_a_checkpoint_restates_where_the_log_begins_and_ends(executor: Executor) -> None:
    area = area_of()
    history = histories.read_history(area, executor, None)
    for entry in (
        entry_like(EntryKind.CONDEMN, log_ends=((FIRST.id, 500),), log_starts=((FIRST.id, 100),)),
        entry_like(EntryKind.HOLD, ["aa" * 16], log_ends=((FIRST.id, 400), (SECOND.id, 7))),
        entry_like(EntryKind.PRUNE),
    ):
        history = histories.append(area, history, lambda _, entry=entry: entry)  # type: ignore[misc]
    for number in (1, 2):
        area.store.delete(names.history_entry(area.keys.area, number))
    state = histories.read_history(area, executor, None).state
    assert state.log_ends == ((FIRST.id, 500), (SECOND.id, 7))
    assert state.log_starts == ((FIRST.id, 100),)


def test_only_entries_that_are_signed_say_where_the_log_begins(executor: Executor) -> None:
    area = area_of()
    entry = entry_like(EntryKind.HOLD, ["aa" * 16], log_starts=((FIRST.id, 100),))
    histories.append(area, histories.History(), lambda _: entry)
    assert histories.read_history(area, executor, None).state.log_starts == ()


def test_many_kept_spans_come_back_from_several_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.repository.format.entry.SPANS_PER_FRAME", 3)
    spans = tuple(SpanName(SECOND.id, start, (1 << 64) - 1, f"{start:064x}") for start in range(8))
    ends, starts = ((FIRST.id, (1 << 64) - 1),), ((FIRST.id, 7), (SECOND.id, 0))
    entry = entry_like(EntryKind.CONDEMN, spans=spans, log_ends=ends, log_starts=starts, reason="merged", number=3)
    frames = encode_entry(entry)
    assert [len(frame) for frame in frames[1:]] == [192, 192, 128]
    assert parse_entry("it", 3, 1, [*frames, bytes(64)]) == entry


@pytest.mark.parametrize("position", ["0x00000000000010", "00000000_0000010", "1", "00000000000000AB", 16, None])
def test_a_position_that_is_not_written_as_one_is_broken(position: object) -> None:
    frames = encode_entry(entry_like(EntryKind.HOLD, ["aa" * 16], number=3))
    frames[0] = encode_document({**json.loads(frames[0]), "log_ends": {FIRST.id: position}})  # type: ignore[dict-item]
    with pytest.raises(IntegrityBroken):
        parse_entry("it", 3, 1, frames)


# Check


def subjects(area: Area, executor: Executor, percent: float | None = None) -> dict[str, str]:
    report = check_area(area, executor, None, lambda _: None, percent)
    return {finding.subject: finding.message for finding in report.findings}


def test_a_sound_log_with_gaps_and_overlaps_checks_clean(executor: Executor) -> None:
    area, _, _ = merged_area(executor)
    area.catalog("postgres", NOW)
    put(area, 700, 800, gap="the slot was lost")
    put(area, 750, 900)
    put(area, 900, 1000, generation=SECOND)
    report = check_area(area, executor, None, lambda _: None, 100.0)
    assert report.findings == ()
    assert report.read_bytes == sum(
        info.size_bytes for info in area.store.list(names.log(area.keys.area)) if "-" in info.name
    )


def test_check_names_a_span_whose_structure_is_broken(executor: Executor) -> None:
    area = area_of()
    span = put(area, 0, 100)
    sound = bytes(area.store.get(name_of(area, span)))
    for changed in (sound[:-1], flipped(sound, 8 * (len(sound) - 10)), b"garbage" * 30):
        replace_object(area.store, name_of(area, span), changed)
        assert name_of(area, span) in subjects(area, executor)


def test_check_with_read_data_names_a_span_whose_bytes_are_broken(executor: Executor) -> None:
    area = area_of()
    span = put(area, 0, 3 * FRAME_BYTES)
    sound = bytes(area.store.get(name_of(area, span)))
    replace_object(area.store, name_of(area, span), flipped(sound, 8 * (len(sound) // 2)))
    assert set(subjects(area, executor)) == set()
    assert set(subjects(area, executor, 100.0)) == {name_of(area, span)}


def test_check_with_read_data_names_spans_that_differ(executor: Executor) -> None:
    area = area_of()
    put(area, 0, 100)
    other = put(area, 50, 150, flavour=b"another server")
    assert set(subjects(area, executor)) == set()
    found = subjects(area, executor, 100.0)
    assert set(found) == {name_of(area, other)}
    assert "tell different bytes" in found[name_of(area, other)]


def test_check_tells_a_generation_that_is_missing_or_broken(executor: Executor) -> None:
    area = area_of()
    put(area, 0, 100)
    name = names.log_generation(area.keys.area, FIRST.id)
    sound = bytes(area.store.get(name))
    replace_object(area.store, name, flipped(sound, 8 * 100))
    assert set(subjects(area, executor)) == {name}
    area.store.delete(name)
    assert "the generation itself is missing" in subjects(area, executor)[name]


def test_check_tells_a_tail_that_was_removed(executor: Executor) -> None:
    area = area_of()
    area.catalog("postgres", NOW)
    put(area, 0, 100)
    last = put(area, 100, 200)
    take(area, {"a": b"x"}, executor)
    assert subjects(area, executor) == {}
    area.store.delete(name_of(area, last))
    (message,) = subjects(area, executor).values()
    assert "end before 00000000000000c8" in message


def test_a_log_given_up_is_not_missed(executor: Executor) -> None:
    area = area_of()
    area.catalog("postgres", NOW)
    only = put(area, 0, 100)
    entry = entry_like(EntryKind.CONDEMN, log_starts=((FIRST.id, 100),), log_ends=((FIRST.id, 100),))
    histories.append(area, histories.History(), lambda _: entry)
    area.store.delete(name_of(area, only))
    assert subjects(area, executor) == {}


# One span


def test_a_span_of_nothing_or_of_too_much_is_refused() -> None:
    area = area_of()
    for content in (b"", bytes(SPAN_BYTES_MAX + 1)):
        with pytest.raises(ValueError, match="cannot be stored"):
            seal_span(area, FIRST.id, 0, content, header())


def test_the_same_sealed_span_is_put_again_without_harm(executor: Executor) -> None:
    area, copy = area_of(), area_of()
    sealed = seal_span(area, FIRST.id, 0, log_bytes(0, 100), header())
    for _ in range(2):
        for place in (area, copy):
            put_span(place, sealed)
    assert read(copy, executor, 0, 100) == log_bytes(0, 100)


def test_a_span_of_the_largest_size_fits_into_what_a_reader_takes(executor: Executor) -> None:
    from holdfast.repository.format.container import SIZE_MAX

    area = area_of()
    noise = log_bytes(0, 1 << 20) * 64
    sealed = seal_span(area, FIRST.id, 0, noise, header())
    assert len(noise) < len(sealed.data) < SIZE_MAX[ObjectType.LOG_SPAN]


def test_a_span_gone_before_it_is_looked_into_is_not_found(executor: Executor) -> None:
    area = area_of()
    span = put(area, 0, 100)
    log = StoredLog(area, executor)
    area.store.delete(name_of(area, span))
    with pytest.raises(NotFound):
        log.header(log.spans(FIRST.id)[0])
    with pytest.raises(IntegrityBroken, match="lacks position 0"):
        b"".join(log.read(FIRST.id, Stretch(0, 100)))
