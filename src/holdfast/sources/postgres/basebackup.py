"""The BASE_BACKUP command as a client sees it: from the options to its stream of archives and manifest.

Source: PostgreSQL's documentation, "Streaming Replication Protocol", BASE_BACKUP (the framing of 15 and later).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from psycopg import pq

from holdfast.model.errors import SourceFailed
from holdfast.sources.postgres.connection import Row, Session, result_rows
from holdfast.sources.postgres.details import Tablespace, parse_lsn
from holdfast.sources.postgres.failures import DATA_CORRUPTED, failed, primary_message, sqlstate
from holdfast.sources.postgres.settings import Checkpoint, PostgresSettings

LABEL_BYTES_MAX = 200
"""The server allows 1024; a label longer than this tells nobody more."""

NOTICES_MAX = 10_000
"""Warnings of the server kept from one backup; those beyond are counted only."""

DOING = "base backup"

_NEW_ARCHIVE, _DATA, _PROGRESS, _MANIFEST = b"ndpm"


@dataclass(frozen=True, slots=True)
class BackupStart:
    """What the server tells before the first byte."""

    lsn: int
    timeline: int
    tablespaces: tuple[Tablespace, ...]
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class BackupEnd:
    """What the server tells after the last byte. ``corruption`` holds its words if it found checksums wrong."""

    lsn: int
    timeline: int
    corruption: str | None
    warnings: tuple[str, ...]


class Receiver(Protocol):
    """Where the stream goes, in the order of arrival: begin, then archives with their data, then the manifest."""

    def begin(self, start: BackupStart) -> None:
        """Take the facts of the start."""
        ...

    def archive(self, name: str) -> None:
        """An archive begins, ``base.tar`` or ``<oid>.tar``; the one before is complete."""
        ...

    def data(self, piece: memoryview) -> None:
        """Take the next bytes of the archive; good only during the call."""
        ...

    def manifest(self) -> None:
        """The manifest begins; the last archive is complete."""
        ...

    def manifest_data(self, piece: memoryview) -> None:
        """Take the next bytes of the manifest; good only during the call."""
        ...


@dataclass(slots=True)
class ServerWarnings:
    """Collects the server's warnings, in a bounded list."""

    messages: list[str] = field(default_factory=list)
    beyond: int = 0

    def __call__(self, notice: pq.abc.PGresult) -> None:
        """Take one notice; those milder than a warning are passed over."""
        if notice.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED) != b"WARNING":
            return
        if len(self.messages) < NOTICES_MAX:
            self.messages.append(primary_message(notice))
        else:
            self.beyond += 1


def compose_command(settings: PostgresSettings, label: str) -> str:
    """Return the command. TABLESPACE_MAP is left out on purpose.

    Without it base.tar carries the tablespaces' links, as pg_basebackup's plain format wants them, and the manifest
    names no ``tablespace_map``: a restored folder passes pg_verifybackup, and links are placed by the restore.
    """
    text = label.encode("ascii", "replace")[:LABEL_BYTES_MAX].decode().replace("'", "''")
    options = [
        f"LABEL '{text}'",
        "PROGRESS",
        f"CHECKPOINT '{'fast' if settings.checkpoint is Checkpoint.FAST else 'spread'}'",
        "WAL",
        "WAIT false",
        "MANIFEST 'yes'",
        f"VERIFY_CHECKSUMS {'true' if settings.verify_checksums else 'false'}",
    ]
    if settings.max_rate_kib is not None:
        options.append(f"MAX_RATE {settings.max_rate_kib}")
    return f"BASE_BACKUP ({', '.join(options)})"


def run_base_backup(session: Session, settings: PostgresSettings, label: str, receiver: Receiver) -> BackupEnd:
    """Run a whole base backup, on the thread that owns the session. On any error the command is cancelled.

    Checksum failures that the server found are no error here: everything arrived before it told them.
    """
    warnings = ServerWarnings()
    session.on_notice(warnings)
    finished = False
    try:
        session.send(compose_command(settings, label))
        receiver.begin(_read_start(session, settings))
        _stream(session, settings, receiver)
        end = _read_end(session, settings, warnings)
        finished = True
        return end
    finally:
        if not finished:
            session.cancel()


def _read_start(session: Session, settings: PostgresSettings) -> BackupStart:
    lsn, timeline = _position(_rows(session, settings.checkpoint_seconds_max, "waiting for the checkpoint"))
    spaces = _rows(session, settings.silence_seconds_max, DOING)
    sizes = [int(kibibytes) * 1024 for _, _, kibibytes in spaces if kibibytes is not None]
    tablespaces = tuple(
        Tablespace(int(oid), location or "", None if kibibytes is None else int(kibibytes) * 1024)
        for oid, location, kibibytes in spaces
        if oid is not None
    )
    result = session.next_result(settings.silence_seconds_max, DOING)
    if result is None or result.status != pq.ExecStatus.COPY_OUT:
        raise _unexpected(result, "the archives")
    return BackupStart(lsn, timeline, tablespaces, sum(sizes) if sizes else None)


def _stream(session: Session, settings: PostgresSettings, receiver: Receiver) -> None:
    in_manifest = False
    for message in session.copy_messages(settings.silence_seconds_max):
        kind = message[0]
        if kind == _DATA:
            if in_manifest:
                receiver.manifest_data(message[1:])
            else:
                receiver.data(message[1:])
        elif kind == _NEW_ARCHIVE:
            receiver.archive(bytes(message[1:]).split(b"\0", 1)[0].decode("utf-8", "surrogateescape"))
        elif kind == _MANIFEST:
            in_manifest = True
            receiver.manifest()
        elif kind != _PROGRESS:
            raise SourceFailed(f"base backup: message of unknown type {kind:#x}", hint="Is there a proxy in between?")
    if not in_manifest:
        result = session.next_result(settings.silence_seconds_max, DOING)
        raise _unexpected(result, "the manifest")


def _read_end(session: Session, settings: PostgresSettings, warnings: ServerWarnings) -> BackupEnd:
    position: tuple[int, int] | None = None
    corruption: str | None = None
    while (result := session.next_result(settings.silence_seconds_max, DOING)) is not None:
        if result.status == pq.ExecStatus.TUPLES_OK:
            position = _position(result_rows(result))
        elif result.status == pq.ExecStatus.FATAL_ERROR:
            # Only once the end position arrived is the backup whole; before it the same code is a failure.
            if position is None or sqlstate(result) != DATA_CORRUPTED:
                raise failed(result, DOING)
            corruption = primary_message(result)
    if position is None:
        raise _unexpected(None, "the end position")
    beyond = (f"{warnings.beyond} more warnings were not kept",) if warnings.beyond else ()
    return BackupEnd(*position, corruption, (*warnings.messages, *beyond))


def _rows(session: Session, seconds_max: float, doing: str) -> list[Row]:
    result = session.next_result(seconds_max, doing)
    if result is None or result.status != pq.ExecStatus.TUPLES_OK:
        raise _unexpected(result, doing)
    return result_rows(result)


def _position(rows: Sequence[Row]) -> tuple[int, int]:
    match rows:
        case [(str() as lsn, str() as timeline, *_)] if timeline.isdigit():
            with suppress(ValueError):
                return parse_lsn(lsn), int(timeline)
    raise SourceFailed("base backup: the server told no position", hint="Is there a proxy in between?")


def _unexpected(result: pq.abc.PGresult | None, wanted: str) -> Exception:
    if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
        return failed(result, DOING)
    return SourceFailed(f"base backup: the server ended before {wanted}", hint="Read the server's log at this time.")
