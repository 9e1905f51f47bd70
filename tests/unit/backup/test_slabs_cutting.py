"""Slabs hold whole chunks at aligned places, and where chunks end does not depend on how a source writes."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.repository.repository_examples import slices

from holdfast.backup.slabs import (
    ALIGNMENT,
    CONTENT_MAX_BYTES,
    CONTENT_MIN_BYTES,
    PAGES_CHUNK_BYTES,
    SLAB_BYTES,
    SLABS_MAX,
    Piece,
    Slab,
    SlabFiller,
    SlabPool,
    content_cutter,
)
from holdfast.backup.stages import Run
from holdfast.model.errors import SourceFailed
from holdfast.sources.port import Entry, EntryType, Layout

CUT = content_cutter(0x1234_5678_9ABC)
NOISE = random.Random(5).randbytes(20 << 20)

Chunks = dict[str, list[bytes]]


class Gathered:
    """Takes slabs as the pipeline would, and gives every one back at once."""

    def __init__(self) -> None:
        self.chunks: Chunks = {}
        self.ended: list[str] = []
        self.slabs = 0
        run = Run()
        self.pool = SlabPool(run, self.take)
        self.filler = SlabFiller(run, CUT, self.pool)

    def take(self, slab: Slab) -> None:
        assert slab.number == self.slabs
        self.slabs += 1
        for piece in slab.pieces:
            if isinstance(piece, Entry):
                self.ended.append(piece.path)
                continue
            assert piece.start % ALIGNMENT == 0
            assert piece.start + piece.length <= SLAB_BYTES
            chunks = self.chunks.setdefault(piece.stream.entry.path, [])
            assert piece.offset == sum(map(len, chunks))
            start = piece.start
            for length in piece.lengths:
                chunks.append(bytes(slab.view[start : start + length]))
                start += length
            if piece.last:
                self.ended.append(piece.stream.entry.path)
        self.pool.give_back(slab)

    def write(self, path: str, layout: Layout, content: bytes, sizes: Sequence[int]) -> None:
        stream = self.filler.open(Entry(path, layout=layout), None)
        for part in slices(content, sizes):
            self.filler.write(stream, part)
        self.filler.close(stream)

    def end(self) -> Chunks:
        self.filler.flush()
        return self.chunks


SIZES = st.lists(st.sampled_from([1 << 20, 8192, 131072, 999_983, 65_537, 3 << 20, 24 << 20]), min_size=1, max_size=4)


@given(st.lists(st.tuples(st.sampled_from(list(Layout)), st.integers(0, 9 << 20)), min_size=1, max_size=4), SIZES)
@settings(max_examples=15, deadline=None)
def test_every_way_of_writing_gives_the_same_content_and_the_same_chunks(
    streams: list[tuple[Layout, int]], sizes: list[int]
) -> None:
    gathered, whole = Gathered(), Gathered()
    for number, (layout, size) in enumerate(streams):
        content = NOISE[number * 1000 : number * 1000 + size]
        gathered.write(str(number), layout, content, sizes)
        whole.write(str(number), layout, content, [max(size, 1)])
    chunks = gathered.end()
    assert chunks == whole.end()
    assert gathered.ended == [str(number) for number in range(len(streams))]
    for number, (layout, size) in enumerate(streams):
        assert b"".join(chunks[str(number)]) == NOISE[number * 1000 : number * 1000 + size]
        if layout is Layout.PAGES:
            assert all(len(chunk) == PAGES_CHUNK_BYTES for chunk in chunks[str(number)][:-1])
        assert all(0 < len(chunk) <= CONTENT_MAX_BYTES for chunk in chunks[str(number)])


@pytest.mark.parametrize("layout", list(Layout))
def test_a_stream_is_cut_alike_wherever_in_a_slab_it_begins(layout: Layout) -> None:
    content = NOISE[: 11 << 20]
    alone = Gathered()
    alone.write("it", layout, content, [1 << 20])
    expected = alone.end()["it"]
    for before in (1, 4096, 131073, (7 << 20) + 1, (8 << 20) - 131072, (8 << 20) - 1):
        behind = Gathered()
        behind.write("before", Layout.CONTENT, NOISE[:before], [1 << 20])
        behind.write("it", layout, content, [1 << 20])
        assert behind.end()["it"] == expected


@pytest.mark.parametrize("size", [0, 1, 131071, 131072, 131073, 262144, 8 << 20, (8 << 20) + 1, (16 << 20) - 5])
@pytest.mark.parametrize("layout", list(Layout))
def test_sizes_at_the_edges_come_through_whole(layout: Layout, size: int) -> None:
    gathered = Gathered()
    gathered.write("it", layout, NOISE[:size], [8192 * 13 + 1])
    assert b"".join(gathered.end()["it"]) == NOISE[:size]
    assert gathered.ended == ["it"]


def test_an_insertion_changes_the_chunks_around_it_only() -> None:
    base = NOISE[: 16 << 20]
    changed = base[: 5 << 20] + b"inserted" + base[5 << 20 :]
    before, after = Gathered(), Gathered()
    before.write("it", Layout.CONTENT, base, [1 << 20])
    after.write("it", Layout.CONTENT, changed, [1 << 20])
    old, new = before.end()["it"], after.end()["it"]
    assert len(old) > 8
    assert len(set(new) - set(old)) <= 2
    assert all(CONTENT_MIN_BYTES <= len(chunk) <= CONTENT_MAX_BYTES for chunk in old[:-1])


def test_another_seed_cuts_elsewhere() -> None:
    other = content_cutter(0x7777)
    view = memoryview(NOISE)
    assert CUT(view) != other(view)
    assert sum(CUT(view)) == len(NOISE)


def test_entries_without_content_keep_their_place_among_the_others() -> None:
    gathered = Gathered()
    gathered.filler.add(Entry("a", EntryType.FOLDER))
    gathered.write("b", Layout.PAGES, NOISE[: 9 << 20], [1 << 20])
    gathered.filler.add(Entry("c", EntryType.LINK, link_target="x"))
    gathered.write("d", Layout.CONTENT, b"", [1])
    gathered.filler.add(Entry("e", EntryType.FOLDER))
    gathered.end()
    assert gathered.ended == ["a", "b", "c", "d", "e"]


def test_small_files_share_a_slab() -> None:
    gathered = Gathered()
    for number in range(100):
        gathered.write(str(number), Layout.CONTENT, bytes([number]), [1])
    gathered.end()
    assert gathered.slabs == 1


def test_no_more_slabs_are_made_than_the_bound_says() -> None:
    kept: list[Slab] = []
    run = Run()
    filler = SlabFiller(run, CUT, SlabPool(run, kept.append))
    stream = filler.open(Entry("it", layout=Layout.PAGES), None)
    for _ in range(SLABS_MAX - 1):
        filler.write(stream, bytes(SLAB_BYTES))
    filler.write(stream, bytes(SLAB_BYTES))
    assert len(kept) == SLABS_MAX - 1
    # Another write needs a slab that nobody has given back: only an error of another stage ends that wait.
    run.fail(SourceFailed("elsewhere"))
    with pytest.raises(SourceFailed, match="elsewhere"):
        filler.write(stream, b"x")
    assert len({id(slab.view.obj) for slab in kept}) == SLABS_MAX - 1


def test_a_source_that_mixes_up_its_streams_is_told() -> None:
    gathered = Gathered()
    filler = gathered.filler
    first = filler.open(Entry("a"), None)
    for wrong in (
        lambda: filler.open(Entry("b"), None),
        lambda: filler.add(Entry("b", EntryType.FOLDER)),
        filler.flush,
    ):
        with pytest.raises(SourceFailed, match="a was not ended"):
            wrong()
    filler.close(first)
    with pytest.raises(SourceFailed, match="after its end"):
        filler.write(first, b"x")
    with pytest.raises(SourceFailed, match="ended twice"):
        filler.close(first)


def test_any_buffer_may_be_written() -> None:
    import array

    gathered = Gathered()
    stream = gathered.filler.open(Entry("it"), None)
    for data in (b"ab", bytearray(b"cd"), memoryview(b"_ef_")[1:3], memoryview(array.array("H", [1, 2])), b""):
        gathered.filler.write(stream, data)
    gathered.filler.close(stream)
    assert b"".join(gathered.end()["it"]) == b"abcdef" + array.array("H", [1, 2]).tobytes()


def test_a_piece_tells_its_length() -> None:
    gathered = Gathered()
    stream = gathered.filler.open(Entry("it"), None)
    assert Piece(stream, 0, 0, [3, 4], last=True).length == 7
