"""Containers open where they belong and nowhere else, and nothing hostile is believed before it is proved."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest
import zstandard
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.repository.repository_examples import flipped, memory

from holdfast.model.errors import IntegrityBroken, KeyInvalid
from holdfast.repository.area import fetch
from holdfast.repository.format.container import (
    FRAME_AAD,
    FRAMES_MAX,
    HASH_BYTES,
    HEADER,
    PACK_TYPES,
    PLAIN_BYTES_MAX,
    RAW,
    SIZE_MAX,
    TOC_COUNTER,
    TOC_ROW,
    TRAILER,
    TRAILER_MAGIC,
    ZSTD,
    Claim,
    ContainerBuilder,
    DoesNotOpen,
    Frame,
    Header,
    ObjectType,
    Opener,
    compress,
    compress_many,
    open_whole,
    parse_trailer,
    read_frames,
    toc_aad,
)

REPOSITORY = bytes(16)
AREA = bytes([7] * 16)
KEY = bytes([9] * 32)
TYPES = [kind for kind in ObjectType if kind not in (ObjectType.LOG_GENERATION, ObjectType.LOG_SPAN)]


def claim_of(kind: ObjectType) -> Claim:
    return Claim(kind, REPOSITORY, AREA, b"place")


def key_of(epoch: int) -> bytes:
    if epoch != 1:
        raise KeyInvalid(f"no key of epoch {epoch}")
    return KEY


def sealed(kind: ObjectType, frames: list[bytes], clear: bytes = b"{}") -> bytes:
    builder = ContainerBuilder(claim_of(kind), KEY, 1, clear=clear)
    for frame in frames:
        builder.add_plain(frame)
    ids = b"".join(blake3(frame).digest() for frame in frames) if kind in PACK_TYPES else b""
    return bytes(builder.finish(ids)[0])


def opened(kind: ObjectType, data: bytes, claim: Claim | None = None) -> list[bytes]:
    return read_frames(open_whole("it", claim or claim_of(kind), key_of, data), data)


def rehashed(data: bytes | bytearray) -> bytes:
    """Return the object with the hash that its bytes should have: what anybody without a key can do."""
    return bytes(data[:-HASH_BYTES]) + blake3(data[:-HASH_BYTES]).digest()


@given(
    kind=st.sampled_from(TYPES),
    frames=st.lists(st.one_of(st.binary(max_size=300), st.binary(max_size=20).map(lambda b: b * 50)), max_size=6),
    clear=st.binary(max_size=200),
)
@settings(max_examples=60, deadline=None)
def test_what_was_sealed_comes_back(kind: ObjectType, frames: list[bytes], clear: bytes) -> None:
    data = sealed(kind, frames, clear)
    opener = open_whole("it", claim_of(kind), key_of, data)
    assert read_frames(opener, data) == frames
    assert opener.header.clear == clear
    assert opener.header.type is kind
    assert data[-HASH_BYTES:] == blake3(data[:-HASH_BYTES]).digest()


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name.lower())
def test_every_flipped_bit_is_refused(kind: ObjectType) -> None:
    data = sealed(kind, [b"x" * 5, bytes(40)])
    for bit in range(8 * len(data)):
        with pytest.raises(IntegrityBroken):
            opened(kind, flipped(data, bit))


@pytest.mark.parametrize("kind", [ObjectType.HISTORY, ObjectType.DATA_PACK], ids=lambda kind: kind.name.lower())
def test_every_flipped_bit_is_refused_where_the_hash_was_made_to_fit(kind: ObjectType) -> None:
    data = sealed(kind, [b"x" * 5, bytes(40)])
    for bit in range(8 * (len(data) - HASH_BYTES)):
        with pytest.raises((IntegrityBroken, KeyInvalid)):
            opened(kind, rehashed(flipped(data, bit)))


def test_every_truncation_and_any_tail_is_refused() -> None:
    data = sealed(ObjectType.HISTORY, [b"content"])
    for size in range(len(data)):
        for cut in (data[:size], rehashed(data[:size]) if size >= HASH_BYTES else data[:size]):
            with pytest.raises(IntegrityBroken):
                opened(ObjectType.HISTORY, cut)
    for longer in (data + b"\0", b"\0" + data, rehashed(data + bytes(40)), data + data):
        with pytest.raises(IntegrityBroken):
            opened(ObjectType.HISTORY, longer)


def test_swapped_frames_are_refused_although_each_is_sound() -> None:
    data = bytearray(sealed(ObjectType.HISTORY, [b"a" * 30, b"b" * 30]))
    first, second = open_whole("it", claim_of(ObjectType.HISTORY), key_of, bytes(data)).frames
    assert first.stored == second.stored
    end = first.offset + first.stored
    data[first.offset : end], data[second.offset : end + second.stored] = (
        data[second.offset : end + second.stored],
        data[first.offset : end],
    )
    with pytest.raises(IntegrityBroken, match="frame 0 does not open"):
        opened(ObjectType.HISTORY, rehashed(data))


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name.lower())
def test_an_object_opens_under_its_own_claim_only(kind: ObjectType) -> None:
    data = sealed(kind, [b"content"])
    claim = claim_of(kind)
    others = [
        replace(claim, repository=bytes([1] * 16)),
        replace(claim, area=bytes([8] * 16)),
        replace(claim, area=b""),
        replace(claim, claim=b"elsewhere"),
        replace(claim, claim=b""),
        # Parts must not run into each other.
        replace(claim, area=AREA + b"pl", claim=b"ace"),
    ]
    for other in others:
        with pytest.raises(DoesNotOpen):
            opened(kind, data, other)
    for wrong in TYPES:
        if wrong is not kind:
            with pytest.raises(IntegrityBroken, match="stands where"):
                opened(kind, data, replace(claim, type=wrong))
    with pytest.raises(DoesNotOpen):
        open_whole("it", claim, lambda _: bytes(32), data)


def test_another_epoch_in_the_header_is_refused() -> None:
    data = bytearray(sealed(ObjectType.HISTORY, [b"content"]))
    data[12] = 2
    with pytest.raises(KeyInvalid):
        opened(ObjectType.HISTORY, rehashed(data))
    with pytest.raises(DoesNotOpen):
        open_whole("it", claim_of(ObjectType.HISTORY), lambda _: KEY, rehashed(data))


def test_another_format_version_is_named() -> None:
    data = bytearray(sealed(ObjectType.HISTORY, [b"content"]))
    data[8] = 2
    with pytest.raises(IntegrityBroken, match="format version 2; this program reads version 1"):
        opened(ObjectType.HISTORY, rehashed(data))


def crafted(rows: list[tuple[int, int, int, int, int]], body: bytes = b"", count: int | None = None) -> bytes:
    """Return an object whose table of contents says what it likes, sealed by somebody who has the key."""
    salt = bytes(32)
    claim = claim_of(ObjectType.HISTORY)
    header = Header(ObjectType.HISTORY, 1, salt, b"").encode()
    cipher = claim.cipher(KEY, salt)
    frames = len(rows) if count is None else count
    toc = struct.pack("<I", frames) + b"".join(TOC_ROW.pack(*row) for row in rows)
    end = len(header) + len(body)
    sealed_toc = cipher.encrypt(struct.pack("<IQ", 0, TOC_COUNTER), toc, toc_aad(len(toc), header, end, frames))
    trailer = TRAILER.pack(end, len(sealed_toc), frames, TRAILER_MAGIC, bytes(8), bytes(32))
    return rehashed(header + body + sealed_toc + trailer)


def crafted_frame(algorithm: int, payload: bytes, plain_length: int) -> bytes:
    """Return an object of one frame that tells a plain length of its own."""
    cipher = claim_of(ObjectType.HISTORY).cipher(KEY, bytes(32))
    aad = FRAME_AAD.pack(0, algorithm, plain_length)
    body = cipher.encrypt(struct.pack("<IQ", 0, 0), payload, aad)
    return crafted([(algorithm, 0, 0, plain_length, len(body))], body)


def peak_of(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityBroken):
            work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_what_the_crafting_of_this_file_makes_opens_where_it_is_honest() -> None:
    assert opened(ObjectType.HISTORY, crafted_frame(RAW, b"honest", 6)) == [b"honest"]
    assert opened(ObjectType.HISTORY, crafted_frame(ZSTD, zstandard.compress(b"honest" * 9), 54)) == [b"honest" * 9]


def lying_frames() -> list[bytes]:
    mebibyte = zstandard.compress(bytes(1 << 20))
    return [
        crafted_frame(RAW, b"four", 5),
        crafted_frame(RAW, b"four", 3),
        crafted_frame(RAW, b"four", PLAIN_BYTES_MAX + 1),
        crafted_frame(RAW, b"four", 0xFFFFFFFF),
        crafted_frame(ZSTD, mebibyte, (1 << 20) - 1),
        crafted_frame(ZSTD, mebibyte, 16),
        crafted_frame(ZSTD, b"not zstd at all", 15),
        crafted_frame(ZSTD, mebibyte[:-5], 1 << 20),
        crafted_frame(2, b"algorithm", 9),
    ]


def test_frames_that_lie_about_their_length_are_refused() -> None:
    for data in lying_frames():
        with pytest.raises(IntegrityBroken):
            opened(ObjectType.HISTORY, data)


def test_a_zstd_bomb_is_refused_before_anything_is_allocated_for_it() -> None:
    bomb = zstandard.ZstdCompressor(level=3, write_content_size=True).compress(bytes(512 << 20))
    for told in (16, PLAIN_BYTES_MAX):
        data = crafted_frame(ZSTD, bomb, told)
        assert peak_of(lambda data=data: opened(ObjectType.HISTORY, data)) < 4 << 20  # type: ignore[misc]
    silent = zstandard.ZstdCompressor(level=3, write_content_size=False).compress(bytes(64 << 20))
    assert peak_of(lambda: opened(ObjectType.HISTORY, crafted_frame(ZSTD, silent, 16))) < 4 << 20


@pytest.mark.parametrize(
    ("offset", "length", "frames"),
    [
        (64, 0xFFFFFFFF, 1),
        (0xFFFFFFFFFFFFFFFF, 100, 1),
        (0xFFFFFFFFFFFFFFFF - 163, 100, 1),
        (0, 0, FRAMES_MAX + 1),
        (0, 0, 0xFFFFFFFF),
        (1000, 0, 0),
    ],
)
def test_a_trailer_of_hostile_sizes_is_refused(offset: int, length: int, frames: int) -> None:
    tail = TRAILER.pack(offset, length, frames, TRAILER_MAGIC, bytes(8), bytes(32))
    with pytest.raises(IntegrityBroken):
        parse_trailer("it", tail, 300)


def test_a_table_of_contents_that_does_not_fill_the_object_is_refused() -> None:
    for rows, count in [
        ([(0, 0, 0, 10, 26)], None),
        ([], 3),
        ([(0, 0, 0, 1, 17)] * 2, 1),
    ]:
        with pytest.raises(IntegrityBroken):
            opened(ObjectType.HISTORY, crafted(rows, b"x" * 17, count))


@pytest.mark.parametrize("row", [(0, 1, 0, 1, 17), (0, 0, 1, 1, 17)])
def test_bytes_of_a_table_of_contents_that_should_be_zero_are_refused_where_they_are_not(
    row: tuple[int, int, int, int, int],
) -> None:
    cipher = claim_of(ObjectType.HISTORY).cipher(KEY, bytes(32))
    body = cipher.encrypt(struct.pack("<IQ", 0, 0), b"1", FRAME_AAD.pack(0, RAW, 1))
    assert opened(ObjectType.HISTORY, crafted([(0, 0, 0, 1, 17)], body)) == [b"1"]
    with pytest.raises(IntegrityBroken):
        opened(ObjectType.HISTORY, crafted([row], body))


def test_an_object_larger_than_its_type_may_be_is_not_fetched_whole() -> None:
    store = memory()
    store.create("identity", bytes(SIZE_MAX[ObjectType.IDENTITY] + 5000))
    with pytest.raises(IntegrityBroken, match="larger than"):
        fetch(store, "the identity", ObjectType.IDENTITY, "identity")


def test_a_frame_of_another_length_than_its_row_is_refused() -> None:
    data = sealed(ObjectType.HISTORY, [b"content"])
    opener: Opener = open_whole("it", claim_of(ObjectType.HISTORY), key_of, data)
    frame = opener.frames[0]
    assert isinstance(frame, Frame)
    for sealed_bytes in (b"", data[frame.offset : frame.offset + frame.stored - 1], bytes(frame.stored + 1)):
        with pytest.raises(IntegrityBroken, match="impossible length"):
            opener.open(frame, sealed_bytes)


def test_a_builder_takes_no_frame_beyond_the_bounds() -> None:
    builder = ContainerBuilder(claim_of(ObjectType.HISTORY), KEY, 1)
    with pytest.raises(ValueError, match="does not fit"):
        builder.add(RAW, b"x", PLAIN_BYTES_MAX + 1)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 4096])
def test_a_builder_grows_as_needed(size: int) -> None:
    builder = ContainerBuilder(claim_of(ObjectType.HISTORY), KEY, 1, capacity=1)
    content = [bytes([number]) * size for number in range(20)]
    for plain in content:
        builder.add_plain(plain)
    data = bytes(builder.finish()[0])
    assert opened(ObjectType.HISTORY, data) == content


def test_bytes_that_do_not_become_smaller_are_stored_as_they_are() -> None:
    noise = blake3(b"noise").digest(length=5000)
    assert compress(noise, 3) == (RAW, noise)
    assert compress(bytes(5000), 3)[0] == ZSTD
    assert compress(b"", 3)[0] == RAW


def test_the_header_is_as_long_as_the_format_says() -> None:
    assert (HEADER.size, TRAILER.size, TOC_ROW.size) == (64, 64, 12)


def test_many_chunks_compressed_together_are_what_each_gives_alone() -> None:
    chance = random.Random(7)
    plains = [bytes(131072), chance.randbytes(131072), b"abc" * 43690 + b"ab", b"x" * 9, chance.randbytes(40), b"y" * 9]
    assert compress_many(plains, 3) == [compress(plain, 3) for plain in plains]
    assert compress_many([], 3) == []
