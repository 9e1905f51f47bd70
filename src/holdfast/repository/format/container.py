"""The one container: header, sealed frames, sealed table of contents, trailer (docs/format.md, section 3)."""

from __future__ import annotations

import itertools
import os
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from holdfast.model.errors import IntegrityBroken
from holdfast.repository.format.keys import FORMAT_LABEL, hkdf, join

Data = bytes | bytearray | memoryview

MAGIC = b"HOLDFAST"
TRAILER_MAGIC = b"HFTRAIL1"
VERSION = 1
HEADER = struct.Struct("<8sHBBI32sI12s")
TRAILER = struct.Struct("<QII8s8s32s")
TOC_ROW = struct.Struct("<BBHII")
FRAME_AAD = struct.Struct("<QBI")
TOC_PLACE = struct.Struct("<QI")
TAG_BYTES = 16
HASH_BYTES = 32
CLEAR_BYTES_MAX = 65536
PLAIN_BYTES_MAX = 16 << 20
FRAMES_MAX = 1 << 22
TOC_COUNTER = (1 << 64) - 1
SIZE_CLASS_MIN = 1 << 13
RAW = 0
ZSTD = 1


class ObjectType(IntEnum):
    IDENTITY = 1
    SLOT = 2
    EPOCH = 3
    CATALOG = 4
    DATA_PACK = 5
    LIST_PACK = 6
    HISTORY = 7
    RECORD = 8
    RUN = 9
    INDEX = 10
    LEASE = 11
    LOG_GENERATION = 12
    LOG_SPAN = 13
    STORE = 14


PACK_TYPES = (ObjectType.DATA_PACK, ObjectType.LIST_PACK)
SIZE_MAX = {
    ObjectType.IDENTITY: 1 << 16,
    ObjectType.SLOT: 1 << 16,
    ObjectType.EPOCH: 1 << 20,
    ObjectType.CATALOG: 1 << 16,
    ObjectType.DATA_PACK: 64 << 20,
    ObjectType.LIST_PACK: 64 << 20,
    ObjectType.HISTORY: 64 << 20,
    ObjectType.RECORD: 1 << 16,
    ObjectType.RUN: 16 << 20,
    ObjectType.LEASE: 1 << 16,
    ObjectType.LOG_GENERATION: 1 << 20,
    ObjectType.LOG_SPAN: 80 << 20,
    ObjectType.STORE: 1 << 16,
}
"""What a reader refuses to fetch more of, in bytes."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What an object says it is: bound into its key, so that it opens nowhere else."""

    type: ObjectType
    repository: bytes
    area: bytes = b""
    claim: bytes = b""

    def cipher(self, material: bytes, salt: bytes) -> AESGCM:
        info = join(FORMAT_LABEL, b"container", bytes([self.type]), self.repository, self.area, self.claim)
        return AESGCM(hkdf(material, salt, info))


@dataclass(frozen=True, slots=True)
class Header:
    type: ObjectType
    epoch: int
    salt: bytes
    clear: bytes

    def encode(self) -> bytes:
        fixed = HEADER.pack(MAGIC, VERSION, self.type, 0, self.epoch, self.salt, len(self.clear), bytes(12))
        return fixed + self.clear


class Frame(NamedTuple):
    """Where a frame lies in its object, and what it becomes when opened. A tuple: they are made by the million."""

    counter: int
    algorithm: int
    offset: int
    stored: int
    plain: int


class DoesNotOpen(IntegrityBroken):
    """Sound bytes that the key at hand does not open here: altered on purpose, moved, or somebody else's."""


def broken(what: str, why: str) -> IntegrityBroken:
    return IntegrityBroken(
        f"{what} is broken: {why}",
        hint="Run `holdfast check` to see which backups it touches; restore from another copy of the repository.",
    )


def toc_aad(plain_length: int, header: bytes, toc_offset: int, frames: int) -> bytes:
    """Return what the table of contents is bound to: header, clear part, its place and the number of frames."""
    return FRAME_AAD.pack(TOC_COUNTER, RAW, plain_length) + header + TOC_PLACE.pack(toc_offset, frames)


def _nonce(counter: int) -> bytes:
    return struct.pack("<IQ", 0, counter)


class _PerThread(threading.local):
    """zstd contexts are not shared between threads."""

    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=PLAIN_BYTES_MAX)
        self.compressors: dict[tuple[int, int], zstandard.ZstdCompressor] = {}


_contexts = _PerThread()


def compress(plain: Data, level: int) -> tuple[int, Data]:
    """Return (algorithm, payload): zstd where that is smaller, else the bytes as they are."""
    packed = _compressor(len(plain), level).compress(plain)
    return (ZSTD, packed) if len(packed) < len(plain) else (RAW, plain)


def compress_many(plains: Sequence[Data], level: int) -> list[tuple[int, Data]]:
    """Return what ``compress`` does for each, the interpreter's lock taken once for all of one length."""
    packed: list[tuple[int, Data]] = []
    for length, group in itertools.groupby(plains, key=len):
        same = list(group)
        if len(same) == 1:
            packed.append(compress(same[0], level))
            continue
        segments = _compressor(length, level).multi_compress_to_buffer(same, threads=1)
        for number, plain in enumerate(same):
            segment = segments[number]
            packed.append((ZSTD, segment.tobytes()) if len(segment) < length else (RAW, plain))
    return packed


def _compressor(length: int, level: int) -> zstandard.ZstdCompressor:
    # Tables sized for the chunk stay in the processor's cache: a quarter faster than those for an unknown size.
    size_class = max(length, SIZE_CLASS_MIN).bit_length()
    compressor = _contexts.compressors.get((level, size_class))
    if compressor is None:
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level, source_size=1 << (size_class - 1), write_content_size=True
        )
        compressor = zstandard.ZstdCompressor(compression_params=parameters)
        _contexts.compressors[level, size_class] = compressor
    return compressor


def _expand(what: str, algorithm: int, payload: bytes, plain_length: int) -> bytes:
    if algorithm == RAW:
        plain = payload
    elif algorithm == ZSTD:
        try:
            # The size in zstd's own header is not believed before it is compared: it decides the allocation.
            if zstandard.get_frame_parameters(payload).content_size != plain_length:
                raise broken(what, "a compressed frame tells another size than the table of contents")
            plain = _contexts.decompressor.decompress(payload, max_output_size=plain_length)
        except zstandard.ZstdError as error:
            raise broken(what, "a frame does not decompress") from error
    else:
        raise broken(what, f"it uses compression {algorithm}, which this version does not know")
    if len(plain) != plain_length:
        raise broken(what, f"a frame is {len(plain)} bytes long and not {plain_length}")
    return plain


class ContainerBuilder:
    """Fills one object's bytes in place. Not shared between threads; used once."""

    def __init__(
        self,
        claim: Claim,
        material: bytes,
        epoch: int,
        *,
        clear: bytes = b"",
        capacity: int = 0,
        random: Callable[[int], bytes] | None = None,
    ) -> None:
        salt = (random or os.urandom)(32)
        self._header = Header(claim.type, epoch, salt, clear).encode()
        self._cipher = claim.cipher(material, salt)
        self._buffer = bytearray(max(capacity, len(self._header)))
        self._buffer[: len(self._header)] = self._header
        self._end = len(self._header)
        self._rows = bytearray()
        self.count = 0

    @property
    def size(self) -> int:
        """Bytes so far, without table of contents and trailer."""
        return self._end

    def _room(self, size: int) -> memoryview:
        if self._end + size > len(self._buffer):
            self._buffer.extend(bytes(max(size, len(self._buffer) >> 2)))
        return memoryview(self._buffer)[self._end : self._end + size]

    def add(self, algorithm: int, payload: Data, plain_length: int) -> Frame:
        """Seal one frame from what ``compress`` returned."""
        if plain_length > PLAIN_BYTES_MAX or self.count >= FRAMES_MAX:
            raise ValueError(f"a frame of {plain_length} bytes as number {self.count} does not fit into a container")
        stored = len(payload) + TAG_BYTES
        aad = FRAME_AAD.pack(self.count, algorithm, plain_length)
        with self._room(stored) as room:
            self._cipher.encrypt_into(_nonce(self.count), payload, aad, room)
        frame = Frame(self.count, algorithm, self._end, stored, plain_length)
        self._rows += TOC_ROW.pack(algorithm, 0, 0, plain_length, stored)
        self._end += stored
        self.count += 1
        return frame

    def add_plain(self, plain: Data, level: int = 3) -> Frame:
        algorithm, payload = compress(plain, level)
        return self.add(algorithm, payload, len(plain))

    def finish(self, ids: bytes = b"") -> tuple[memoryview, bytes]:
        """Return the object's bytes and its hash; ``ids`` are the chunk ids of a pack."""
        toc = struct.pack("<I", self.count) + bytes(self._rows) + ids
        aad = toc_aad(len(toc), self._header, self._end, self.count)
        sealed = self._cipher.encrypt(_nonce(TOC_COUNTER), toc, aad)
        tail = sealed + TRAILER.pack(self._end, len(sealed), self.count, TRAILER_MAGIC, bytes(8), bytes(32))[:-32]
        with self._room(len(tail) + HASH_BYTES) as room:
            room[: len(tail)] = tail
        end = self._end + len(tail)
        view = memoryview(self._buffer)
        digest = blake3(view[:end]).digest()
        view[end : end + HASH_BYTES] = digest
        return view[: end + HASH_BYTES], digest


@dataclass(frozen=True, slots=True)
class Trailer:
    toc_offset: int
    toc_length: int
    frames: int
    object_hash: bytes


def parse_trailer(what: str, tail: Data, size: int) -> Trailer:
    """Read the last 64 bytes of an object of ``size`` bytes; raises ``IntegrityBroken``."""
    if size < HEADER.size + TRAILER.size or len(tail) < TRAILER.size:
        raise broken(what, f"it is only {size} bytes long")
    offset, length, frames, magic, zeros, digest = TRAILER.unpack(bytes(tail[-TRAILER.size :]))
    sound = magic == TRAILER_MAGIC and zeros == bytes(8)
    if not sound or offset + length + TRAILER.size != size or frames > FRAMES_MAX:
        raise broken(what, "its trailer is not one (cut off, or overwritten)")
    return Trailer(offset, length, frames, digest)


def parse_header(what: str, head: Data) -> Header:
    """Read header and clear part from the beginning of an object; raises ``IntegrityBroken``."""
    if len(head) < HEADER.size:
        raise broken(what, f"it is only {len(head)} bytes long")
    magic, version, kind, zero, epoch, salt, clear_length, zeros = HEADER.unpack(bytes(head[: HEADER.size]))
    if magic != MAGIC:
        raise broken(what, "it does not begin like an object of a holdfast repository")
    if version != VERSION:
        raise IntegrityBroken(
            f"{what} has format version {version}; this program reads version {VERSION}",
            hint="Use the holdfast release that wrote it, or a newer one.",
        )
    if clear_length > CLEAR_BYTES_MAX or kind not in ObjectType.__members__.values() or zero or zeros != bytes(12):
        raise broken(what, "its header is impossible")
    if len(head) < HEADER.size + clear_length:
        raise broken(what, "it ends within its header")
    return Header(ObjectType(kind), epoch, salt, bytes(head[HEADER.size : HEADER.size + clear_length]))


class Opener:
    """Opens the frames of one object whose table of contents was proved. May be shared between threads."""

    def __init__(self, what: str, header: Header, cipher: AESGCM, frames: tuple[Frame, ...], ids: bytes) -> None:
        self.what = what
        self.header = header
        self.frames = frames
        self.ids = ids
        self._cipher = cipher

    def open(self, frame: Frame, sealed: Data) -> bytes:
        """Return the plain bytes of a frame from its ciphertext; raises ``IntegrityBroken``."""
        return open_frame(self.what, self._cipher, frame, sealed)


def open_frame(what: str, cipher: AESGCM, frame: Frame, sealed: Data) -> bytes:
    """Open one frame whose place is known from a table of contents or an index; raises ``IntegrityBroken``."""
    if frame.plain > PLAIN_BYTES_MAX or len(sealed) != frame.stored:
        raise broken(what, "a frame has an impossible length")
    aad = FRAME_AAD.pack(frame.counter, frame.algorithm, frame.plain)
    try:
        payload = cipher.decrypt(_nonce(frame.counter), sealed, aad)
    except InvalidTag as error:
        raise broken(what, f"frame {frame.counter} does not open under its key") from error
    return _expand(what, frame.algorithm, payload, frame.plain)


def open_toc(what: str, claim: Claim, material: bytes, header: Header, trailer: Trailer, sealed: Data) -> Opener:
    """Prove header, claim and table of contents of an object; raises ``IntegrityBroken``.

    ``sealed`` is the ciphertext of the table of contents, ``material`` the input key of the header's epoch.
    """
    if header.type != claim.type:
        raise broken(
            what, f"it is of type {header.type.name.lower()} and stands where {claim.type.name.lower()} belongs"
        )
    cipher = claim.cipher(material, header.salt)
    encoded = header.encode()
    aad = toc_aad(max(len(sealed) - TAG_BYTES, 0), encoded, trailer.toc_offset, trailer.frames)
    try:
        toc = cipher.decrypt(_nonce(TOC_COUNTER), sealed, aad)
    except InvalidTag as error:
        raise DoesNotOpen(
            f"{what} does not open here: it was altered, or belongs to another place, source or repository",
            hint="Run `holdfast check` to see what it touches; restore from another copy of the repository.",
        ) from error
    frames, ids = _parse_toc(what, toc, trailer, len(encoded))
    if len(ids) != (HASH_BYTES * len(frames) if claim.type in PACK_TYPES else 0):
        raise broken(what, "its table of contents has the wrong length")
    return Opener(what, header, cipher, frames, ids)


def _parse_toc(what: str, toc: bytes, trailer: Trailer, start: int) -> tuple[tuple[Frame, ...], bytes]:
    rows_end = 4 + trailer.frames * TOC_ROW.size
    if len(toc) < rows_end or struct.unpack_from("<I", toc)[0] != trailer.frames:
        raise broken(what, "its table of contents has another number of frames than its trailer")
    frames = []
    offset = start
    for counter, (algorithm, zero, zeros, plain, stored) in enumerate(TOC_ROW.iter_unpack(toc[4:rows_end])):
        if zero or zeros:
            raise broken(what, "its table of contents is impossible")
        frames.append(Frame(counter, algorithm, offset, stored, plain))
        offset += stored
    if offset != trailer.toc_offset:
        raise broken(what, "its frames do not fill the space before the table of contents")
    return tuple(frames), toc[rows_end:]


def prove_hash(what: str, data: Data) -> Trailer:
    """Prove by its hash that an object has the bytes that were written, which needs no key; return its trailer."""
    view = memoryview(data)
    trailer = parse_trailer(what, view[-TRAILER.size :], len(view))
    if blake3(view[:-HASH_BYTES]).digest() != trailer.object_hash:
        raise broken(what, "its bytes changed since they were written")
    return trailer


def open_whole(what: str, claim: Claim, keys: Callable[[int], bytes], data: Data) -> Opener:
    """Prove a whole object in memory, hash first; ``keys`` gives the input key of an epoch."""
    view = memoryview(data)
    trailer = prove_hash(what, data)
    header = parse_header(what, view[: HEADER.size + CLEAR_BYTES_MAX])
    sealed = view[trailer.toc_offset : trailer.toc_offset + trailer.toc_length]
    return open_toc(what, claim, keys(header.epoch), header, trailer, sealed)


def read_frames(opener: Opener, data: Data) -> list[bytes]:
    """Return the plain bytes of every frame of a small object in memory."""
    view = memoryview(data)
    return [opener.open(frame, view[frame.offset : frame.offset + frame.stored]) for frame in opener.frames]


def object_hash(data: Data) -> bytes:
    return bytes(memoryview(data)[-HASH_BYTES:])
