"""Pages made by a plain reading of PostgreSQL's checksum_impl.h, one at a time: slow, and independent of ours."""

from __future__ import annotations

import struct

PAGE_BYTES = 8192
_MASK = 0xFFFFFFFF
_OFFSETS = (
    0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
    0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
    0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
    0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
)  # fmt: skip


def checksum(page: bytes, block: int) -> int:
    words = struct.unpack("<2048I", page[:8] + b"\0\0" + page[10:])
    sums = list(_OFFSETS)
    for row in range(66):
        for lane in range(32):
            value = words[row * 32 + lane] if row < 64 else 0
            mixed = sums[lane] ^ value
            sums[lane] = (mixed * 16777619 & _MASK) ^ (mixed >> 17)
    folded = block
    for lane_sum in sums:
        folded ^= lane_sum
    return folded % 65535 + 1


def make_page(
    block: int,
    *,
    lsn: int = 0x1000,
    fill: bytes = b"data",
    lower: int = 40,
    upper: int = 4096,
    special: int = 8192,
    flags: int = 0,
    right: bool = True,
) -> bytes:
    """Make one page whose checksum is right, unless asked otherwise."""
    head = struct.pack("<IIHHHHHHI", lsn >> 32, lsn & _MASK, 0, flags, lower, upper, special, 0x2004, 0)
    page = head.ljust(4096, b"\0") + (fill * 4096)[:4096]
    stored = checksum(page, block) if right else checksum(page, block) % 65535 + 1
    return page[:8] + struct.pack("<H", stored) + page[10:]
