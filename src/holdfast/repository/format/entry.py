"""Entries of a history as values and documents (docs/format.md, section 8)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from holdfast.model.documents import JsonObject, encode_document, format_time, parse_time
from holdfast.repository.format.container import HASH_BYTES, broken
from holdfast.repository.format.names import BackupId, PackName, RunId

BACKUPS_PER_ENTRY_MAX = 10_000


class EntryKind(StrEnum):
    BACKUP = "backup"
    EXPIRE = "expire"
    HOLD = "hold"
    RELEASE = "release"
    PRUNE = "prune"
    VOID = "void"
    ADOPT = "adopt"


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One agreed step of an area.

    ``kind`` is None for a kind this program does not know. ``backups`` are those the entry speaks of (for ``prune``
    the live ones); ``record`` is the sealed record of a backup entry, byte for byte.
    """

    number: int
    kind: EntryKind | None
    previous: bytes | None
    host: str
    run: RunId
    at: datetime
    store_offset_seconds: float | None = None
    backups: tuple[BackupId, ...] = ()
    reason: str = ""
    condemned: tuple[PackName, ...] = ()
    record: bytes | None = None
    identity: tuple[tuple[str, str], ...] = field(default=())


def encode_entry(entry: HistoryEntry) -> list[bytes]:
    """Return the plain frames of an entry."""
    if entry.kind is None:
        raise ValueError("an entry of unknown kind cannot be written")
    document: JsonObject = {
        "kind": entry.kind,
        "number": entry.number,
        "previous": entry.previous.hex() if entry.previous else None,
        "host": entry.host,
        "run": entry.run,
        "at": format_time(entry.at),
        "store_offset_seconds": entry.store_offset_seconds,
    }
    frames: list[bytes] = []
    match entry.kind:
        case EntryKind.BACKUP:
            document["backup"] = entry.backups[0]
            if entry.record is None:
                raise ValueError("a backup entry needs its record")
            frames.append(entry.record)
        case EntryKind.EXPIRE:
            document |= {"backups": list(entry.backups), "reason": entry.reason}
        case EntryKind.HOLD | EntryKind.RELEASE | EntryKind.VOID:
            document |= {"backup": entry.backups[0], "reason": entry.reason}
        case EntryKind.PRUNE:
            document["live"] = list(entry.backups)
            frames.append(b"".join(entry.condemned))
        case EntryKind.ADOPT:
            document |= {"identity": {"facts": dict(entry.identity)}, "reason": entry.reason}
    return [encode_document(document), *frames]


def parse_entry(what: str, number: int, frames: list[bytes]) -> HistoryEntry:
    """Read the plain frames of entry ``number``; raises ``IntegrityBroken``."""
    try:
        document = json.loads(frames[0])
        kind = EntryKind(document["kind"]) if document["kind"] in EntryKind.__members__.values() else None
        if document["number"] != number:
            raise broken(what, f"it says it is number {document['number']}")
        previous = bytes.fromhex(document["previous"]) if document["previous"] else None
        return HistoryEntry(
            number=number,
            kind=kind,
            previous=previous,
            host=str(document["host"]),
            run=RunId(document["run"]),
            at=parse_time(document["at"]),
            store_offset_seconds=document.get("store_offset_seconds"),
            backups=_backups_of(kind, document),
            reason=str(document.get("reason", "")),
            condemned=_condemned_of(what, frames[1]) if kind is EntryKind.PRUNE else (),
            record=frames[1] if kind is EntryKind.BACKUP else None,
            identity=tuple(sorted(document["identity"]["facts"].items())) if kind is EntryKind.ADOPT else (),
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise broken(what, "it cannot be read") from error


def _backups_of(kind: EntryKind | None, document: JsonObject) -> tuple[BackupId, ...]:
    match kind:
        case EntryKind.BACKUP | EntryKind.HOLD | EntryKind.RELEASE | EntryKind.VOID:
            return (BackupId(str(document["backup"])),)
        case EntryKind.EXPIRE | EntryKind.PRUNE:
            ids = document["backups" if kind is EntryKind.EXPIRE else "live"]
            if not isinstance(ids, list):
                raise TypeError("a list of backups is none")
            return tuple(BackupId(str(item)) for item in ids)
        case _:
            return ()


def _condemned_of(what: str, plain: bytes) -> tuple[PackName, ...]:
    if len(plain) % HASH_BYTES:
        raise broken(what, "its list of condemned packs is cut off")
    return tuple(PackName(plain[i : i + HASH_BYTES]) for i in range(0, len(plain), HASH_BYTES))
