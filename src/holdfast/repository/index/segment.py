"""One index segment, opened for look-ups: search columns in memory, rows in memory or read where they lie."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from holdfast.repository.format import container
from holdfast.repository.format.container import (
    FRAME_AAD,
    HEADER,
    RAW,
    TAG_BYTES,
    TRAILER,
    Claim,
    broken,
    parse_header,
    parse_trailer,
    toc_aad,
)
from holdfast.repository.format.names import ChunkId, PackName
from holdfast.repository.index.rows import (
    PACK_ROW,
    ROW,
    U8,
    U32,
    U64,
    PackFacts,
    Rows,
    decode_packs,
    split_ids,
)

IDS_PER_FRAME = 131072
ROWS_PER_FRAME = 51
PACKS_PER_FRAME = 20000
RESIDENT_ROWS_MAX = 1_500_000
"""Rows up to this number (60 MB) are kept in memory; larger segments are read where they lie."""

Places = npt.NDArray[np.intp]
NONCE = struct.Struct("<IQ")
_TOC_ROW = np.dtype([("algorithm", "u1"), ("zero", "u1"), ("zero2", "<u2"), ("plain", "<u4"), ("stored", "<u4")])


class SegmentFile:
    """An index segment's file with its frames. Thread-safe for reading; closed by whoever opened it."""

    def __init__(self, path: Path, claim: Claim, keys: Callable[[int], bytes]) -> None:
        self.what = f"index segment {path.name[:12]}"
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._prove(claim, keys)
        except BaseException:
            os.close(self._fd)
            raise

    def _prove(self, claim: Claim, keys: Callable[[int], bytes]) -> None:
        # A segment can have a million frames: its table of contents is kept as arrays and never as objects.
        size = os.fstat(self._fd).st_size
        trailer = parse_trailer(self.what, os.pread(self._fd, TRAILER.size, max(size - TRAILER.size, 0)), size)
        header = parse_header(self.what, os.pread(self._fd, HEADER.size, 0))
        self._cipher: AESGCM = claim.cipher(keys(header.epoch), header.salt)
        sealed = os.pread(self._fd, trailer.toc_length, trailer.toc_offset)
        aad = toc_aad(max(len(sealed) - TAG_BYTES, 0), header.encode(), trailer.toc_offset, trailer.frames)
        try:
            toc = self._cipher.decrypt(struct.pack("<IQ", 0, container.TOC_COUNTER), sealed, aad)
        except InvalidTag as error:
            raise broken(self.what, "it does not open") from error
        if len(toc) != 4 + trailer.frames * _TOC_ROW.itemsize or len(toc) < 4 + _TOC_ROW.itemsize:
            raise broken(self.what, "its table of contents has the wrong length")
        rows = np.frombuffer(toc, _TOC_ROW, offset=4)
        self._plain = rows["plain"].copy()
        self._stored = rows["stored"].copy()
        self._offset = np.zeros(trailer.frames, np.uint64)
        np.cumsum(self._stored[:-1], out=self._offset[1:], dtype=np.uint64)
        self._offset += len(header.encode())

    def frame(self, counter: int) -> bytes:
        """Return the plain bytes of a frame; raises ``IntegrityBroken``."""
        plain = int(self._plain[counter])
        sealed = os.pread(self._fd, int(self._stored[counter]), int(self._offset[counter]))
        try:
            return self._cipher.decrypt(struct.pack("<IQ", 0, counter), sealed, FRAME_AAD.pack(counter, RAW, plain))
        except InvalidTag as error:
            raise broken(self.what, f"frame {counter} does not open") from error

    def frames(self, counters: npt.NDArray[np.intp]) -> bytearray:
        """Return many frames one after another; by the thousand, so nothing is done twice. Errors as ``frame``."""
        fd, decrypt = self._fd, self._cipher.decrypt_into
        columns = (column[counters].tolist() for column in (self._plain, self._stored, self._offset))
        joined = bytearray(int(self._plain[counters].sum(dtype=np.int64)))
        room, at = memoryview(joined), 0
        try:
            for counter, plain, stored, offset in zip(counters.tolist(), *columns, strict=True):
                nonce, aad = NONCE.pack(0, counter), FRAME_AAD.pack(counter, RAW, plain)
                # Read and not mapped: a fault maps 64 KiB, which takes longer and counts as memory of ours.
                decrypt(nonce, os.pread(fd, stored, offset), aad, room[at : at + plain])
                at += plain
        except (InvalidTag, ValueError) as error:
            raise broken(self.what, "a frame does not open") from error
        return joined

    @property
    def count(self) -> int:
        return len(self._plain)

    def close(self) -> None:
        os.close(self._fd)


class Segment:
    """A set of rows sorted by id. ``usable`` masks packs that do not count; set it after a listing."""

    def __init__(
        self, packs: list[PackFacts], high: U64, low: U32, rows: Rows | None, file: SegmentFile | None
    ) -> None:
        self.packs = packs
        self.high = high
        self.low = low
        self.usable = np.ones(len(packs), bool)
        self._rows = rows
        self._file = file
        self._first_row_frame = 0
        self._spoiled: set[tuple[int, bytes]] = set()

    @classmethod
    def from_columns(cls, packs: list[PackFacts], high: U64, low: U32, rows: Rows) -> Segment:
        """Make a segment in memory of unsorted columns."""
        order = np.lexsort((low, high))
        return cls(packs, high[order], low[order], rows[order], None)

    @classmethod
    def open(
        cls, path: Path, claim: Claim, keys: Callable[[int], bytes], resident_rows_max: int = RESIDENT_ROWS_MAX
    ) -> Segment:
        """Open a segment's file; raises ``IntegrityBroken`` (then it is to be left out: packs tell the same)."""
        file = SegmentFile(path, claim, keys)
        try:
            return cls._load(file, resident_rows_max)
        except (ValueError, KeyError, TypeError) as error:
            file.close()
            raise broken(file.what, "its parts cannot be read") from error
        except BaseException:
            file.close()
            raise

    @classmethod
    def _load(cls, file: SegmentFile, resident_rows_max: int) -> Segment:
        head = json.loads(file.frame(0))
        rows, pack_frames, id_frames = int(head["rows"]), int(head["pack_frames"]), int(head["id_frames"])
        row_frames = int(head["row_frames"])
        # What it says of itself decides what is allocated: the frames that are there bound it.
        whole = (id_frames, row_frames) == (-(-rows // IDS_PER_FRAME), -(-rows // ROWS_PER_FRAME))
        if not whole or min(rows, pack_frames) < 0 or 1 + pack_frames + 2 * id_frames + row_frames != file.count:
            raise broken(file.what, "its parts do not add up")
        packs: list[PackFacts] = []
        for number in range(1, 1 + pack_frames):
            packs += decode_packs(file.frame(number))
        high, low = np.empty(rows, np.uint64), np.empty(rows, np.uint32)
        for part in range(id_frames):
            begin = part * IDS_PER_FRAME
            column = np.frombuffer(file.frame(1 + pack_frames + part), "<u8")
            high[begin : begin + len(column)] = column
            narrow = np.frombuffer(file.frame(1 + pack_frames + id_frames + part), "<u4")
            low[begin : begin + len(narrow)] = narrow
        segment = cls(packs, high, low, None, file)
        segment._first_row_frame = 1 + pack_frames + 2 * id_frames
        if rows <= resident_rows_max:
            segment._rows = segment.read_rows(0, rows)
        return segment

    @property
    def resident_rows(self) -> int:
        """Rows kept in memory."""
        return 0 if self._rows is None else len(self._rows)

    def __len__(self) -> int:
        return len(self.high)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read_rows(self, start: int, end: int) -> Rows:
        """Return rows ``[start, end)`` in order of id."""
        if self._rows is not None or self._file is None:
            assert self._rows is not None
            return self._rows[start:end]
        first, last = start // ROWS_PER_FRAME, max(end - 1, start) // ROWS_PER_FRAME
        plain = b"".join(self._file.frame(self._first_row_frame + number) for number in range(first, last + 1))
        skip = start - first * ROWS_PER_FRAME
        return np.frombuffer(plain, ROW)[skip : skip + end - start]

    def mask(self, sizes: dict[PackName, int], condemned: frozenset[PackName], *, writing: bool) -> None:
        """Count only rows of packs that are listed with their size and not condemned, nor, to write, distrusted."""
        self.usable = np.array(
            [
                sizes.get(pack.name) == pack.size and pack.name not in condemned and not (writing and pack.distrusted)
                for pack in self.packs
            ],
            bool,
        )

    def spoil(self, name: PackName, chunks: Sequence[ChunkId]) -> None:
        """Count no longer on these chunks of a pack; the same chunks in other packs stay."""
        for number, pack in enumerate(self.packs):
            if pack.name == name:
                self._spoiled |= {(number, chunk[12:]) for chunk in chunks}

    def keep_masks(self, parts: Sequence[Segment]) -> None:
        """Count no longer on what the parts that this one was merged from did not count on."""
        self.usable = np.concatenate([part.usable for part in parts])
        base = 0
        for part in parts:
            self._spoiled |= {(base + number, rest) for number, rest in part._spoiled}
            base += len(part.packs)

    @property
    def what(self) -> str:
        return self._file.what if self._file is not None else "an index segment in memory"

    def find(self, ids: U8) -> tuple[Places, Rows]:
        """Return which places of ``ids`` (n, 32) are known here, and their rows; decided on all 256 bits."""
        if not len(self.high) or not len(ids):
            return np.zeros(0, np.intp), np.zeros(0, ROW)
        high, low, rest = split_ids(ids)
        # In order, so that one search goes on where the last one ended: of 80 million a third of the time.
        order = np.argsort(high)
        ordered = high[order]
        at = np.searchsorted(self.high, ordered)
        known = self.high[np.minimum(at, len(self.high) - 1)] == ordered
        places, at = order[known], at[known]
        found_places: list[Places] = []
        found_rows: list[Rows] = []
        # Equal first 64 bits are rare but prove nothing: rows that fail are followed by the next with the same bits.
        while len(places):
            rows = self._rows_at(at)
            same = (self.low[at] == low[places]) & self._counts(rows)
            same &= (_bytes_of(rows["rest"]) == rest[places]).all(axis=1)
            found_places.append(places[same])
            found_rows.append(rows[same])
            places, at = places[~same], at[~same] + 1
            more = (at < len(self.high)) & (self.high[np.minimum(at, len(self.high) - 1)] == high[places])
            places, at = places[more], at[more]
        if not found_places:
            return np.zeros(0, np.intp), np.zeros(0, ROW)
        return np.concatenate(found_places), np.concatenate(found_rows)

    def _counts(self, rows: Rows) -> npt.NDArray[np.bool_]:
        if len(rows) and int(rows["pack"].max()) >= len(self.packs):
            raise broken(self.what, "a row names a pack that it does not hold")
        counts: npt.NDArray[np.bool_] = self.usable[rows["pack"]]
        if self._spoiled:
            rests = [bytes(rest) for rest in rows["rest"]]
            keys = zip(rows["pack"].tolist(), rests, strict=True)
            counts = counts & np.array([key not in self._spoiled for key in keys], bool)
        return counts

    def _rows_at(self, at: Places) -> Rows:
        """Return the rows at any positions; each frame they lie in is read once."""
        if self._rows is not None:
            return self._rows[at]
        assert self._file is not None
        frames, inverse = np.unique(at // ROWS_PER_FRAME, return_inverse=True)
        # Only the last frame of all may be shorter than the others, and it is the last here too.
        plain = self._file.frames(frames + self._first_row_frame)
        rows: Rows = np.frombuffer(plain, ROW)[inverse * ROWS_PER_FRAME + at % ROWS_PER_FRAME]
        return rows

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _bytes_of(rests: Rows) -> U8:
    return np.ascontiguousarray(rests).view(np.uint8).reshape(len(rests), 20)


def pack_table_frames(packs: list[PackFacts]) -> int:
    return -(-len(packs) // PACKS_PER_FRAME)


assert ROW.itemsize == 40
assert PACK_ROW.itemsize == 48
