"""The stage that keeps order: fills packs, closes streams into lists, and writes the tree as it goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from holdfast.backup.slabs import Cut, StreamState
from holdfast.repository.area import Area
from holdfast.repository.format.container import ContainerBuilder, Data, Frame, compress
from holdfast.repository.format.lists import (
    LEAF_ROWS_MAX,
    ChunkRef,
    ContentRef,
    encode_leaf,
    encode_root,
)
from holdfast.repository.format.names import ChunkId, PackName
from holdfast.repository.format.tree import TreeEntry, encode_line
from holdfast.repository.index.rows import PackFacts
from holdfast.sources.port import Entry

PACK_BYTES = 32 << 20
PACK_SLACK_BYTES = 1 << 20
TREE_BUFFER_BYTES = 8 << 20


@dataclass(slots=True)
class FullPack:
    """A finished pack on its way to the store."""

    facts: PackFacts
    data: memoryview
    frames: list[Frame]
    ids: bytes


@dataclass(frozen=True, slots=True)
class PackedChunk:
    """A chunk as it leaves a worker: its id and length, and its compressed bytes where this run must store it."""

    id: ChunkId
    length: int
    algorithm: int = 0
    payload: Data | None = None


Ship = Callable[[FullPack], None]


class PackFiller:
    """Fills packs of one class. Belongs to the packer's thread."""

    def __init__(self, area: Area, *, is_list: bool, ship: Ship) -> None:
        self._area = area
        self._is_list = is_list
        self._ship = ship
        self._builder: ContainerBuilder | None = None
        self._frames: list[Frame] = []
        self._ids = bytearray()
        self.stored_bytes = 0

    def add(self, chunk: ChunkId, algorithm: int, payload: Data, plain_length: int) -> None:
        if self._builder is not None and self._builder.size + len(payload) > PACK_BYTES:
            self.finish()
        if self._builder is None:
            claim = self._area.pack_claim(is_list=self._is_list)
            # List packs are mostly small: theirs grow as needed.
            capacity = 0 if self._is_list else PACK_BYTES + PACK_SLACK_BYTES
            self._builder = self._area.builder(claim, capacity)
        self._frames.append(self._builder.add(algorithm, payload, plain_length))
        self._ids += chunk

    def finish(self) -> None:
        """Ship what there is."""
        if self._builder is None:
            return
        ids = bytes(self._ids)
        data, digest = self._builder.finish(ids)
        self.stored_bytes += len(data)
        facts = PackFacts(PackName(digest), len(data), self._is_list)
        self._ship(FullPack(facts, data, self._frames, ids))
        self._builder, self._frames, self._ids = None, [], bytearray()


@dataclass(slots=True)
class ListBuilder:
    """Turns the chunks of one stream into a reference, a leaf at a time."""

    rows: list[ChunkRef] = field(default_factory=list)
    leaves: list[tuple[ChunkId, int]] = field(default_factory=list)
    size: int = 0

    def add(self, ref: ChunkRef, store: Callable[[bytes], ChunkId]) -> None:
        if len(self.rows) == LEAF_ROWS_MAX:
            self._close_leaf(store)
        self.rows.append(ref)
        self.size += ref.length

    def _close_leaf(self, store: Callable[[bytes], ChunkId]) -> None:
        leaf = store(encode_leaf(self.rows))
        self.leaves.append((leaf, sum(row.length for row in self.rows)))
        self.rows = []

    def finish(self, store: Callable[[bytes], ChunkId]) -> ContentRef:
        if not self.size:
            return ContentRef(0)
        if not self.leaves and len(self.rows) == 1:
            return ContentRef(self.size, 0, self.rows[0].id)
        self._close_leaf(store)
        if len(self.leaves) == 1:
            return ContentRef(self.size, 1, self.leaves[0][0])
        return ContentRef(self.size, 2, store(encode_root(self.leaves)))


class Packer:
    """Takes chunks and entries in the order of the source. ``claim`` tells whether a list chunk must be stored."""

    def __init__(self, area: Area, level: int, cut: Cut, claim: Callable[[ChunkId], bool], ship: Ship) -> None:
        self._area = area
        self._level = level
        self._cut = cut
        self._claim = claim
        self._data = PackFiller(area, is_list=False, ship=ship)
        self._lists = PackFiller(area, is_list=True, ship=ship)
        self._open: dict[int, ListBuilder] = {}
        self._lines = bytearray()
        self._tree = ListBuilder()
        self.entries = 0
        self.size_bytes = 0

    def store_list(self, plain: bytes) -> ChunkId:
        """Keep one list-class chunk unless it is known."""
        chunk = self._area.keys.chunk_id(plain, data=False)
        if self._claim(chunk):
            algorithm, payload = compress(plain, self._level)
            self._lists.add(chunk, algorithm, payload, len(plain))
        return chunk

    def take_entry(self, entry: Entry) -> None:
        """Note a folder or link."""
        self._line(_tree_entry(entry, None))

    def take_chunks(self, stream: StreamState, chunks: list[PackedChunk], *, last: bool) -> None:
        """Take the next chunks of a stream; ``last`` closes it into the tree."""
        builder = self._open.setdefault(id(stream), ListBuilder())
        for chunk in chunks:
            if chunk.payload is not None:
                self._data.add(chunk.id, chunk.algorithm, chunk.payload, chunk.length)
            builder.add(ChunkRef(chunk.id, chunk.length), self.store_list)
        if last:
            del self._open[id(stream)]
            self.size_bytes += builder.size
            self._line(_tree_entry(stream.entry, builder.finish(self.store_list)))

    def _line(self, entry: TreeEntry) -> None:
        self.entries += 1
        self._lines += encode_line(entry)
        if len(self._lines) >= TREE_BUFFER_BYTES:
            self._cut_tree(final=False)

    def _cut_tree(self, *, final: bool) -> None:
        plain = bytes(self._lines)
        lengths = self._cut(memoryview(plain)) if plain else []
        start = 0
        for length in lengths if final else lengths[:-1]:
            chunk = self.store_list(plain[start : start + length])
            self._tree.add(ChunkRef(chunk, length), self.store_list)
            start += length
        del self._lines[:start]

    def finish(self) -> ContentRef:
        """Ship everything and return the tree's reference. Every stream was closed."""
        self._cut_tree(final=True)
        tree = self._tree.finish(self.store_list)
        self._data.finish()
        self._lists.finish()
        return tree

    @property
    def stored_bytes(self) -> int:
        return self._data.stored_bytes + self._lists.stored_bytes


def _tree_entry(entry: Entry, ref: ContentRef | None) -> TreeEntry:
    modified_at = int(entry.modified_at.timestamp()) if entry.modified_at is not None else None
    return TreeEntry(entry.path, entry.type, entry.mode, modified_at, entry.link_target, entry.layout, ref)
