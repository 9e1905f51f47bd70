"""The index of an area tells what the packs tell, whatever became of its cached segments."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.repository.repository_examples import area_of, flipped, in_folder, memory, object_names

from holdfast.model.errors import IntegrityBroken, KeyInvalid
from holdfast.repository.area import Area
from holdfast.repository.format import names
from holdfast.repository.format.container import ContainerBuilder, Frame, ObjectType
from holdfast.repository.format.names import ChunkId, PackName
from holdfast.repository.index import lookup
from holdfast.repository.index.lookup import ChunkIndex, open_index, save_index, segment_of
from holdfast.repository.index.rows import Location, PackFacts, ids_array, locations_of, rows_of_pack
from holdfast.repository.index.segment import IDS_PER_FRAME, ROWS_PER_FRAME, Segment
from holdfast.repository.index.writing import merge_segments

Packs = dict[PackName, tuple[PackFacts, dict[ChunkId, Frame]]]
Spec = list[list[tuple[int, int, int]]]
"""Packs as lists of chunks, each as (first 8 bytes, next 4, rest): few values, so that many share a beginning."""

CHUNKS = st.tuples(st.sampled_from([0, 1, 2**63, 2**64 - 1]), st.sampled_from([0, 1, 2**32 - 1]), st.integers(0, 3))
SPECS = st.lists(st.lists(CHUNKS, min_size=1, max_size=12), min_size=1, max_size=6)


def chunk_of(parts: tuple[int, int, int]) -> ChunkId:
    high, low, rest = parts
    return ChunkId(high.to_bytes(8, "big") + low.to_bytes(4, "big") + rest.to_bytes(20, "big"))


def packs_of(spec: Spec) -> Packs:
    packs: Packs = {}
    for number, chunks in enumerate(spec):
        name = PackName(bytes([number + 1] * 32))
        frames: dict[ChunkId, Frame] = {}
        offset = 64
        for counter, parts in enumerate(chunks):
            stored = 17 + (number * 7 + counter) % 90
            frames[chunk_of(parts)] = Frame(counter, counter % 2, offset, stored, 1 + stored * 3)
            offset += stored
        packs[name] = (PackFacts(name, 10_000 + number, number % 2 == 1), frames)
    return packs


def segment_for(packs: Packs) -> Segment:
    columns = [(facts, *rows_of_pack(list(frames.values()), b"".join(frames), 0)) for facts, frames in packs.values()]
    return segment_of(columns)


def every_chunk() -> list[ChunkId]:
    return [
        chunk_of((high, low, rest))
        for high in (0, 1, 2, 2**63, 2**64 - 1)
        for low in (0, 1, 5, 2**32 - 1)
        for rest in range(5)
    ]


def agrees(found: dict[ChunkId, Location | None], packs: Packs, usable: set[PackName]) -> bool:
    """Whether each chunk was found just where it lies in some usable pack, and not where it lies in none."""
    for chunk, at in found.items():
        places = [
            (facts, frames[chunk]) for name, (facts, frames) in packs.items() if name in usable and chunk in frames
        ]
        if (at is None) != (not places):
            return False
        if at is not None and (at.pack, at.frame) not in places:
            return False
    return True


def found_in(segment: Segment, chunks: list[ChunkId]) -> dict[ChunkId, Location | None]:
    found: dict[ChunkId, Location | None] = dict.fromkeys(chunks)
    places, rows = segment.find(ids_array(chunks))
    for place, location in zip(places.tolist(), locations_of(segment.packs, rows), strict=True):
        found[chunks[place]] = location
    return found


@contextmanager
def written(area: Area, folder: Path, segments: list[Segment], resident_rows_max: int) -> Iterator[Segment]:
    path = folder / "segment"
    path.unlink(missing_ok=True)
    claim = area.claim(ObjectType.INDEX)
    merge_segments(path, claim, area.sealing_key, segments)
    with Segment.open(path, claim, area.keys.of_epoch, resident_rows_max) as segment:
        yield segment


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("segments")


@given(SPECS, st.sets(st.integers(0, 5)))
@settings(max_examples=60, deadline=None)
def test_segments_tell_what_a_dictionary_of_the_packs_tells(folder: Path, spec: Spec, masked: set[int]) -> None:
    area, packs = area_of(), packs_of(spec)
    usable = {name for number, name in enumerate(packs) if number not in masked}
    sizes = {name: packs[name][0].size for name in usable}
    each = [segment_for({name: packs[name]}) for name in packs]
    for resident in (1_000_000, 0):
        with written(area, folder, each, resident) as segment:
            assert len(segment) == sum(len(frames) for _, frames in packs.values())
            assert segment.packs == [facts for facts, _ in packs.values()]
            segment.mask(sizes, frozenset(), writing=True)
            assert agrees(found_in(segment, every_chunk()), packs, usable)
            segment.mask(
                {name: facts.size for name, (facts, _) in packs.items()}, frozenset(packs) - usable, writing=True
            )
            assert agrees(found_in(segment, every_chunk()), packs, usable)
            segment.mask(
                {name: facts.size + (name not in usable) for name, (facts, _) in packs.items()},
                frozenset(),
                writing=True,
            )
            assert agrees(found_in(segment, every_chunk()), packs, usable)


@given(SPECS)
@settings(max_examples=30, deadline=None)
def test_a_chunk_that_is_spoiled_in_one_pack_is_found_in_another(folder: Path, spec: Spec) -> None:
    area, packs = area_of(), packs_of(spec)
    with written(area, folder, [segment_for(packs)], 0) as segment:
        spoiled = next(iter(packs))
        segment.spoil(spoiled, list(packs[spoiled][1]))
        assert agrees(found_in(segment, every_chunk()), packs, set(packs) - {spoiled})


def test_a_segment_of_many_frames_is_found_in_whole(tmp_path: Path) -> None:
    """More rows than one frame of each column holds."""
    area = area_of()
    total = IDS_PER_FRAME + ROWS_PER_FRAME + 1
    frames = [Frame(number & 0xFFFF, 1, 64 + number, 20, 5) for number in range(total)]
    chunks = [area.keys.chunk_id(number.to_bytes(4, "big"), data=True) for number in range(total)]
    facts = PackFacts(PackName(bytes(32)), 1, False)
    whole = segment_of([(facts, *rows_of_pack(frames, b"".join(chunks), 0))])
    with written(area, tmp_path, [whole], 0) as segment:
        assert segment.resident_rows == 0
        wanted = chunks[:: total // 500]
        found = found_in(segment, wanted)
        assert [at.frame if at else None for at in found.values()] == frames[:: total // 500]
        assert found_in(segment, [ChunkId(bytes(32))]) == {ChunkId(bytes(32)): None}


def fill(index: ChunkIndex, packs: Packs) -> None:
    for facts, frames in packs.values():
        index.add_pack(facts, list(frames.values()), b"".join(frames))


@pytest.mark.parametrize(("fresh", "unsaved"), [(200_000, 1_000_000), (3, 1_000_000), (3, 5), (0, 0)])
@given(SPECS)
@settings(max_examples=20, deadline=None)
def test_what_a_run_adds_is_found_from_memory_and_from_files(fresh: int, unsaved: int, spec: Spec) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookup, "FRESH_ROWS_MAX", fresh)
        patch.setattr(lookup, "UNSAVED_ROWS_MAX", unsaved)
        packs = packs_of(spec)
        index = ChunkIndex(area_of(), {}, frozenset())
        try:
            fill(index, packs)
            chunks = every_chunk()
            assert agrees(dict(zip(chunks, index.find(chunks), strict=True)), packs, set(packs))
            gone = next(iter(packs))
            index.forget(gone)
            assert agrees(dict(zip(chunks, index.find(chunks), strict=True)), packs, set(packs) - {gone})
            index.settle()
            assert agrees(dict(zip(chunks, index.find(chunks), strict=True)), packs, set(packs) - {gone})
        finally:
            index.close()


def test_a_pack_that_was_forgotten_stays_so_when_memory_moves_to_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "UNSAVED_ROWS_MAX", 3)
    packs = packs_of([[(1, 0, 0), (1, 0, 1)], [(1, 1, 0)], [(2, 0, 0), (2, 0, 1)]])
    first, second, third = packs
    index = ChunkIndex(area_of(), {}, frozenset())
    try:
        fill(index, {first: packs[first]})
        index.forget(first)
        fill(index, {second: packs[second]})
        index.forget_chunks(second, [chunk_of((1, 1, 0))])
        fill(index, {third: packs[third]})
        index.settle()
        assert [segment.resident_rows for _, segment in index.segments] == [0]
        chunks = every_chunk()
        assert agrees(dict(zip(chunks, index.find(chunks), strict=True)), packs, {third})
    finally:
        index.close()


def put_pack(area: Area, plains: list[bytes], *, is_list: bool = False) -> PackName:
    builder = area.builder(area.pack_claim(is_list=is_list))
    for plain in plains:
        builder.add_plain(plain)
    ids = b"".join(area.keys.chunk_id(plain, data=not is_list) for plain in plains)
    data, digest = builder.finish(ids)
    area.store.create(names.pack(area.keys.area, PackName(digest)), bytes(data))
    return PackName(digest)


def chunk_ids(area: Area, plains: list[bytes]) -> list[ChunkId]:
    return [area.keys.chunk_id(plain, data=True) for plain in plains]


def where(area: Area, chunks: list[ChunkId], executor: Executor, *, cached: bool = True) -> list[Location | None]:
    index = open_index(area, frozenset(), executor, cached=cached)
    try:
        return index.find(chunks)
    finally:
        index.close()


def saved(area: Area, executor: Executor) -> str | None:
    index = open_index(area, frozenset(), executor)
    try:
        return save_index(index)
    finally:
        index.close()


@pytest.fixture(params=["memory", "folder"])
def area(request: pytest.FixtureRequest, tmp_path: Path) -> Area:
    return area_of(memory() if request.param == "memory" else in_folder(tmp_path / "repository"))


def test_packs_without_a_segment_are_read_themselves(area: Area, executor: Executor) -> None:
    plains = [bytes([number]) * 9 for number in range(30)]
    pack = put_pack(area, plains)
    found = where(area, chunk_ids(area, plains), executor)
    assert {at.pack.name for at in found if at} == {pack}
    assert object_names(area.store, "volatile/") == []
    assert saved(area, executor) is not None
    assert saved(area, executor) is None
    assert where(area, chunk_ids(area, plains), executor) == found
    assert where(area, chunk_ids(area, plains), executor, cached=False) == found


def test_a_table_of_contents_longer_than_the_tail_that_is_read_first(area: Area, executor: Executor) -> None:
    plains = [number.to_bytes(4, "big") for number in range(3000)]
    put_pack(area, plains)
    assert all(where(area, chunk_ids(area, plains), executor))


def test_a_pack_that_is_gone_or_of_another_size_or_condemned_does_not_count(area: Area, executor: Executor) -> None:
    plains = [bytes([number]) * 9 for number in range(3)]
    gone, changed, condemned = (put_pack(area, [plain]) for plain in plains)
    saved(area, executor)
    area.store.delete(names.pack(area.keys.area, gone))
    name = names.pack(area.keys.area, changed)
    data = bytes(area.store.get(name))
    area.store.delete(name)
    area.store.create(name, data + b"\0")
    index = open_index(area, frozenset({condemned}), executor)
    try:
        assert index.find(chunk_ids(area, plains)) == [None, None, None]
    finally:
        index.close()
    found = where(area, chunk_ids(area, plains), executor)
    assert [at is not None for at in found] == [False, False, True]


@pytest.mark.parametrize("damage", ["flipped", "cut off", "empty", "garbage", "other area's"])
def test_a_damaged_segment_is_left_out_and_the_packs_tell_the_same(area: Area, damage: str, executor: Executor) -> None:
    plains = [bytes([number]) * 9 for number in range(5)]
    put_pack(area, plains)
    found = where(area, chunk_ids(area, plains), executor)
    name = saved(area, executor)
    assert name is not None
    data = bytes(area.store.get(name))
    other = area_of(memory(), "shop", "customers")
    put_pack(other, plains)
    foreign = saved(other, executor)
    assert foreign is not None
    changed = {
        "flipped": flipped(data, 8 * (len(data) // 2)),
        "cut off": data[: len(data) // 2],
        "empty": b"",
        "garbage": bytes(5000),
        "other area's": bytes(other.store.get(foreign)),
    }[damage]
    area.store.put(name, changed)
    index = open_index(area, frozenset(), executor)
    try:
        assert [trouble.name for trouble in index.trouble] == [name]
        assert index.find(chunk_ids(area, plains)) == found
    finally:
        index.close()


def test_no_flipped_bit_of_a_segment_makes_a_chunk_be_found_elsewhere(executor: Executor, tmp_path: Path) -> None:
    area = area_of(in_folder(tmp_path / "repository"))
    plains = [bytes([number]) * 9 for number in range(2)]
    put_pack(area, plains)
    found = where(area, chunk_ids(area, plains), executor)
    name = saved(area, executor)
    assert name is not None
    data = bytes(area.store.get(name))
    path = tmp_path / "flipped"
    claim = area.claim(ObjectType.INDEX)
    for bit in range(0, 8 * (len(data) - 32), 5):  # every fifth: all of a byte's bits, and a fifth of the files
        path.write_bytes(flipped(data, bit))
        with pytest.raises((IntegrityBroken, KeyInvalid)), Segment.open(path, claim, area.keys.of_epoch) as segment:
            segment.find(ids_array(chunk_ids(area, plains)))
    path.write_bytes(data)
    with Segment.open(path, claim, area.keys.of_epoch) as segment:
        assert list(found_in(segment, chunk_ids(area, plains)).values()) == found


def test_a_row_that_is_damaged_on_disk_costs_a_look_and_not_the_run(
    executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of a large segment are read only when they are wanted."""
    area = area_of(in_folder(tmp_path / "repository"))
    plains = [bytes([number]) * 9 for number in range(5)]
    put_pack(area, plains)
    found = where(area, chunk_ids(area, plains), executor)
    name = saved(area, executor)
    assert name is not None
    opened = Segment.open

    def sparing(path: Path, claim: object, keys: object, resident_rows_max: int = 0) -> Segment:
        return opened(path, claim, keys, 0)  # type: ignore[arg-type]

    monkeypatch.setattr(Segment, "open", sparing)
    path = area.store.local_path(name)
    assert path is not None
    data = path.read_bytes()
    toc = struct.unpack("<Q", data[-64:-56])[0]
    index = open_index(area, frozenset(), executor)
    try:
        path.write_bytes(flipped(data, 8 * (toc - 30)))
        assert index.find(chunk_ids(area, plains)) == found
    finally:
        index.close()


def false_segment(area: Area, head: dict[str, int], *frames: bytes) -> None:
    """Put a segment that a host with the area's key made up."""
    builder = ContainerBuilder(area.claim(ObjectType.INDEX), area.keys.of_epoch(1), 1)
    for frame in (json.dumps(head).encode(), *frames):
        builder.add(0, frame, len(frame))
    data, digest = builder.finish()
    area.store.put(names.index_segment(area.keys.area, digest), bytes(data))


@pytest.mark.parametrize(
    ("head", "frames"),
    [
        ({}, []),
        ({"rows": 1 << 40, "packs": 0, "pack_frames": 0, "id_frames": 0, "row_frames": 0}, []),
        ({"rows": -1, "packs": 0, "pack_frames": 0, "id_frames": 0, "row_frames": 0}, []),
        (
            {"rows": 1, "packs": 1, "pack_frames": 1, "id_frames": 1, "row_frames": 1},
            [bytes(47), bytes(8), bytes(4), bytes(40)],
        ),
        (
            {"rows": 1, "packs": 1, "pack_frames": 1, "id_frames": 1, "row_frames": 1},
            [bytes(48), bytes(16), bytes(4), bytes(40)],
        ),
        (
            {"rows": 2, "packs": 1, "pack_frames": 1, "id_frames": 1, "row_frames": 1},
            [bytes(48), bytes(16), bytes(4), bytes(80)],
        ),
        (
            {"rows": 1, "packs": 1, "pack_frames": 1, "id_frames": 1, "row_frames": 1},
            [bytes(48), bytes(8), bytes(4), bytes(39)],
        ),
        (
            {"rows": 1, "packs": 1, "pack_frames": 1, "id_frames": 1, "row_frames": 1},
            [bytes(48), bytes(8), bytes(4), bytes(20) + b"\xff" * 20],
        ),
    ],
    ids=["empty", "huge", "negative", "packs", "ids", "short ids", "rows", "no such pack"],
)
def test_a_false_segment_is_left_out(area: Area, head: dict[str, int], frames: list[bytes], executor: Executor) -> None:
    plains = [bytes([number]) * 9 for number in range(5)]
    put_pack(area, plains)
    chunks = [*chunk_ids(area, plains), ChunkId(bytes(32))]
    found = where(area, chunks, executor)
    false_segment(area, head, *frames)
    assert where(area, chunks, executor) == found


def test_many_segments_are_merged_and_tell_the_same(area: Area, executor: Executor) -> None:
    plains: list[bytes] = []
    for number in range(lookup.SEGMENTS_MAX + 6):
        # Each larger than all before together: otherwise they would be merged sooner.
        more = [struct.pack("<II", number, place) for place in range(2**number)] if number < 11 else [bytes([number])]
        put_pack(area, more)
        plains += more
        saved(area, executor)
        assert len(object_names(area.store, "volatile/")) <= lookup.SEGMENTS_MAX
    chunks = chunk_ids(area, plains)
    found = where(area, chunks, executor)
    assert all(found)
    assert found == where(area, chunks, executor, cached=False)
    for name in object_names(area.store, "volatile/"):
        area.store.delete(name)
    assert where(area, chunks, executor) == found


def test_a_pack_with_a_broken_table_is_told_and_the_others_are_found(area: Area, executor: Executor) -> None:
    sound, broken = put_pack(area, [b"sound"]), put_pack(area, [b"broken"])
    name = names.pack(area.keys.area, broken)
    data = bytes(area.store.get(name))
    area.store.delete(name)
    area.store.create(name, flipped(data, 8 * (len(data) - 70)))
    index = open_index(area, frozenset(), executor)
    try:
        (first, second) = index.find(chunk_ids(area, [b"sound", b"broken"]))
        assert first is not None
        assert first.pack.name == sound
        assert second is None
        assert [trouble.name for trouble in index.trouble] == [name]
    finally:
        index.close()
