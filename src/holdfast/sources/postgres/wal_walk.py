"""Reads a PostgreSQL log record by record, from its bytes alone, and tells what names a moment in it.

Source: PostgreSQL's access/xlogrecord.h, xlog_internal.h, xlog.h and xact.h, versions 15 to 18.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from holdfast.model.errors import IntegrityBroken
from holdfast.sources.postgres.wal_segments import PAGE_MAGIC

PAGE_BYTES = 8192
BLOCK_BYTES_MAX = 1 << 20
"""How much of the log is looked at together."""
RECORD_HEADER_BYTES = 24
RECORD_BYTES_MAX = 1 << 30
PARSED_BYTES_MAX = 64 << 20
"""A record beyond this is told without the number of the transaction that it ends, where that stands in its body."""

SHORT_HEADER_BYTES, LONG_HEADER_BYTES = 24, 40
_PAYLOAD = PAGE_BYTES - SHORT_HEADER_BYTES
_CONTINUES, _OVERWRITES = 0x0001, 0x0008
_MAGICS = {magic: major for major, magic in PAGE_MAGIC.items()}
_PAGE = np.dtype([("magic", "<u2"), ("info", "<u2"), ("timeline", "<u4"), ("address", "<u8"), ("rest", "<u4")])

_XLOG, _XACT = 0, 1
_SWITCH, _RESTORE_POINT, _END_OF_RECOVERY = 0x40, 0x70, 0x90
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

_DATA_SHORT, _DATA_LONG, _ORIGIN, _TOP_XID = 255, 254, 253, 252
_HAS_INFO = 0x80
_HAS_DATABASE, _HAS_SUBXACTS, _HAS_FILES, _HAS_INVALIDATIONS, _HAS_PREPARED = 0x01, 0x02, 0x04, 0x08, 0x10
_HAS_DROPPED_STATS = 0x100


class Kind(StrEnum):
    """What a record that names a moment is."""

    COMMIT = "commit"
    ABORT = "abort"
    COMMIT_PREPARED = "commit prepared"
    ABORT_PREPARED = "abort prepared"
    RESTORE_POINT = "restore point"
    END_OF_RECOVERY = "end of recovery"


_XACT_KINDS = {0x00: Kind.COMMIT, 0x20: Kind.ABORT, 0x30: Kind.COMMIT_PREPARED, 0x40: Kind.ABORT_PREPARED}
ENDS = frozenset(_XACT_KINDS.values())
"""The records that end a transaction: their order in the log is the order in which others saw it."""


@dataclass(frozen=True, slots=True)
class Notable:
    """A record that names a moment, from ``start`` up to ``end``, which is where the next may begin.

    ``at`` is the server's clock when it was made; ``xid`` the transaction it ends (0 unknown), ``name`` that of a
    restore point, ``timeline`` the one that begins.
    """

    kind: Kind
    start: int
    end: int
    at: datetime
    xid: int = 0
    name: str = ""
    timeline: int = 0


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a record lies."""

    start: int
    end: int


class Walk:
    """Walks the records of the log that begin in ``[start, stop)``; iterate once, for the notable ones in log order.

    ``pieces`` are its bytes from ``start`` on, a multiple of ``PAGE_BYTES``; a record that began before is passed over.
    Afterwards ``last`` is the last complete record, ``ended`` the position behind which nothing is a record (yet), and
    ``trouble`` why the bytes there are none, None where they simply end. Checksums of records are not looked at, but
    places, lengths and each record's link to the one before are. Raises ``IntegrityBroken`` for an unknown version.
    """

    def __init__(self, start: int, segment_bytes: int, pieces: Iterable[bytes], stop: int | None = None) -> None:
        if start % PAGE_BYTES:
            raise ValueError("a walk begins where a page does")
        self._segment_bytes = segment_bytes
        self._stop = stop
        self._pieces = pieces
        self._at = start
        self._start = start
        self._carry = b""
        self._carry_start = 0
        self._passed = 0
        self._passing: int | None = None
        self._skip_to = 0
        self._previous: int | None = None
        self._major = 0
        self._is_over = False
        self.last: Extent | None = None
        self.ended = start
        self.trouble: str | None = None

    def __iter__(self) -> Iterator[Notable]:
        for block in self._blocks():
            yield from self._block(block)
            if self._is_over:
                return

    def run(self) -> Extent | None:
        """Walk to the end and return the last complete record."""
        for _ in self:
            pass
        return self.last

    def _blocks(self) -> Iterator[bytes]:
        """Cut the pieces into blocks of whole pages that lie in one segment; the very last may end within a page."""
        waiting = bytearray()
        at = self._start

        def room() -> int:
            return min(BLOCK_BYTES_MAX, self._segment_bytes - at % self._segment_bytes)

        for piece in self._pieces:
            view = memoryview(piece)
            while view:
                taken = room() - len(waiting)
                waiting += view[:taken]
                view = view[taken:]
                if len(waiting) == room():
                    yield bytes(waiting)
                    at += len(waiting)
                    waiting.clear()
        if waiting:
            yield bytes(waiting)

    def _block(self, block: bytes) -> Iterator[Notable]:
        begin, self._at = self._at, self._at + len(block)
        if self._at <= self._skip_to:
            return
        pages, complete = self._pages(block, begin)
        parts = np.flatnonzero(pages["info"] & _OVERWRITES)
        edges = [0, *(int(page) for page in parts if page), len(pages)]
        for first, behind in pairwise(edges):
            if first == behind:
                continue
            if int(pages["info"][first]) & _OVERWRITES:
                # The server died within a record and wrote on at the next page: what was begun there is none.
                self._carry, self._passed, self._passing = b"", 0, None
                self._previous = self.last.start if self.last is not None else None
            part = memoryview(block)[first * PAGE_BYTES : min(behind * PAGE_BYTES, len(block))]
            begins = begin + first * PAGE_BYTES
            if begins < self._skip_to:
                continue
            if begins == self._start and int(pages["info"][first]) & _CONTINUES:
                self._passed = -(-int(pages["rest"][first]) // 8) * 8
            yield from self._records(part, begins)
            if self._is_over:
                return
        if not complete and self._at > self._skip_to:
            wrong = len(pages) * PAGE_BYTES
            # Pages of zeros are what a segment has that is not yet full.
            is_empty = not any(block[wrong : wrong + PAGE_BYTES])
            self._end(None if is_empty else f"what lies at {begin + wrong:X} is no page of the log")

    def _pages(self, block: bytes, begin: int) -> tuple[npt.NDArray[np.void], bool]:
        """Return the headers of the pages up to the first that is none of this log, and whether all are."""
        count = -(-len(block) // PAGE_BYTES)
        padded = np.frombuffer(block.ljust(count * PAGE_BYTES, b"\0"), dtype=np.uint8).reshape(count, PAGE_BYTES)
        headers = np.ascontiguousarray(padded[:, : _PAGE.itemsize]).view(_PAGE).reshape(count)
        if not self._major:
            magic = int(headers["magic"][0])
            if magic == 0:
                return headers[:0], False
            if magic not in _MAGICS:
                raise IntegrityBroken(
                    f"the log at {begin:X} is of no known version (page magic {magic:04X})",
                    hint="Use a newer holdfast; `holdfast check --read-data` tells whether the log is sound.",
                )
            self._major = _MAGICS[magic]
        addresses = begin + np.arange(count, dtype=np.uint64) * np.uint64(PAGE_BYTES)
        right = (headers["magic"] == PAGE_MAGIC[self._major]) & (headers["address"] == addresses)
        if len(block) % PAGE_BYTES and len(block) % PAGE_BYTES <= LONG_HEADER_BYTES:
            right[-1] = True  # the log ends within a header
        wrong = np.flatnonzero(~right)
        return (headers[: wrong[0]], False) if len(wrong) else (headers, True)

    def _records(self, pages: memoryview, begin: int) -> Iterator[Notable]:  # noqa: PLR0912, PLR0915 the one hot loop
        """Walk what lies whole in some pages of one segment; what does not is carried to the next ones."""
        plain = _without_headers(pages, _header_bytes(begin, self._segment_bytes))
        lsn_of = _positions(begin, self._segment_bytes)
        if self._passed:
            if self._passed > len(plain):
                self._passed -= len(plain)
                return
            if self._passing is not None:
                self._note(Extent(self._passing, _aligned(lsn_of(self._passed - 1) + 1)))
                self._passing = None
        carried = len(self._carry)
        at, self._passed = (self._passed, 0) if not carried else (0, 0)
        data = self._carry + plain
        size = len(data)
        bytes_ = data + bytes(-size % 8)
        halves, words = memoryview(bytes_).cast("I"), memoryview(bytes_).cast("Q")
        previous, stop = self._previous, self._stop
        last: tuple[int, int, int] | None = None
        while size - at >= RECORD_HEADER_BYTES:
            length = halves[at >> 2]
            start = lsn_of(at - carried) if at >= carried else self._carry_start
            if stop is not None and start >= stop:
                self._is_over = True
                break
            if not RECORD_HEADER_BYTES <= length <= RECORD_BYTES_MAX:
                self._end(None if length == 0 else f"no record has {length} bytes, as the one at {start:X} says")
                break
            if previous is not None and words[(at >> 3) + 1] != previous:
                self._end(f"the record at {start:X} does not follow the one at {previous:X}")
                break
            manager, info = bytes_[at + 17], bytes_[at + 16]
            if at + length > size:
                if (manager > _XACT or length > PARSED_BYTES_MAX) and size - at >= RECORD_HEADER_BYTES:
                    self._passing, self._passed = start, -(-(at + length) // 8) * 8 - -(-size // 8) * 8
                    previous, at = start, size
                break
            last, previous = (start, at, length), start
            if manager <= _XACT:
                if manager == _XLOG and info & 0xF0 == _SWITCH:
                    end = lsn_of(at + length - carried - 1) + 1
                    self._skip_to = -(-end // self._segment_bytes) * self._segment_bytes
                    self._note(Extent(start, self._skip_to))
                    self._previous, self._carry = start, b""
                    return
                where = Extent(start, _aligned(lsn_of(at + length - carried - 1) + 1))
                notable = _notable(memoryview(bytes_)[at : at + length], manager, info, where, self._major)
                if notable is not None:
                    self._note(where)
                    self._previous = start
                    yield notable
            at += -(-length // 8) * 8
        self._previous = previous
        if last is not None:
            start, begins, length = last
            self._note(Extent(start, _aligned(lsn_of(begins + length - carried - 1) + 1)))
        self._carry_start = (lsn_of(at - carried) if at >= carried else self._carry_start) if at < size else 0
        self._carry = data[at:]

    def _note(self, extent: Extent) -> None:
        self.last = extent
        self.ended = extent.end

    def _end(self, trouble: str | None) -> None:
        self._is_over = True
        self.trouble = trouble


def _aligned(position: int) -> int:
    return -(-position // 8) * 8


def _header_bytes(position: int, segment_bytes: int) -> int:
    return LONG_HEADER_BYTES if position % segment_bytes == 0 else SHORT_HEADER_BYTES


def _without_headers(pages: memoryview, first_header: int) -> bytes:
    """Return what lies between the headers: there a record is one run of bytes, and the next begins right behind it."""
    whole, rest = divmod(len(pages), PAGE_BYTES)
    if whole == 0:
        return bytes(pages[first_header:])
    table = np.frombuffer(pages[: whole * PAGE_BYTES], dtype=np.uint8).reshape(whole, PAGE_BYTES)
    parts = [table[0, first_header:].tobytes(), table[1:, SHORT_HEADER_BYTES:].tobytes()]
    if rest > SHORT_HEADER_BYTES:
        parts.append(bytes(pages[whole * PAGE_BYTES + SHORT_HEADER_BYTES :]))
    return b"".join(parts)


def _positions(begin: int, segment_bytes: int) -> Callable[[int], int]:
    """Return what turns an offset between the headers into a position of the log."""
    header = _header_bytes(begin, segment_bytes)
    first = PAGE_BYTES - header

    def lsn_of(offset: int) -> int:
        if offset < first:
            return begin + header + offset
        page, rest = divmod(offset - first, _PAYLOAD)
        return begin + PAGE_BYTES * (page + 1) + SHORT_HEADER_BYTES + rest

    return lsn_of


def _notable(record: memoryview, manager: int, info: int, where: Extent, major: int) -> Notable | None:
    """Return what a whole record says about time, None where it says nothing."""
    kind: Kind | None
    if manager == _XACT:
        kind = _XACT_KINDS.get(info & 0x70)
    else:
        kind = {_RESTORE_POINT: Kind.RESTORE_POINT, _END_OF_RECOVERY: Kind.END_OF_RECOVERY}.get(info & 0xF0)
    if kind is None:
        return None
    body = _main_data(record)
    if len(body) < 8:
        return None
    at = _EPOCH + timedelta(microseconds=struct.unpack_from("<q", body)[0])
    if kind is Kind.RESTORE_POINT:
        name = bytes(body[8:72]).split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        return Notable(kind, where.start, where.end, at, name=name)
    if kind is Kind.END_OF_RECOVERY:
        return Notable(kind, where.start, where.end, at, timeline=struct.unpack_from("<I", body, 8)[0])
    xid = struct.unpack_from("<I", record, 4)[0]
    if kind in (Kind.COMMIT_PREPARED, Kind.ABORT_PREPARED) and info & _HAS_INFO:
        xid = _prepared_xid(body, kind, major) or xid
    return Notable(kind, where.start, where.end, at, xid=xid)


def _main_data(record: memoryview) -> memoryview:
    """Return the main data of a record without blocks; empty where it has blocks or none."""
    at = RECORD_HEADER_BYTES
    while at < len(record):
        block = record[at]
        if block == _DATA_SHORT:
            return record[at + 2 :]
        if block == _DATA_LONG:
            return record[at + 5 :]
        if block == _ORIGIN:
            at += 3
        elif block == _TOP_XID:
            at += 5
        else:
            break
    return record[:0]


def _prepared_xid(body: memoryview, kind: Kind, major: int) -> int:
    """Return the transaction that was prepared earlier and ends here; 0 where the record does not say."""
    try:
        flags = struct.unpack_from("<I", body, 8)[0]
        at = 12 + (8 if flags & _HAS_DATABASE else 0)
        lists = [(_HAS_SUBXACTS, 4), (_HAS_FILES, 12), (_HAS_DROPPED_STATS, 16 if major >= 18 else 12)]
        if kind is Kind.COMMIT_PREPARED:
            lists.append((_HAS_INVALIDATIONS, 16))
        for flag, size in lists:
            if flags & flag:
                at += 4 + size * struct.unpack_from("<i", body, at)[0]
        return int(struct.unpack_from("<I", body, at)[0]) if flags & _HAS_PREPARED else 0
    except struct.error:
        return 0
