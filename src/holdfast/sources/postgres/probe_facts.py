"""Asks a server what doctor wants to know; what the role may not see stays unknown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from holdfast.model.errors import Denied, SourceFailed
from holdfast.sources.postgres.connection import Row, Session
from holdfast.sources.postgres.roles import EXTRAS, FILE_BYTES, Extra

SHOWN = (
    "archive_mode",
    "block_size",
    "data_checksums",
    "data_directory_mode",
    "full_page_writes",
    "max_replication_slots",
    "max_slot_wal_keep_size",
    "max_wal_senders",
    "server_version",
    "wal_level",
    "wal_segment_size",
)
"""Settings that every role may see."""

HIDDEN = ("archive_command", "archive_library", "config_file", "data_directory")
"""Settings for members of pg_read_all_settings (pg_monitor is one)."""

MANAGED = {
    "rds_superuser": "Amazon RDS or Aurora",
    "cloudsqlsuperuser": "Google Cloud SQL",
    "alloydbsuperuser": "Google AlloyDB",
    "azure_pg_admin": "Azure Database for PostgreSQL",
}
"""Roles that only these services make, and the services."""

_ROLE = """
SELECT current_user, rolsuper::int::text, rolreplication::int::text, inet_client_addr()::text,
       (inet_client_addr() IS NULL OR inet_client_addr() <<= inet '127.0.0.0/8' OR inet_client_addr() = inet '::1'
        OR inet_client_addr() = inet_server_addr())::int::text,
       pg_is_in_recovery()::int::text, current_database()
FROM pg_roles WHERE rolname = current_user"""
_ENCRYPTED = "SELECT ssl::int::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
_SENDERS = "SELECT count(*)::text FROM pg_stat_replication"
_SLOTS = "SELECT count(*)::text FROM pg_replication_slots"
_CLOCK = "SELECT extract(epoch FROM clock_timestamp())::text"
_UNLOGGED = "SELECT count(*)::text FROM pg_class WHERE relpersistence = 'u' AND relkind = 'r'"
_MANAGED = "SELECT rolname FROM pg_roles WHERE rolname = ANY (string_to_array($1, ',')) ORDER BY rolname LIMIT 1"
_SYSTEM = "SELECT system_identifier::text FROM pg_control_system()"
_SIZES = """
SELECT coalesce(sum(pg_database_size(oid)), 0)::text, (SELECT count(*) FROM pg_database)::text, count(*)::text
FROM pg_database
WHERE has_database_privilege(oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE')"""
_SPACES = """
SELECT spcname, pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global')
ORDER BY oid"""
_COLLATIONS = """
SELECT datname FROM pg_database
WHERE datallowconn AND datcollversion <> pg_database_collation_actual_version(oid) ORDER BY datname"""
_ARCHIVER = """
SELECT last_failed_wal FROM pg_stat_archiver
WHERE last_failed_time IS NOT NULL AND last_failed_time > coalesce(last_archived_time, '-infinity')"""


@dataclass(frozen=True, slots=True)
class ServerView:
    """What the role sees. None is unknown; ``settings`` lacks what is hidden from it.

    ``client`` is our address as the server sees it, None for its socket. ``clock_offset_seconds`` is exact up to
    ``clock_doubt_seconds``.
    """

    role: str
    superuser: bool
    replication: bool
    client: str | None
    local: bool
    in_recovery: bool
    database: str
    version_num: int
    settings: Mapping[str, str] = field(default_factory=dict)
    encrypted: bool | None = None
    senders_used: int | None = None
    slots_used: int | None = None
    clock_offset_seconds: float | None = None
    clock_doubt_seconds: float = 0.0
    unlogged: int | None = None
    managed: str | None = None
    system_identifier: str | None = None
    size_bytes: int | None = None
    databases_unseen: int = 0
    tablespaces: tuple[tuple[str, str], ...] = ()
    archiver_failed_on: str | None = None
    collations_changed: tuple[str, ...] = ()
    missing: tuple[Extra, ...] = ()
    may_read_files: bool = False


def read_view(session: Session, now: Callable[[], datetime]) -> ServerView | None:
    """Return what the role of an SQL session sees; None where not even itself (then no server answered).

    Must run while no other connection of ours is open: what is used is counted.
    """
    asked = _Asking(session)
    role = asked.row(_ROLE)
    if role is None or role[0] is None:
        return None
    offset, doubt = asked.clock(now)
    sizes = asked.row(_SIZES) or (None, None, None)
    return ServerView(
        role=role[0],
        superuser=role[1] == "1",
        replication=role[2] == "1",
        client=role[3],
        local=role[4] == "1",
        in_recovery=role[5] == "1",
        database=role[6] or "",
        version_num=session.server_version,
        settings=asked.settings(),
        encrypted=None if (encrypted := asked.text(_ENCRYPTED)) is None else encrypted == "1",
        senders_used=asked.number(_SENDERS),
        slots_used=asked.number(_SLOTS),
        clock_offset_seconds=offset,
        clock_doubt_seconds=doubt,
        unlogged=asked.number(_UNLOGGED),
        managed=MANAGED.get(asked.text(_MANAGED, ",".join(MANAGED)) or ""),
        system_identifier=asked.text(_SYSTEM),
        size_bytes=int(sizes[0]) if sizes[0] is not None else None,
        databases_unseen=int(sizes[1] or 0) - int(sizes[2] or 0),
        tablespaces=tuple((str(row[0]), str(row[1])) for row in asked.rows(_SPACES)),
        archiver_failed_on=asked.text(_ARCHIVER),
        collations_changed=tuple(str(row[0]) for row in asked.rows(_COLLATIONS)),
        missing=tuple(extra for extra in EXTRAS if not asked.holds(extra)),
        may_read_files=asked.holds(FILE_BYTES),
    )


def narrow_view(session: Session, role: str) -> ServerView:
    """Return the little that a replication connection tells, where the role may not connect for SQL."""
    return ServerView(
        role=role,
        superuser=False,
        replication=True,
        client=None,
        local=True,
        in_recovery=session.show("in_hot_standby") == "on",
        database="",
        version_num=session.server_version,
        settings=_Asking(session).settings(),
    )


class _Asking:
    """Asks one question after another; one that is refused, or that this version does not know, has no answer."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def rows(self, statement: str, *params: str) -> list[Row]:
        try:
            return self._session.query(statement, params)
        except (Denied, SourceFailed):
            return []

    def row(self, statement: str, *params: str) -> Row | None:
        rows = self.rows(statement, *params)
        return rows[0] if rows else None

    def text(self, statement: str, *params: str) -> str | None:
        row = self.row(statement, *params)
        return row[0] if row else None

    def number(self, statement: str) -> int | None:
        text = self.text(statement)
        return int(text) if text is not None else None

    def holds(self, extra: Extra) -> bool:
        return self.text(f"SELECT ({extra.held_sql})::int::text") == "1"

    def settings(self) -> Mapping[str, str]:
        found = ((name, self._session.show(name)) for name in (*SHOWN, *HIDDEN))
        return {name: value for name, value in found if value is not None}

    def clock(self, now: Callable[[], datetime]) -> tuple[float | None, float]:
        """Return the server's clock minus ours, and how far that may be wrong: half the time of the question."""
        before = now().timestamp()
        text = self.text(_CLOCK)
        after = now().timestamp()
        if text is None:
            return None, 0.0
        return float(text) - (before + after) / 2, (after - before) / 2
