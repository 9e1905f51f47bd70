"""Writes an index segment to a local file, in memory that does not grow with the rows: new, or merged from others."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from holdfast.model.documents import encode_document
from holdfast.repository.format.container import (
    FRAME_AAD,
    HASH_BYTES,
    RAW,
    TAG_BYTES,
    TOC_COUNTER,
    TOC_ROW,
    TRAILER,
    TRAILER_MAGIC,
    Claim,
    Header,
    toc_aad,
)
from holdfast.repository.format.names import PackName
from holdfast.repository.index.rows import U32, U64, PackFacts, Rows, encode_packs
from holdfast.repository.index.segment import (
    IDS_PER_FRAME,
    PACKS_PER_FRAME,
    ROWS_PER_FRAME,
    Segment,
    pack_table_frames,
)

Columns = tuple[U64, U32, Rows]
MERGE_ROWS = 1_000_000
COPY_BYTES = 8 << 20


class _FrameFile:
    """Seals frames of known counters into a file and remembers their rows of the table of contents."""

    def __init__(self, cipher: AESGCM, file: IO[bytes], counter: int) -> None:
        self._cipher = cipher
        self.file = file
        self.counter = counter
        self.toc = bytearray()

    def add(self, plain: bytes) -> None:
        aad = FRAME_AAD.pack(self.counter, RAW, len(plain))
        self.file.write(self._cipher.encrypt(struct.pack("<IQ", 0, self.counter), plain, aad))
        self.toc += TOC_ROW.pack(RAW, 0, 0, len(plain), len(plain) + TAG_BYTES)
        self.counter += 1


class _Cutter:
    """Collects a column and gives it on in frames of a fixed number of bytes."""

    def __init__(self, frames: _FrameFile, frame_bytes: int) -> None:
        self._frames = frames
        self._frame_bytes = frame_bytes
        self._pending = b""

    def add(self, plain: bytes) -> None:
        data = self._pending + plain
        end = len(data) - len(data) % self._frame_bytes
        for start in range(0, end, self._frame_bytes):
            self._frames.add(data[start : start + self._frame_bytes])
        self._pending = data[end:]

    def finish(self) -> None:
        if self._pending:
            self._frames.add(self._pending)


def write_segment(
    path: Path,
    claim: Claim,
    key: tuple[int, bytes],
    packs: Sequence[PackFacts],
    total: int,
    columns: Iterator[Columns],
) -> bytes:
    """Write a segment of ``total`` rows that come sorted by id, and return its object hash.

    ``key`` is (epoch, input key). The three columns are spooled beside ``path`` and then joined.
    """
    salt = os.urandom(32)
    header = Header(claim.type, key[0], salt, b"").encode()
    cipher = claim.cipher(key[1], salt)
    id_frames, row_frames = -(-total // IDS_PER_FRAME), -(-total // ROWS_PER_FRAME)
    pack_frames = pack_table_frames(list(packs))
    counts = {"rows": total, "packs": len(packs), "pack_frames": pack_frames}
    folder = path.parent
    with (
        path.open("xb") as out,
        TemporaryFile(dir=folder) as highs,
        TemporaryFile(dir=folder) as lows,
        TemporaryFile(dir=folder) as bodies,
    ):
        out.write(header)
        head = _FrameFile(cipher, out, 0)
        head.add(encode_document({**counts, "id_frames": id_frames, "row_frames": row_frames}))
        for start in range(0, len(packs), PACKS_PER_FRAME):
            head.add(encode_packs(packs[start : start + PACKS_PER_FRAME]))
        first = 1 + pack_frames
        parts = [
            _FrameFile(cipher, highs, first),
            _FrameFile(cipher, lows, first + id_frames),
            _FrameFile(cipher, bodies, first + 2 * id_frames),
        ]
        _fill(parts, columns)
        for part in parts:
            _append(out, part.file)
        toc = head.toc + b"".join(bytes(part.toc) for part in parts)
        return _close(out, cipher, header, bytes(toc))


def _fill(parts: list[_FrameFile], columns: Iterator[Columns]) -> None:
    cutters = [
        _Cutter(parts[0], 8 * IDS_PER_FRAME),
        _Cutter(parts[1], 4 * IDS_PER_FRAME),
        _Cutter(parts[2], 40 * ROWS_PER_FRAME),
    ]
    for high, low, rows in columns:
        cutters[0].add(high.astype("<u8").tobytes())
        cutters[1].add(low.astype("<u4").tobytes())
        cutters[2].add(rows.tobytes())
    for cutter in cutters:
        cutter.finish()


def _append(out: IO[bytes], part: IO[bytes]) -> None:
    part.seek(0)
    while block := part.read(COPY_BYTES):
        out.write(block)


def _close(out: IO[bytes], cipher: AESGCM, header: bytes, toc: bytes) -> bytes:
    end = out.tell()
    count = len(toc) // TOC_ROW.size
    plain = struct.pack("<I", count) + toc
    aad = toc_aad(len(plain), header, end, count)
    sealed = cipher.encrypt(struct.pack("<IQ", 0, TOC_COUNTER), plain, aad)
    out.write(sealed)
    out.write(TRAILER.pack(end, len(sealed), count, TRAILER_MAGIC, bytes(8), bytes(32))[:-HASH_BYTES])
    out.flush()
    digest = _hash_of(Path(out.name))
    out.write(digest)
    return digest


def _hash_of(path: Path) -> bytes:
    hasher = blake3()
    with path.open("rb") as file:
        while block := file.read(COPY_BYTES):
            hasher.update(block)
    return hasher.digest()


def merged_columns(segments: Sequence[Segment]) -> Iterator[Columns]:
    """Yield the rows of several segments in one order; pack numbers count through the joined pack tables."""
    bases = np.cumsum([0, *(len(segment.packs) for segment in segments)])
    total = sum(len(segment) for segment in segments)
    slices = max(1, -(-total // MERGE_ROWS))
    edges = [np.uint64((number << 64) // slices) for number in range(slices)]
    for number, edge in enumerate(edges):
        parts = []
        for segment, base in zip(segments, bases, strict=False):
            start = int(np.searchsorted(segment.high, edge))
            last = number + 1 == slices
            end = len(segment) if last else int(np.searchsorted(segment.high, edges[number + 1]))
            if start < end:
                rows = segment.read_rows(start, end).copy()
                rows["pack"] += np.uint32(base)
                parts.append((segment.high[start:end], segment.low[start:end], rows))
        if parts:
            yield _sorted([np.concatenate(column) for column in zip(*parts, strict=True)])


def _sorted(columns: list[Any]) -> Columns:
    order = np.lexsort((columns[1], columns[0]))
    return columns[0][order], columns[1][order], columns[2][order]


def merge_segments(
    path: Path,
    claim: Claim,
    key: tuple[int, bytes],
    segments: Sequence[Segment],
    distrusted: frozenset[PackName] = frozenset(),
) -> bytes:
    """Write one segment that holds the rows of several, and return its object hash. Packs once distrusted stay so."""
    known = [pack for segment in segments for pack in segment.packs]
    packs = [replace(pack, distrusted=True) if pack.name in distrusted else pack for pack in known]
    total = sum(len(segment) for segment in segments)
    return write_segment(path, claim, key, packs, total, merged_columns(segments))
