"""Chooses what of a backup's pg_wal goes into a restored folder: up to the stop position, and not a byte more."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from holdfast.model.errors import IntegrityBroken
from holdfast.sources.postgres.details import BackupDetails, parse_lsn

WAL_FOLDER = "pg_wal"
STATUS_FOLDER = "pg_wal/archive_status"

_SEGMENT = re.compile(r"[0-9A-F]{24}")
_HISTORY = re.compile(r"[0-9A-F]{8}\.history")


@dataclass(frozen=True, slots=True)
class WalChoice:
    """Which files of pg_wal are written, and from which byte on each is zeroed (None: whole).

    ``done`` are the archive status files to make: a server that archives would otherwise archive again, under the
    source's names, what the source archived.
    """

    kept: tuple[tuple[str, int | None], ...]
    done: tuple[str, ...]


def choose_wal(details: BackupDetails, files: Iterable[tuple[str, int]]) -> WalChoice:
    """Choose among ``files`` (names below pg_wal, and sizes).

    What follows the stop position must go: recovery would replay it, into a future the backup does not hold whole.
    Raises ``IntegrityBroken`` where a segment between start and stop is missing or has another size.
    """
    size = details.wal_segment_size
    stop = parse_lsn(details.stop_lsn)
    last = (stop - 1) // size
    zero_from = stop % size or None
    kept: list[tuple[str, int | None]] = []
    present: set[int] = set()
    for name, size_bytes in sorted(files):
        if _HISTORY.fullmatch(name):
            kept.append((name, None))
        elif _SEGMENT.fullmatch(name):
            timeline, number = _segment(name, size)
            if number > last or timeline > details.stop_timeline:
                continue
            if size_bytes != size:
                raise _broken(f"log segment {name} holds {size_bytes} bytes instead of {size}")
            kept.append((name, zero_from if number == last else None))
            if timeline >= details.start_timeline:
                present.add(number)
    _refuse_hole(details, present, last)
    return WalChoice(tuple(kept), tuple(f"{name}.done" for name, _ in kept))


def segment_name(timeline: int, number: int, segment_size: int) -> str:
    """Return the file name of a log segment (XLogFileName)."""
    each = 0x1_0000_0000 // segment_size
    return f"{timeline:08X}{number // each:08X}{number % each:08X}"


def _segment(name: str, segment_size: int) -> tuple[int, int]:
    high, low = int(name[8:16], 16), int(name[16:24], 16)
    return int(name[:8], 16), high * (0x1_0000_0000 // segment_size) + low


def _refuse_hole(details: BackupDetails, present: set[int], last: int) -> None:
    size = details.wal_segment_size
    for number in range(parse_lsn(details.start_lsn) // size, last + 1):
        if number not in present:
            name = segment_name(details.stop_timeline, number, size)
            raise _broken(f"log segment {name} is missing: the backup needs the log from start to stop")


def _broken(message: str) -> IntegrityBroken:
    return IntegrityBroken(message, hint="restore another backup (`holdfast backups`), and run `holdfast check`")
