"""Reading chunks back: looked up, grouped by pack, joined into long ranges, opened and verified."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from holdfast.model.errors import IntegrityBroken, NotFound
from holdfast.repository.area import Area
from holdfast.repository.format import names
from holdfast.repository.format.container import HEADER, Frame, broken, open_frame
from holdfast.repository.format.lists import ChunkRef, ContentRef, parse_leaf, parse_root
from holdfast.repository.format.names import ChunkId, PackName
from holdfast.repository.format.record import BackupRecord
from holdfast.repository.format.tree import LINE_BYTES_MAX, TreeEntry, parse_line
from holdfast.repository.index.lookup import ChunkIndex
from holdfast.repository.index.rows import Location, PackFacts

GAP_BYTES_MAX = 1 << 20
RANGE_BYTES_MAX = 8 << 20
LISTS_PER_BATCH = 512
CIPHERS_MAX = 4096


@dataclass(frozen=True, slots=True)
class Wanted:
    """A chunk of a known class and length that somebody needs, with its place in the asker's own order."""

    ref: ChunkRef
    place: int


@dataclass(frozen=True, slots=True)
class PackRange:
    """One read: neighbouring frames of one pack, with what each of them is wanted for."""

    pack: PackFacts
    start: int
    end: int
    frames: tuple[tuple[Frame, Wanted], ...]


def plan_ranges(located: Iterable[tuple[Wanted, Location]]) -> list[PackRange]:
    """Join frames of a pack that lie close together into long reads; pure."""
    ordered = sorted(located, key=lambda item: (item[1].pack.name, item[1].frame.offset))
    ranges: list[PackRange] = []
    for _, group in itertools.groupby(ordered, key=lambda item: item[1].pack.name):
        together: list[tuple[Wanted, Location]] = []
        for wanted, at in group:
            if together and _is_far(together[0][1].frame, together[-1][1].frame, at.frame):
                ranges.append(_joined(together))
                together = []
            together.append((wanted, at))
        ranges.append(_joined(together))
    return ranges


def _is_far(first: Frame, last: Frame, frame: Frame) -> bool:
    gap = frame.offset - (last.offset + last.stored)
    return gap > GAP_BYTES_MAX or frame.offset + frame.stored - first.offset > RANGE_BYTES_MAX


def _joined(together: Sequence[tuple[Wanted, Location]]) -> PackRange:
    first, last = together[0][1], together[-1][1].frame
    frames = tuple((at.frame, wanted) for wanted, at in together)
    return PackRange(first.pack, first.frame.offset, last.offset + last.stored, frames)


class ChunkReader:
    """Opens chunks of one area. Thread-safe.

    Where a pack misses or is broken, the chunk is looked for in another pack before anything is raised.
    """

    def __init__(self, area: Area, index: ChunkIndex) -> None:
        self._area = area
        self._index = index
        self._lock = threading.Lock()
        self._ciphers: OrderedDict[PackName, AESGCM] = OrderedDict()

    def locate(self, wanted: Sequence[Wanted]) -> list[tuple[Wanted, Location]]:
        """Find every chunk; raises ``IntegrityBroken`` where one is nowhere."""
        found = self._index.find([item.ref.id for item in wanted])
        located = []
        for item, at in zip(wanted, found, strict=True):
            if at is None:
                raise broken(
                    f"the repository of {self._area.title}", f"chunk {item.ref.id.hex()[:12]} is nowhere in it"
                )
            if at.frame.plain != item.ref.length:
                raise broken(f"chunk {item.ref.id.hex()[:12]}", "a list and a pack tell different lengths")
            located.append((item, at))
        return located

    def read_range(self, part: PackRange) -> Iterator[tuple[Wanted, bytes]]:
        """Yield the plain bytes of every chunk of a range, each verified by its id."""
        what = f"pack {part.pack.name.hex()[:12]}"
        path = names.pack(self._area.keys.area, part.pack.name)
        try:
            cipher = self._cipher(what, path, part.pack)
            data = memoryview(self._area.store.get(path, part.start, part.end))
            if len(data) != part.end - part.start:
                raise broken(what, "it is shorter than the index says")
        except (NotFound, IntegrityBroken) as error:
            yield from self._elsewhere(part, error)
            return
        before: tuple[Frame, ChunkId, bytes] | None = None
        for frame, wanted in part.frames:
            if before is not None and before[0] == frame and before[1] == wanted.ref.id:
                yield wanted, before[2]  # the same chunk in another place: pages of zeros come in thousands
                continue
            sealed = data[frame.offset - part.start : frame.offset - part.start + frame.stored]
            try:
                plain = self._verified(what, open_frame(what, cipher, frame, sealed), wanted, part.pack.is_list)
            except IntegrityBroken as error:
                one = PackRange(part.pack, frame.offset, frame.offset + frame.stored, ((frame, wanted),))
                yield from self._elsewhere(one, error)
                continue
            before = (frame, wanted.ref.id, plain)
            yield wanted, plain

    def _verified(self, what: str, plain: bytes, wanted: Wanted, is_list: bool) -> bytes:
        if self._area.keys.chunk_id(plain, data=not is_list) != wanted.ref.id:
            raise broken(what, f"it holds something else in the place of chunk {wanted.ref.id.hex()[:12]}")
        return plain

    def _cipher(self, what: str, path: str, pack: PackFacts) -> AESGCM:
        with self._lock:
            known = self._ciphers.get(pack.name)
        if known is None:
            head = self._area.store.get(path, 0, HEADER.size)
            known = self._area.pack_cipher(what, head, is_list=pack.is_list)
            with self._lock:
                self._ciphers[pack.name] = known
                if len(self._ciphers) > CIPHERS_MAX:
                    self._ciphers.popitem(last=False)
        return known

    def _elsewhere(self, part: PackRange, reason: IntegrityBroken | NotFound) -> Iterator[tuple[Wanted, bytes]]:
        """Read the chunks of a range that failed from other packs that hold them."""
        self._index.forget_chunks(part.pack.name, [wanted.ref.id for _, wanted in part.frames])
        found = self._index.find([wanted.ref.id for _, wanted in part.frames])
        if any(at is None for at in found):
            if isinstance(reason, NotFound):
                raise broken(f"pack {part.pack.name.hex()[:12]}", "it is missing from the store") from reason
            raise reason
        located = [(wanted, at) for (_, wanted), at in zip(part.frames, found, strict=True) if at is not None]
        for other in plan_ranges(located):
            yield from self.read_range(other)

    def read_many(self, refs: Sequence[ChunkRef], executor: Executor) -> list[bytes]:
        """Return the chunks asked for, in order, all in memory: for lists and small contents."""
        wanted = [Wanted(ref, place) for place, ref in enumerate(refs)]
        plain: list[bytes] = [b""] * len(refs)
        for part in executor.map(lambda each: list(self.read_range(each)), plan_ranges(self.locate(wanted))):
            for item, data in part:
                plain[item.place] = data
        return plain

    def read_lists(self, ids: Sequence[ChunkId], executor: Executor) -> list[bytes]:
        """Return list chunks whose length is not known beforehand."""
        found = self._index.find(ids)
        refs = []
        for chunk, at in zip(ids, found, strict=True):
            if at is None:
                raise broken(f"the repository of {self._area.title}", f"list {chunk.hex()[:12]} is nowhere in it")
            refs.append(ChunkRef(chunk, at.frame.plain))
        return self.read_many(refs, executor)


def resolve(reader: ChunkReader, refs: Sequence[ContentRef], executor: Executor) -> list[list[list[ChunkRef]]]:
    """Return for each reference its chunks as leaves; small files share the reads of their lists."""
    what = "a list of chunks"
    roots = [(place, ref) for place, ref in enumerate(refs) if ref.depth == 2 and ref.id is not None]
    leaves: list[tuple[int, ChunkId, int]] = [
        (place, ref.id, ref.size) for place, ref in enumerate(refs) if ref.depth == 1 and ref.id is not None
    ]
    plains = reader.read_lists([ref.id for _, ref in roots if ref.id is not None], executor)
    for (place, ref), plain in zip(roots, plains, strict=True):
        leaves += [(place, leaf, size) for leaf, size in parse_root(what, plain, ref.size)]
    resolved: list[list[list[ChunkRef]]] = [
        [[ChunkRef(ref.id, ref.size)]] if ref.depth == 0 and ref.id is not None else [] for ref in refs
    ]
    for start in range(0, len(leaves), LISTS_PER_BATCH):
        batch = leaves[start : start + LISTS_PER_BATCH]
        plains = reader.read_lists([leaf for _, leaf, _ in batch], executor)
        for (place, _, size), plain in zip(batch, plains, strict=True):
            resolved[place].append(parse_leaf(what, plain, size))
    return resolved


def read_content(reader: ChunkReader, ref: ContentRef, executor: Executor) -> Iterator[bytes]:
    """Yield a stream's bytes in order, some chunks at a time."""
    for leaf in resolve(reader, [ref], executor)[0]:
        for start in range(0, len(leaf), 32):
            yield from reader.read_many(leaf[start : start + 32], executor)


def read_tree(reader: ChunkReader, record: BackupRecord, executor: Executor) -> Iterator[TreeEntry]:
    """Yield the entries of a backup in the order of its capture; raises ``IntegrityBroken``."""
    what = f"the tree of backup {record.id}"
    rest = b""
    count = 0
    for part in read_content(reader, record.tree, executor):
        *lines, rest = (rest + part).split(b"\n")
        if len(rest) > LINE_BYTES_MAX:
            raise broken(what, "one of its lines is too long")
        for line in lines:
            count += 1
            yield parse_line(what, line)
    if rest or count != record.entries:
        raise broken(what, f"it has {count} entries and not {record.entries}")
