"""Takes the position of a server under a name: a restore point in its log where it lets us, its place there always."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from holdfast.model.documents import JsonObject
from holdfast.model.errors import Denied, HoldfastError, SourceFailed, Unavailable
from holdfast.sources.postgres.connection import Session, open_replication, open_sql
from holdfast.sources.postgres.details import format_lsn, parse_lsn
from holdfast.sources.postgres.server import read_server
from holdfast.sources.postgres.settings import PostgresSettings

PREFIX = "holdfast:"
_GRANT = "GRANT EXECUTE ON FUNCTION pg_create_restore_point(text) TO the role"


@dataclass(frozen=True, slots=True)
class MarkPosition:
    """Where a mark lies: all that was committed before it has its record before ``lsn``.

    ``at`` is the server's clock, ``restore_point`` its name in the log. Where that is None, ``notice`` tells why.
    """

    system_identifier: str
    timeline: int
    lsn: int
    at: datetime | None
    restore_point: str | None
    notice: str | None

    def to_document(self) -> JsonObject:
        """Return the document that a history entry keeps."""
        return {
            "kind": "postgres",
            "system_identifier": self.system_identifier,
            "timeline": self.timeline,
            "lsn": format_lsn(self.lsn),
            "restore_point": self.restore_point,
        }


def take_mark(settings: PostgresSettings, token: str) -> MarkPosition:
    """Take the position now; ``token`` makes the restore point's name unique.

    Raises ``Denied``, ``Unavailable`` or ``SourceFailed``. Nothing waits for the log to be stored.
    """
    with open_replication(settings) as session:
        server = read_server(session)
    try:
        sql = open_sql(settings)
    except Denied as error:
        if server.in_recovery:
            raise
        notice = f"no restore point in the server's log: {error.message}"
        return MarkPosition(server.system_identifier, server.timeline, server.position, None, None, notice)
    with sql:
        at = _time(sql)
        if server.in_recovery:
            position = _position(sql, "pg_catalog.pg_last_wal_replay_lsn()")
            notice = "no restore point in the server's log: a standby makes none"
            return MarkPosition(server.system_identifier, server.timeline, position, at, None, notice)
        name = f"{PREFIX}{token}"
        try:
            rows = sql.query("SELECT pg_catalog.pg_create_restore_point($1)::text", (name,))
        except Unavailable:
            raise
        except HoldfastError as error:
            position = _position(sql, "pg_catalog.pg_current_wal_insert_lsn()")
            notice = f"no restore point in the server's log ({error.message}): {_GRANT}"
            return MarkPosition(server.system_identifier, server.timeline, position, at, None, notice)
        return MarkPosition(server.system_identifier, server.timeline, _parsed(rows), at, name, None)


def _time(session: Session) -> datetime | None:
    rows = session.query("SELECT extract(epoch FROM pg_catalog.clock_timestamp())::text")
    return datetime.fromtimestamp(float(rows[0][0]), UTC) if rows and rows[0][0] else None


def _position(session: Session, function: str) -> int:
    return _parsed(session.query(f"SELECT {function}::text"))


def _parsed(rows: list[tuple[str | None, ...]]) -> int:
    match rows:
        case [(str() as text,)]:
            return parse_lsn(text)
        case _:
            raise SourceFailed(
                "the server does not tell where its log is", hint="Is there a proxy in between? Connect directly."
            )
