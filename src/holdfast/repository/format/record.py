"""The record of a backup and its document (docs/format.md, section 7)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from holdfast.model.documents import JsonObject, JsonValue, encode_document, format_time, parse_time
from holdfast.model.errors import IntegrityBroken
from holdfast.repository.format.container import broken
from holdfast.repository.format.lists import ContentRef, parse_ref
from holdfast.repository.format.names import BackupId, RunId

RECORD_BYTES_MAX = 65536
DAMAGE_ROWS_MAX = 50
NOTICES_MAX = 50
TEXT_MAX = 400


@dataclass(frozen=True, slots=True)
class DamageRow:
    path: str
    count: int
    detail: str


@dataclass(frozen=True, slots=True)
class BackupRecord:
    """Everything about one backup except its bytes. Sizes in bytes, times aware UTC."""

    id: BackupId
    application: str
    source: str
    kind: str
    form: str
    tier: str
    parent: BackupId | None
    started_at: datetime
    ended_at: datetime
    run: RunId
    host: str
    program: str
    identity: tuple[tuple[str, str], ...]
    position: str
    details: JsonObject
    tree: ContentRef
    entries: int
    size_bytes: int
    stored_bytes: int
    damage: tuple[DamageRow, ...]
    damage_total: int
    notices: tuple[str, ...]


def refuse_needs(what: str, document: JsonObject) -> None:
    """Refuse a document that only a newer program may act on; raises ``IntegrityBroken``. No word is known yet."""
    if document.get("needs"):
        raise IntegrityBroken(
            f"{what} needs {document['needs']}, which this version of holdfast does not know",
            hint="Use the holdfast release that wrote it, or a newer one.",
        )


def encode_record(record: BackupRecord) -> bytes:
    damage: list[JsonValue] = [
        {"path": row.path[:TEXT_MAX], "count": row.count, "detail": row.detail[:TEXT_MAX]}
        for row in record.damage[:DAMAGE_ROWS_MAX]
    ]
    document: JsonObject = {
        "id": record.id,
        "application": record.application,
        "source": record.source,
        "kind": record.kind,
        "form": record.form,
        "tier": record.tier,
        "parent": record.parent,
        "started_at": format_time(record.started_at),
        "ended_at": format_time(record.ended_at),
        "run": record.run,
        "host": record.host,
        "program": record.program,
        "identity": {"kind": record.kind, "facts": dict(record.identity)},
        "position": record.position,
        "details": record.details,
        "streams": {"tree": record.tree.to_document()},
        "entries": record.entries,
        "size_bytes": record.size_bytes,
        "stored_bytes": record.stored_bytes,
        "damage": damage,
        "damage_total": record.damage_total,
        "notices": [notice[:TEXT_MAX] for notice in record.notices[:NOTICES_MAX]],
    }
    return encode_document(document)


def parse_record(what: str, plain: bytes) -> BackupRecord:
    """Read a record's document; raises ``IntegrityBroken``."""
    try:
        document = json.loads(plain)
        refuse_needs(what, document)
        return BackupRecord(
            id=BackupId(str(document["id"])),
            application=str(document["application"]),
            source=str(document["source"]),
            kind=str(document["kind"]),
            form=str(document["form"]),
            tier=str(document["tier"]),
            parent=BackupId(document["parent"]) if document["parent"] else None,
            started_at=parse_time(document["started_at"]),
            ended_at=parse_time(document["ended_at"]),
            run=RunId(document["run"]),
            host=str(document["host"]),
            program=str(document["program"]),
            identity=tuple(sorted((str(key), str(value)) for key, value in document["identity"]["facts"].items())),
            position=str(document["position"]),
            details=dict(document["details"]),
            tree=parse_ref(what, document["streams"]["tree"]),
            entries=int(document["entries"]),
            size_bytes=int(document["size_bytes"]),
            stored_bytes=int(document["stored_bytes"]),
            damage=tuple(DamageRow(row["path"], int(row["count"]), row["detail"]) for row in document["damage"]),
            damage_total=int(document["damage_total"]),
            notices=tuple(str(notice) for notice in document["notices"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise broken(what, "its record cannot be read") from error
