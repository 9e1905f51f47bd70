"""The index of one area, opened: where each chunk lies, from segments, from packs read directly, and from this run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from holdfast.model.errors import IntegrityBroken, KeyInvalid, NotFound
from holdfast.repository.area import Area
from holdfast.repository.format import names
from holdfast.repository.format.container import Frame, ObjectType
from holdfast.repository.format.names import ChunkId, PackName
from holdfast.repository.index.rows import (
    U32,
    U64,
    Location,
    PackFacts,
    Rows,
    frame_of_row,
    ids_array,
    locations_of,
    rows_of_pack,
)
from holdfast.repository.index.segment import Segment
from holdfast.repository.index.writing import merge_segments

SEGMENTS_MAX = 8
FRESH_ROWS_MAX = 200_000
"""Chunks of this run kept in a dictionary, at most some 60 MB."""
UNSAVED_ROWS_MAX = 1_000_000
"""Rows that no stored segment holds, kept in memory: at most 52 MB."""
UNCOVERED_PACKS_PER_SEGMENT = 4096
"""Packs read directly are gathered into segments of so many, at most some 60 MB of rows."""


PackColumns = tuple[PackFacts, U64, U32, Rows]
"""A pack with its table as columns, in the order of the pack."""
Each = Callable[[Callable[[PackName], PackColumns | None], Iterable[PackName]], Iterable[PackColumns | None]]
"""``map``, on threads or not."""


@dataclass(frozen=True, slots=True)
class IndexTrouble:
    """A cached segment that did not open, or a pack whose table is broken or of an epoch whose key is not at hand."""

    name: str
    error: IntegrityBroken | KeyInvalid


class ChunkIndex:
    """Look-ups over all segments. Thread-safe; closed by whoever opened it."""

    def __init__(
        self, area: Area, packs: dict[PackName, int], condemned: frozenset[PackName], *, writing: bool = False
    ) -> None:
        self.area = area
        self.packs = packs
        self.condemned = condemned
        self.writing = writing
        self.distrusted: frozenset[PackName] = frozenset()
        self.segments: list[tuple[str | None, Segment]] = []
        self.trouble: list[IndexTrouble] = []
        self._fresh: dict[ChunkId, tuple[int, int]] = {}
        self._added: list[PackColumns] = []
        self._left_out: list[Segment] = []
        self._files = 0
        self._lock = threading.Lock()
        self._folder = TemporaryDirectory(prefix="holdfast-index-")

    @property
    def folder(self) -> Path:
        return Path(self._folder.name)

    def find(self, ids: Sequence[ChunkId]) -> list[Location | None]:
        """Return where each chunk lies, None for one that is nowhere usable."""
        with self._lock:
            found: list[Location | None] = (
                [self._find_fresh(chunk) for chunk in ids] if self._fresh else [None] * len(ids)
            )
            segments = list(self.segments)
        left = [place for place, location in enumerate(found) if location is None]
        for name, segment in segments:
            if not left:
                break
            try:
                places, rows = segment.find(ids_array([ids[place] for place in left]))
            except IntegrityBroken as error:
                self._leave_out(name, segment, error)
                return self.find(ids)
            for at, location in zip(places.tolist(), locations_of(segment.packs, rows), strict=True):
                found[left[at]] = location
            left = [place for place in left if found[place] is None]
        return found

    def _find_fresh(self, chunk: ChunkId) -> Location | None:
        at = self._fresh.get(chunk)
        if at is None:
            return None
        pack, _, _, rows = self._added[at[0]]
        return Location(pack, frame_of_row(rows[at[1]]))

    def _leave_out(self, name: str | None, segment: Segment, error: IntegrityBroken) -> None:
        """Read the packs of a segment themselves, because its rows turned out damaged when they were wanted."""
        with self._lock:
            if all(held is not segment for _, held in self.segments):
                return  # another thread came here first
            self.segments = [item for item in self.segments if item[1] is not segment]
            self._left_out.append(segment)
            self.trouble.append(IndexTrouble(name or segment.what, error))
            counted = zip(segment.packs, segment.usable.tolist(), strict=True)
            self.read_uncovered([pack.name for pack, usable in counted if usable], map)

    def read_uncovered(self, packs: Sequence[PackName], each: Each) -> None:
        """Read directly those packs that no segment covers."""
        covered = {pack.name for _, segment in self.segments for pack in segment.packs}
        uncovered = [name for name in packs if name not in covered]
        for start in range(0, len(uncovered), UNCOVERED_PACKS_PER_SEGMENT):
            _read_directly(self, uncovered[start : start + UNCOVERED_PACKS_PER_SEGMENT], each)

    def add_pack(self, pack: PackFacts, frames: Sequence[Frame], ids: bytes) -> None:
        """Know the chunks of a pack that this run put. Beyond a limit they move from a dictionary to a segment."""
        with self._lock:
            self.packs[pack.name] = pack.size
            place = len(self._added)
            self._added.append((pack, *rows_of_pack(frames, ids, 0)))
            for number in range(len(frames)):
                self._fresh[ChunkId(ids[32 * number : 32 * number + 32])] = (place, number)
            if len(self._fresh) > FRESH_ROWS_MAX:
                self._settle()

    def _settle(self) -> None:
        if self._added:
            self.take(segment_of(self._added))
            self._added, self._fresh = [], {}

    def take(self, segment: Segment) -> None:
        """Look also into a segment that is not stored yet; many such rows move from memory to a local file."""
        segment.mask(self.packs, self.condemned, writing=self.writing)
        self.segments.append((None, segment))
        resident = [held for name, held in self.segments if name is None and held.resident_rows]
        if sum(held.resident_rows for held in resident) > UNSAVED_ROWS_MAX:
            path = self.new_path()
            claim = self.area.claim(ObjectType.INDEX)
            merge_segments(path, claim, self.area.sealing_key, resident)
            merged = Segment.open(path, claim, self.area.keys.of_epoch, resident_rows_max=0)
            merged.keep_masks(resident)
            self.segments = [item for item in self.segments if item[1] not in resident] + [(None, merged)]

    def new_path(self) -> Path:
        """Return a free name in the folder of this index's own files."""
        self._files += 1
        return self.folder / f"local-{self._files}"

    def settle(self) -> None:
        """Make every pack of this run part of a segment."""
        with self._lock:
            self._settle()

    def forget(self, name: PackName) -> None:
        """Count no longer on a pack: it could not be read."""
        self.settle()
        for _, segment in self.segments:
            segment.usable &= np.array([pack.name != name for pack in segment.packs], bool)

    def forget_chunks(self, name: PackName, chunks: Sequence[ChunkId]) -> None:
        """Count no longer on some chunks of a pack: they are broken there, the others are not."""
        self.settle()
        for _, segment in self.segments:
            segment.spoil(name, chunks)

    def close(self) -> None:
        for segment in (*(held for _, held in self.segments), *self._left_out):
            segment.close()
        self._folder.cleanup()


def segment_of(packs: Sequence[PackColumns]) -> Segment:
    """Return a segment in memory for packs whose tables are at hand."""
    for number, (_, _, _, rows) in enumerate(packs):
        rows["pack"] = number
    highs, lows, bodies = zip(*((high, low, rows) for _, high, low, rows in packs), strict=True)
    return Segment.from_columns(
        [pack for pack, *_ in packs], np.concatenate(highs), np.concatenate(lows), np.concatenate(bodies)
    )


def open_index(
    area: Area,
    condemned: frozenset[PackName],
    executor: Executor,
    *,
    cached: bool = True,
    writing: bool = False,
) -> ChunkIndex:
    """List the packs, open the segments, and read directly the packs that no segment covers.

    With ``cached`` false no segment is believed: every pack's own table is read. Nothing is written. ``writing`` is for
    who will count on what is found: packs that were read back and found broken are then left out.
    """
    index = ChunkIndex(area, area.list_packs(), condemned, writing=writing)
    try:
        if cached:
            _open_segments(index)
        index.read_uncovered([name for name in index.packs if name not in condemned], executor.map)
        for _, segment in index.segments:
            segment.mask(index.packs, condemned, writing=writing)
    except BaseException:
        index.close()
        raise
    return index


def _open_segments(index: ChunkIndex) -> None:
    area = index.area
    for info in area.store.list(names.index(area.keys.area)):
        try:
            path = area.store.local_path(info.name)
            if path is None:
                path = index.folder / info.name.rsplit("/", 1)[1]
                _fetch(area, info.name, info.size_bytes, path)
            segment = Segment.open(path, area.claim(ObjectType.INDEX), area.keys.of_epoch)
        except (IntegrityBroken, KeyInvalid) as error:
            index.trouble.append(IndexTrouble(info.name, error))
        except (NotFound, FileNotFoundError):
            continue  # merged away by another run between the listing and now
        else:
            index.segments.append((info.name, segment))


FETCH_BYTES = 16 << 20


def _fetch(area: Area, name: str, size: int, path: Path) -> None:
    with path.open("xb") as file:
        for start in range(0, size, FETCH_BYTES):
            file.write(area.store.get(name, start, min(size, start + FETCH_BYTES)))


def _read_directly(index: ChunkIndex, packs: list[PackName], each: Each) -> None:
    def read(name: PackName) -> PackColumns | None:
        try:
            facts, opener = index.area.read_pack_table(name, index.packs[name])
        except (IntegrityBroken, KeyInvalid) as error:
            index.trouble.append(IndexTrouble(names.pack(index.area.keys.area, name), error))
            return None
        except NotFound:
            return None  # deleted by a prune since the listing
        return facts, *rows_of_pack(opener.frames, opener.ids, 0)

    tables = [table for table in each(read, packs) if table is not None and len(table[1])]
    if tables:
        index.take(segment_of(tables))


def save_index(index: ChunkIndex) -> str | None:
    """Put what no stored segment holds as a new one, merging where there would be too many; return its name.

    Losing any step of this costs only time at the next opening. The smallest segments are merged first, so that a
    large one is rewritten rarely.
    """
    index.settle()
    unsaved = [segment for name, segment in index.segments if name is None]
    told = [
        (name, segment)
        for name, segment in index.segments
        if name is not None and any(pack.name in index.distrusted and not pack.distrusted for pack in segment.packs)
    ]
    if not unsaved and not told:
        return None
    stored = sorted(((name, segment) for name, segment in index.segments if name is not None), key=lambda s: len(s[1]))
    surplus = max(0, len(stored) + 1 - SEGMENTS_MAX)
    merged = stored[: surplus + 1] if surplus else []
    # Also take in what is not larger than what comes: a run of small backups leaves one segment and not eight.
    total = sum(len(segment) for segment in unsaved) + sum(len(segment) for _, segment in merged)
    while len(merged) < len(stored) and len(stored[len(merged)][1]) <= total:
        total += len(stored[len(merged)][1])
        merged.append(stored[len(merged)])
    merged += [item for item in told if item not in merged]
    name = put_segment(index, [*unsaved, *(segment for _, segment in merged)])
    for old, _ in merged:
        if old != name:
            index.area.store.delete(old)
    return name


def put_segment(index: ChunkIndex, segments: Sequence[Segment]) -> str:
    """Write one segment of several and put it; return its name."""
    area = index.area
    path = index.new_path()
    digest = merge_segments(path, area.claim(ObjectType.INDEX), area.sealing_key, segments, index.distrusted)
    name = names.index_segment(area.keys.area, digest)
    area.store.put(name, path)
    path.unlink()
    return name
