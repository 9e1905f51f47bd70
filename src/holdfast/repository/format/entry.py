"""Entries of a history as values and documents (docs/format.md, section 8)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from blake3 import blake3

from holdfast.model.documents import JsonObject, JsonValue, encode_document, format_time, parse_time
from holdfast.repository.format.container import HASH_BYTES, broken
from holdfast.repository.format.keys import FORMAT_LABEL, join
from holdfast.repository.format.log import SPAN_ROW_BYTES, parse_position, parse_span_row, position_text, span_row
from holdfast.repository.format.names import BackupId, PackName, RunId, SpanName

SIGNATURE_BYTES = 64
CONDEMNED_PER_FRAME = 262_144
SPANS_PER_FRAME = 131_072
Facts = tuple[tuple[str, str], ...]
Positions = tuple[tuple[str, int], ...]
"""A position of each of some generations, in order of their ids."""


class EntryKind(StrEnum):
    BACKUP = "backup"
    EXPIRE = "expire"
    HOLD = "hold"
    RELEASE = "release"
    VERIFIED = "verified"
    PRUNE = "prune"
    VOID = "void"
    ADOPT = "adopt"
    CONDEMN = "condemn"
    MARK = "mark"


SIGNED_KINDS = frozenset(
    (EntryKind.EXPIRE, EntryKind.RELEASE, EntryKind.PRUNE, EntryKind.VOID, EntryKind.ADOPT, EntryKind.CONDEMN)
)
"""Kinds that take away: they count only with the signature of an upkeep key."""

LOG_STARTING_KINDS = frozenset((EntryKind.CONDEMN, EntryKind.PRUNE))
"""Kinds that may say where the log of a generation begins; both are signed."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A position of the source under a name. ``position`` is the kind's own document (docs/format.md, section 12)."""

    name: str
    at: datetime
    position: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a prune entry restates, so that entries below it may go. ``live`` are (number, backup) of live backups."""

    live: tuple[tuple[int, BackupId], ...] = ()
    held: tuple[BackupId, ...] = ()
    verified: tuple[BackupId, ...] = ()
    identity: Facts | None = None
    condemned: tuple[PackName, ...] = ()
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One agreed step of an area.

    ``kind`` is None for a kind this program does not know; ``needs`` are words it would have to know. ``backups`` are
    those the entry speaks of; ``record`` is the sealed record of a backup entry, byte for byte. ``counts`` is false for
    an entry whose signature is missing or wrong: it has its place in the chain and no meaning. ``log_ends`` is how far
    each generation of the log was stored; a condemning entry keeps ``spans`` in the place of those within them, and
    ``log_starts`` is where the log of a generation begins from then on.
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
    record: bytes | None = None
    identity: Facts = ()
    checkpoint: Checkpoint = Checkpoint()
    log_ends: Positions = ()
    log_starts: Positions = ()
    spans: tuple[SpanName, ...] = ()
    mark: Mark | None = None
    needs: tuple[str, ...] = ()
    epoch: int = 1
    counts: bool = True


@dataclass(frozen=True, slots=True)
class EntryPlace:
    """Where an entry stands, for its signature."""

    repository: bytes
    area: bytes
    store: bytes
    number: int


def signed_message(place: EntryPlace, frames: list[bytes]) -> bytes:
    """Return what the signature of a removing entry is over; ``frames`` are all but the signature."""
    hashes = [blake3(frame).digest() for frame in frames]
    number = place.number.to_bytes(8, "little")
    return join(FORMAT_LABEL, b"entry", place.repository, place.area, place.store, number, *hashes)


def encode_entry(entry: HistoryEntry) -> list[bytes]:
    """Return the plain frames of an entry, without its signature."""
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
    if entry.log_ends:
        document["log_ends"] = _positions_document(entry.log_ends)
    if entry.log_starts:
        document["log_starts"] = _positions_document(entry.log_starts)
    match entry.kind:
        case EntryKind.BACKUP:
            document["backup"] = entry.backups[0]
            if entry.record is None:
                raise ValueError("a backup entry needs its record")
            frames.append(entry.record)
        case EntryKind.EXPIRE:
            document |= {"backups": list[JsonValue](entry.backups), "reason": entry.reason}
        case EntryKind.HOLD | EntryKind.RELEASE | EntryKind.VOID | EntryKind.VERIFIED:
            document |= {"backup": entry.backups[0], "reason": entry.reason}
        case EntryKind.ADOPT:
            document |= {"identity": {"facts": dict[str, JsonValue](entry.identity)}, "reason": entry.reason}
        case EntryKind.PRUNE:
            document |= _checkpoint_document(entry.checkpoint)
            frames += _batches(entry.checkpoint.condemned, CONDEMNED_PER_FRAME)
        case EntryKind.MARK:
            if entry.mark is None:
                raise ValueError("an entry of a mark needs it")
            document["mark"] = _mark_document(entry.mark)
        case EntryKind.CONDEMN:
            document["reason"] = entry.reason
            frames += _batches([span_row(span) for span in entry.spans], SPANS_PER_FRAME)
    return [encode_document(document), *frames]


def _batches(rows: Sequence[bytes], per_frame: int) -> list[bytes]:
    return [b"".join(rows[start : start + per_frame]) for start in range(0, len(rows), per_frame)]


def _mark_document(mark: Mark) -> JsonObject:
    return {"name": mark.name, "at": format_time(mark.at), "position": mark.position}


def _mark(value: object) -> Mark:
    if not isinstance(value, dict) or not isinstance(value["position"], dict):
        raise TypeError("a mark is none")
    return Mark(str(value["name"]), parse_time(value["at"]), value["position"])


def _positions_document(positions: Positions) -> JsonObject:
    return {generation: position_text(position) for generation, position in positions}


def _positions(value: object) -> Positions:
    if not isinstance(value, dict):
        raise TypeError("positions of generations are none")
    return tuple(sorted((str(generation), parse_position(text)) for generation, text in value.items()))


def _spans(what: str, frames: list[bytes]) -> tuple[SpanName, ...]:
    if any(len(frame) % SPAN_ROW_BYTES for frame in frames):
        raise broken(what, "its list of spans is cut off")
    rows = b"".join(frames)
    return tuple(parse_span_row(rows[at : at + SPAN_ROW_BYTES]) for at in range(0, len(rows), SPAN_ROW_BYTES))


def _checkpoint_document(checkpoint: Checkpoint) -> JsonObject:
    identity: JsonValue = {"facts": dict[str, JsonValue](checkpoint.identity)} if checkpoint.identity else None
    return {
        "live": [[number, backup] for number, backup in checkpoint.live],
        "held": list[JsonValue](checkpoint.held),
        "verified": list[JsonValue](checkpoint.verified),
        "identity": identity,
        **({"marks": [_mark_document(mark) for mark in checkpoint.marks]} if checkpoint.marks else {}),
    }


def parse_entry(what: str, number: int, epoch: int, frames: list[bytes]) -> HistoryEntry:
    """Read the plain frames of entry ``number``; raises ``IntegrityBroken``. The signature is the caller's to prove."""
    try:
        document = json.loads(frames[0])
        kind = EntryKind(document["kind"]) if document["kind"] in EntryKind.__members__.values() else None
        if document["number"] != number:
            raise broken(what, f"it says it is number {document['number']}")
        return HistoryEntry(
            number=number,
            kind=kind,
            previous=bytes.fromhex(document["previous"]) if document["previous"] else None,
            host=str(document["host"]),
            run=RunId(document["run"]),
            at=parse_time(document["at"]),
            store_offset_seconds=document.get("store_offset_seconds"),
            backups=_backups_of(kind, document),
            reason=str(document.get("reason", "")),
            record=frames[1] if kind is EntryKind.BACKUP else None,
            identity=_facts(document["identity"]) if kind is EntryKind.ADOPT else (),
            checkpoint=_checkpoint(what, document, frames[1:-1]) if kind is EntryKind.PRUNE else Checkpoint(),
            log_ends=_positions(document.get("log_ends", {})),
            log_starts=_positions(document.get("log_starts", {})) if kind in LOG_STARTING_KINDS else (),
            spans=_spans(what, frames[1:-1]) if kind is EntryKind.CONDEMN else (),
            mark=_mark(document["mark"]) if kind is EntryKind.MARK else None,
            needs=tuple(str(word) for word in document.get("needs", [])),
            epoch=epoch,
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise broken(what, "it cannot be read") from error


def _facts(identity: dict[str, dict[str, str]]) -> Facts:
    return tuple(sorted((str(key), str(value)) for key, value in identity["facts"].items()))


def _backups_of(kind: EntryKind | None, document: JsonObject) -> tuple[BackupId, ...]:
    match kind:
        case EntryKind.BACKUP | EntryKind.HOLD | EntryKind.RELEASE | EntryKind.VOID | EntryKind.VERIFIED:
            return (BackupId(str(document["backup"])),)
        case EntryKind.EXPIRE:
            return _ids(document["backups"])
        case _:
            return ()


def _ids(value: object) -> tuple[BackupId, ...]:
    if not isinstance(value, list):
        raise TypeError("a list of backups is none")
    return tuple(BackupId(str(item)) for item in value)


def _checkpoint(what: str, document: JsonObject, frames: list[bytes]) -> Checkpoint:
    live = document["live"]
    if not isinstance(live, list) or any(len(frame) % HASH_BYTES for frame in frames):
        raise broken(what, "its lists are cut off")
    condemned = b"".join(frames)
    identity = document["identity"]
    return Checkpoint(
        live=tuple((int(str(row[0])), BackupId(str(row[1]))) for row in live if isinstance(row, list)),
        held=_ids(document["held"]),
        verified=_ids(document["verified"]),
        identity=_facts(identity) if isinstance(identity, dict) else None,  # type: ignore[arg-type]
        condemned=tuple(PackName(condemned[at : at + HASH_BYTES]) for at in range(0, len(condemned), HASH_BYTES)),
        marks=tuple(_mark(mark) for mark in document.get("marks", [])),  # type: ignore[union-attr]
    )
