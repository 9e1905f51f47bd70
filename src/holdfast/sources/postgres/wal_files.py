"""The files of a log as archive_command and restore_command name them, and whether one is what its name says.

Source: PostgreSQL's src/include/access/xlog_internal.h (IsXLogFileName and its like).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from enum import StrEnum

from holdfast.model.errors import Conflict, SourceFailed
from holdfast.model.logs import Stretch
from holdfast.sources.postgres.details import WAL_SEGMENT_SIZES
from holdfast.sources.postgres.wal_segments import HEADER_BYTES, PAGE_MAGIC, SegmentKind, header_problem

SYSTEM_IDENTIFIER_BYTES = 8
_NAME = re.compile(r"([0-9A-F]{8})(?:([0-9A-F]{8})([0-9A-F]{8})(\.partial|\.[0-9A-F]{8}\.backup)?|\.history)")
_LONG_HEADER = struct.Struct("<HHIQIxxxxQII")
_MAJORS = {magic: major for major, magic in PAGE_MAGIC.items()}


class WalFileKind(StrEnum):
    """What a file of the log is."""

    SEGMENT = "segment"
    PARTIAL = "partial segment"
    HISTORY = "history"
    BACKUP = "backup label"


@dataclass(frozen=True, slots=True)
class WalFileName:
    """A file of the log, by its name alone. ``high`` and ``low`` are the number's halves, 0 for a history."""

    kind: WalFileKind
    timeline: int
    high: int = 0
    low: int = 0

    def stretch(self, segment_bytes: int) -> Stretch | None:
        """Return the positions of a segment of that size; None for a number that such segments cannot have."""
        per_id = 0x1_0000_0000 // segment_bytes
        if self.low >= per_id:
            return None
        start = (self.high * per_id + self.low) * segment_bytes
        return Stretch(start, start + segment_bytes)

    def segment_name(self) -> str:
        """Return the name of the segment itself."""
        return f"{self.timeline:08X}{self.high:08X}{self.low:08X}"


def parse_wal_name(name: str) -> WalFileName | None:
    """Return what a name says; None for one that is none of the log's. All its numbers are hexadecimal."""
    match = _NAME.fullmatch(name)
    if match is None or int(match[1], 16) == 0:
        return None
    timeline = int(match[1], 16)
    if match[2] is None:
        return WalFileName(WalFileKind.HISTORY, timeline)
    kind = WalFileKind.SEGMENT
    if match[4]:
        kind = WalFileKind.PARTIAL if match[4] == ".partial" else WalFileKind.BACKUP
    return WalFileName(kind, timeline, int(match[2], 16), int(match[3], 16))


@dataclass(frozen=True, slots=True)
class SegmentFacts:
    """What the first page of a segment says."""

    system_identifier: str
    major: int
    segment_bytes: int
    stretch: Stretch


def check_segment(name: WalFileName, header: bytes, size_bytes: int) -> SegmentFacts:
    """Return what a segment is, from its first bytes and the file's size. Raises ``SourceFailed`` where it is none.

    Half a segment, an old one under a new name, another server's format: none of them is accepted.
    """
    title = name.segment_name()
    if len(header) < HEADER_BYTES:
        raise _unsound(title, "it ends within its header")
    magic, *_, identifier, segment_bytes, _ = _LONG_HEADER.unpack_from(header)
    major = _MAJORS.get(magic)
    if major is None:
        raise _unsound(title, f"its page magic is {magic:04X}, which no PostgreSQL from 15 to 18 writes")
    if segment_bytes not in WAL_SEGMENT_SIZES:
        raise _unsound(title, f"it says {segment_bytes} bytes to a segment")
    stretch = name.stretch(segment_bytes)
    problem = header_problem(SegmentKind(major, identifier, segment_bytes), title, header)
    if problem is not None or stretch is None:
        raise _unsound(title, problem or f"segments of {segment_bytes} bytes have no such number")
    if size_bytes != segment_bytes:
        raise _unsound(title, f"the file has {size_bytes} bytes, a segment {segment_bytes}")
    return SegmentFacts(str(identifier), major, segment_bytes, stretch)


def read_system_identifier(control: bytes) -> str | None:
    """Return the system identifier that begins a server's ``global/pg_control``; None where it is too short."""
    if len(control) < SYSTEM_IDENTIFIER_BYTES:
        return None
    return str(int.from_bytes(control[:SYSTEM_IDENTIFIER_BYTES], "little"))


def refuse_other_system(source: str, expected: str | None, found: str) -> None:
    """Raise ``Conflict`` where a file belongs to another system than the source's."""
    if expected is not None and expected != found:
        raise Conflict(
            f"the file is of system {found}, source {source} is of system {expected}",
            hint="A copy of the server, or another one, archives here: give it a source of its own. After pg_upgrade "
            f"or for a new cluster: holdfast adopt {source}.",
        )


def _unsound(title: str, why: str) -> SourceFailed:
    return SourceFailed(
        f"segment {title} is not accepted: {why}",
        hint="The server offers it again; if it stays so, look at its disk and at what writes into pg_wal.",
    )
