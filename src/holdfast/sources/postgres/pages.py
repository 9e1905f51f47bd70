"""Looks at every page of a capture as it passes: checksums, headers, and positions that cannot be.

Source: PostgreSQL's basebackup.c (which pages the server verifies) and bufpage.c (PageIsVerified).
"""

from __future__ import annotations

import heapq
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from holdfast.sources.port import Inspect
from holdfast.sources.postgres.checksums import PAGE_BYTES, Flags, TurnedPages

BATCH_PAGES = 512
"""Pages gathered before they are looked at together. One batch is held by each thread that looks, and one fills."""

EXAMPLES_MAX = 8
"""Block numbers kept of each kind of damage in each file; beyond these they are counted only."""

LATEST_MAX = 64
"""Pages kept for each file, those with the latest positions, until the stop position tells which are impossible."""

READ_BYTES = 32 * 1024
"""The server reads files in such pieces, and verifies none that is cut within a page."""

_RELATION = re.compile(
    r"(?:base/\d+|global|pg_tblspc/\d+/[^/]+/\d+)/\d+(?:_(?:fsm|vm|init))?(?:\.(?P<segment>[1-9]\d*))?"
)


class PageFault(StrEnum):
    """In which way a page is damaged."""

    CHECKSUM = "wrong checksum"
    HEADER = "impossible header"
    UNUSED = "marked unused but not zero"
    FUTURE = "changed after the end of the backup"


def relation_segment(path: str) -> int | None:
    """Return the segment's number where ``path`` is a relation's file, None for any other file."""
    match = _RELATION.fullmatch(path)
    return None if match is None else int(match["segment"] or 0)


@dataclass(frozen=True, slots=True)
class FileFindings:
    """The damage in one file: per kind how many pages, and the block numbers of some, counted within the file."""

    path: str
    counts: tuple[tuple[PageFault, int], ...]
    examples: tuple[tuple[PageFault, tuple[int, ...]], ...]

    @property
    def total(self) -> int:
        """How many pages are damaged."""
        return sum(count for _, count in self.counts)

    def detail(self) -> str:
        """Say it for people."""
        return "; ".join(self._one(fault, count) for fault, count in self.counts)

    def _one(self, fault: PageFault, count: int) -> str:
        blocks = dict(self.examples)[fault]
        bound = "at least " if fault is PageFault.FUTURE and count == LATEST_MAX else ""
        named = ", ".join(map(str, blocks)) + (", ..." if count > len(blocks) else "")
        return f"{bound}{count} {'page' if count == 1 else 'pages'} {fault.value} (block {named})"


@dataclass(frozen=True, slots=True)
class _File:
    """One file watched; there may be a million of them."""

    path: str
    first_block: int
    checksums_until: int


@dataclass(slots=True)
class _Notes:
    """What was seen in one file: made only for files in which there was anything to see."""

    counts: dict[PageFault, int] = field(default_factory=dict)
    examples: dict[PageFault, list[int]] = field(default_factory=dict)
    latest: list[tuple[int, int]] = field(default_factory=list)

    def add(self, fault: PageFault, blocks: list[int]) -> None:
        self.counts[fault] = self.counts.get(fault, 0) + len(blocks)
        self.examples[fault] = heapq.nsmallest(EXAMPLES_MAX, self.examples.get(fault, []) + blocks)

    def note_latest(self, lsns: list[int], blocks: list[int]) -> None:
        self.latest = heapq.nlargest(LATEST_MAX, [*self.latest, *zip(lsns, blocks, strict=True)])


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbouring pages of one file in a batch: ``owner`` is the file's index, ``place`` the first block within it."""

    owner: int
    count: int
    place: int
    first_block: int
    checked: int


class _Batch:
    """Pages of several files side by side, until they are looked at together."""

    def __init__(self) -> None:
        self.pages = TurnedPages(BATCH_PAGES)
        self.runs: list[_Run] = []
        self.filled = 0

    def spread(self, values: list[int]) -> NDArray[np.int64]:
        """Return one value per page, from one per run; zero behind the last."""
        spread = np.zeros(BATCH_PAGES, dtype=np.int64)
        spread[: self.filled] = np.repeat(values, [run.count for run in self.runs])
        return spread

    def places(self) -> NDArray[np.int64]:
        """Return each page's block number within its file."""
        firsts = np.cumsum([0, *(run.count for run in self.runs)])[:-1]
        steps = self.spread([run.place for run in self.runs]) - self.spread(firsts.tolist())
        return steps + np.arange(BATCH_PAGES)


class PageScanner:
    """Gives an ``Inspect`` for each relation file, gathers pages into batches, and tells the damage at the end.

    Safe to use from many threads. A page changed at or after ``start_lsn`` may be torn and is repaired by the log:
    neither its checksum nor its header counts. Memory: one batch (4.1 MiB) per thread, and a few words per file.
    """

    def __init__(self, start_lsn: int, *, verify_checksums: bool, blocks_per_segment: int) -> None:
        self._start_lsn = np.uint64(start_lsn)
        self._verify_checksums = verify_checksums
        self._blocks_per_segment = blocks_per_segment
        self._files: list[_File] = []
        self._notes: defaultdict[int, _Notes] = defaultdict(_Notes)
        self._lock = threading.Lock()
        self._own = threading.local()
        self._batches: list[_Batch] = []

    def watch(self, path: str, segment: int, size_bytes: int) -> Inspect:
        """Return what looks at the pieces of one relation file of that size."""
        # The server does not verify the piece that is cut within a page: such a file was being written to.
        until = size_bytes if size_bytes % PAGE_BYTES == 0 else size_bytes - size_bytes % READ_BYTES
        file = _File(path, segment * self._blocks_per_segment, until // PAGE_BYTES)
        with self._lock:
            index = len(self._files)
            self._files.append(file)

        def inspect(piece: memoryview, offset: int) -> None:
            self._take(index, file, piece, offset // PAGE_BYTES)

        return inspect

    def finish(self, stop_lsn: int) -> tuple[FileFindings, ...]:
        """Look at what is left and return all damage, by path. Call it once, after every piece was inspected."""
        with self._lock:
            batches = list(self._batches)
        for batch in batches:
            self._look(batch)
        return tuple(sorted(self._findings(stop_lsn), key=lambda findings: findings.path))

    def _batch_of_this_thread(self) -> _Batch:
        batch: _Batch | None = getattr(self._own, "batch", None)
        if batch is None:
            batch = self._own.batch = _Batch()
            with self._lock:
                self._batches.append(batch)
        return batch

    def _take(self, owner: int, file: _File, piece: memoryview, place: int) -> None:
        count = len(piece) // PAGE_BYTES  # A torn page at the end of a file is left to the log.
        done = 0
        batch = self._batch_of_this_thread()
        while done < count:
            taken = min(count - done, BATCH_PAGES - batch.filled)
            batch.pages.put(batch.filled, piece[done * PAGE_BYTES : (done + taken) * PAGE_BYTES])
            batch.runs.append(_Run(owner, taken, place + done, file.first_block, file.checksums_until))
            batch.filled += taken
            done += taken
            if batch.filled == BATCH_PAGES:
                self._look(batch)
                batch.runs.clear()
                batch.filled = 0

    def _look(self, batch: _Batch) -> None:
        if not batch.filled:
            return
        within = np.arange(BATCH_PAGES) < batch.filled
        lsns, unused = batch.pages.lsns(), batch.pages.unused()
        places = batch.places()
        old = within & ~unused & (lsns < self._start_lsn)
        found = {
            PageFault.UNUSED: batch.pages.not_zero(within & unused),
            PageFault.HEADER: old & batch.pages.impossible_headers(),
        }
        if self._verify_checksums and old.any():
            blocks = (places + batch.spread([run.first_block for run in batch.runs])).astype(np.uint32)
            verified = old & ~found[PageFault.HEADER] & (places < batch.spread([run.checked for run in batch.runs]))
            found[PageFault.CHECKSUM] = verified & batch.pages.wrong_checksums(blocks)
        found = {fault: flags for fault, flags in found.items() if flags.any()}
        later = within & ~unused & (lsns > self._start_lsn)
        if not found and not later.any():
            return
        owners = batch.spread([run.owner for run in batch.runs])
        with self._lock:
            for fault, flags in found.items():
                for owner, rows in _by_owner(owners, flags):
                    self._notes[owner].add(fault, places[rows].tolist())
            for owner, rows in _by_owner(owners, later):
                self._notes[owner].note_latest(lsns[rows].tolist(), places[rows].tolist())

    def _findings(self, stop_lsn: int) -> Iterator[FileFindings]:
        for owner, notes in self._notes.items():
            future = [block for lsn, block in notes.latest if lsn > stop_lsn]
            if future:
                notes.add(PageFault.FUTURE, future)
            if notes.counts:
                counts = tuple(sorted(notes.counts.items()))
                examples = tuple((fault, tuple(notes.examples[fault])) for fault, _ in counts)
                yield FileFindings(self._files[owner].path, counts, examples)


def _by_owner(owners: NDArray[np.int64], flags: Flags) -> Iterator[tuple[int, NDArray[np.int64]]]:
    rows = np.flatnonzero(flags)
    for owner in np.unique(owners[rows]).tolist():
        yield owner, rows[owners[rows] == owner]
