"""Names and long headers of WAL segments.

Source: PostgreSQL's src/include/access/xlog_internal.h (XLogLongPageHeaderData, XLogFileName).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

HEADER_BYTES = 40
_LONG_HEADER = struct.Struct("<HHIQIxxxxQII")
_LONG_HEADER_FLAG = 0x0002

PAGE_MAGIC = {15: 0xD110, 16: 0xD113, 17: 0xD116, 18: 0xD118}
"""XLOG_PAGE_MAGIC of each major version; it never changes within one."""

_SEGMENT_NAME = re.compile(r"[0-9A-F]{24}")


@dataclass(frozen=True, slots=True)
class SegmentKind:
    """What every segment of one server has in common."""

    major: int
    system_identifier: int
    size_bytes: int


def segment_name(timeline: int, number: int, size_bytes: int) -> str:
    """Return the file name of the segment that begins at ``number * size_bytes``."""
    per_id = 0x1_0000_0000 // size_bytes
    return f"{timeline:08X}{number // per_id:08X}{number % per_id:08X}"


def parse_segment_name(name: str, size_bytes: int) -> tuple[int, int] | None:
    """Return timeline and number of a segment's name, None where it is not one."""
    if not _SEGMENT_NAME.fullmatch(name):
        return None
    per_id = 0x1_0000_0000 // size_bytes
    return int(name[:8], 16), int(name[8:16], 16) * per_id + int(name[16:], 16)


def needed_numbers(start_lsn: int, stop_lsn: int, size_bytes: int) -> range:
    """Return the numbers of the segments that hold every byte in ``[start_lsn, stop_lsn)``."""
    return range(start_lsn // size_bytes, (stop_lsn - 1) // size_bytes + 1)


def header_problem(kind: SegmentKind, name: str, header: bytes) -> str | None:
    """Return what is wrong with the first bytes of segment ``name``, None where they are right."""
    parsed = parse_segment_name(name, kind.size_bytes)
    if parsed is None:
        return "its name is not that of a segment"
    if len(header) < HEADER_BYTES:
        return "it ends within its header"
    timeline, number = parsed
    magic, flags, page_timeline, address, _, identifier, segment_bytes, _ = _LONG_HEADER.unpack_from(header)
    expected_magic = PAGE_MAGIC[kind.major]
    checks = (
        (
            magic == expected_magic and bool(flags & _LONG_HEADER_FLAG),
            f"its page magic is {magic:04X}, not {expected_magic:04X} of PostgreSQL {kind.major}",
        ),
        (
            identifier == kind.system_identifier,
            f"it belongs to the system {identifier}, not to {kind.system_identifier}",
        ),
        (segment_bytes == kind.size_bytes, f"it says {segment_bytes} bytes to a segment, not {kind.size_bytes}"),
        (address == number * kind.size_bytes, f"it holds the log at {address:X}: an old segment under a new name"),
        # A segment begun before a switch of timelines keeps the old one's number in its first page.
        (0 < page_timeline <= timeline, f"it says timeline {page_timeline}, its name {timeline}"),
    )
    return next((problem for right, problem in checks if not right), None)
