"""Takes the witness of a physical backup: exact facts always, rows of tables at a proved position where that can be."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from psycopg import Error

from holdfast.model.documents import JsonObject, JsonValue
from holdfast.model.errors import Denied, HoldfastError, IntegrityBroken, Interrupted, SourceFailed
from holdfast.sources.postgres.connection import Session, open_sql
from holdfast.sources.postgres.details import format_lsn, parse_lsn
from holdfast.sources.postgres.logical.catalog import Table, read_tables, with_sizes
from holdfast.sources.postgres.logical.snapshot import BEGIN, pinned
from holdfast.sources.postgres.logical.witness import DatabaseWitness, Witness, to_document
from holdfast.sources.postgres.server import ServerFacts
from holdfast.sources.postgres.settings import PostgresSettings
from holdfast.sources.postgres.wal_walk import PAGE_BYTES, Walk
from holdfast.sources.postgres.witnessed.log_part import read_log
from holdfast.sources.postgres.witnessed.placing import Placed, SeenSnapshot, place
from holdfast.sources.postgres.witnessed.tables import Budget, read_tables_in

ATTEMPTS_MAX = 200
DATABASES_MAX = 8
WAIT_SECONDS_MIN = 1.0

_DATABASES = """
SELECT d.oid, d.datname, pg_encoding_to_char(d.encoding), pg_get_userbyid(d.datdba),
       d.datallowconn AND NOT d.datistemplate AND has_database_privilege(d.oid, 'CONNECT')
FROM pg_database d ORDER BY d.datname"""
_READS_ALL = "SELECT pg_has_role(current_user, 'pg_read_all_data', 'USAGE')"

NOT_ALLOWED = "the role may not read tables (GRANT pg_read_all_data)"
STANDBY = "a standby cannot tell where its snapshots lie in the log"
NEVER_PLACED = "commits came too fast to place a snapshot in the log"


@dataclass(frozen=True, slots=True)
class Cluster:
    """What is exact of a backup, and where it lies in the log. ``sizes`` are bytes of files by database oid."""

    server: ServerFacts
    taken_at: datetime
    reserved_lsn: int
    stop_lsn: int
    files: int
    size_bytes: int
    sizes: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Database:
    oid: str
    name: str
    encoding: str
    owner: str
    is_open: bool


@dataclass(slots=True)
class _Known:
    """What the witness tells: ``position`` None where no rows were compared, ``reason`` says why then."""

    databases: list[_Database]
    witnessed: dict[str, DatabaseWitness]
    placed: Placed | None = None
    reason: str = ""


def take_witness(session: Session, settings: PostgresSettings, cluster: Cluster, budget: Budget) -> JsonObject:
    """Return the witness's document (docs/format.md, section 14).

    ``session`` is the replication session of the backup, whose slot still holds the log back. Trouble with rows makes
    them not compared, never the backup a failure; raises ``Interrupted`` only.
    """
    known = _Known([], {})
    try:
        with open_sql(settings) as sql:
            sql.stop_requested = session.stop_requested
            known.databases = [_database(row) for row in sql.query(_DATABASES)]
            if cluster.server.in_recovery:
                known.reason = STANDBY
            elif sql.query(_READS_ALL)[0][0] != "t":
                known.reason = NOT_ALLOWED
            else:
                _compare(session, sql, settings, cluster, known, budget)
    except Interrupted:
        raise
    except HoldfastError as error:
        known.reason = known.reason or error.message
    except (ValueError, LookupError, Error) as error:  # No server answers so; the backup is whole all the same.
        known.reason = known.reason or f"{type(error).__name__}: {error}"
    return _document(cluster, known)


def _database(row: tuple[str | None, ...]) -> _Database:
    oid, name, encoding, owner, is_open = row
    return _Database(oid or "", name or "", encoding or "", owner or "", is_open == "t")


def _compare(
    session: Session, sql: Session, settings: PostgresSettings, cluster: Cluster, known: _Known, budget: Budget
) -> None:
    largest = sorted(known.databases, key=lambda each: -cluster.sizes.get(each.oid, 0))
    chosen = [each for each in largest if each.is_open][:DATABASES_MAX]
    with _sessions(settings, chosen, session) as readers:
        known.placed = _placed_snapshots(session, sql, list(readers.values()), cluster, budget)
        if known.placed is None:
            known.reason = NEVER_PLACED
            return
        chance = random.SystemRandom()
        for each in chosen:
            if each.name in readers:
                reader = readers[each.name]
                tables = read_tables_in(reader, each.encoding, _sized(reader), budget, chance)
                known.witnessed[each.name] = DatabaseWitness(each.name, each.encoding, each.owner, tuple(tables))


@contextmanager
def _sessions(settings: PostgresSettings, chosen: list[_Database], like: Session) -> Iterator[dict[str, Session]]:
    """Connect to the databases; one that refuses is left out."""
    with ExitStack() as stack:
        found: dict[str, Session] = {}
        for each in chosen:
            try:
                session = stack.enter_context(open_sql(settings, each.name))
            except Denied:
                continue
            session.stop_requested = like.stop_requested
            session.query(pinned(session.server_version, each.encoding))
            found[each.name] = session
        yield found


def _placed_snapshots(
    session: Session, sql: Session, readers: list[Session], cluster: Cluster, budget: Budget
) -> Placed | None:
    """Take snapshots in all databases until they are one position of the log, behind the end of the backup."""
    for number in range(ATTEMPTS_MAX):
        if number and budget.left < 0:
            break
        snapshots = []
        for reader in readers:
            reader.query(BEGIN)
        for reader in readers:
            snapshots.append(SeenSnapshot.parse(reader.query("SELECT pg_catalog.pg_current_snapshot()")[0][0] or ""))
        end = parse_lsn(sql.query("SELECT pg_catalog.pg_current_wal_insert_lsn()")[0][0] or "")
        placed = _place(session, snapshots, cluster, end, max(budget.left, WAIT_SECONDS_MIN))
        if placed is not None:
            return placed
        for reader in readers:
            reader.query("ROLLBACK")
    return None


def _place(
    session: Session, snapshots: list[SeenSnapshot], cluster: Cluster, end: int, seconds_max: float
) -> Placed | None:
    segment = cluster.server.wal_segment_size
    end = _without_header(end, segment)
    start = _walk_start(cluster)
    walk = Walk(start, segment, read_log(session, cluster.server.timeline, start, end, seconds_max), end)
    try:
        commits = list(walk)
    except (IntegrityBroken, SourceFailed):
        return None
    if walk.trouble is not None or (walk.last is None and commits):
        return None
    return place(snapshots, commits, cluster.stop_lsn, end)


def _walk_start(cluster: Cluster) -> int:
    """Return the beginning of the segment before that of the backup's end, or as far back as the log is held.

    So far before the end of the backup commits are looked for that were not seen yet when the snapshot was taken.
    """
    segment = cluster.server.wal_segment_size
    last = cluster.stop_lsn - cluster.stop_lsn % segment
    page = -(-cluster.reserved_lsn // PAGE_BYTES) * PAGE_BYTES
    return next((start for start in (last - segment, last) if start >= cluster.reserved_lsn), page)


def _without_header(position: int, segment_bytes: int) -> int:
    """Return where the log's bytes end: at the end of a page the server names the place behind the next header."""
    header = 40 if position % segment_bytes < PAGE_BYTES else 24
    return position - header if position % PAGE_BYTES == header else position


def _sized(reader: Session) -> tuple[Table, ...]:
    tables = read_tables(reader)
    try:
        reader.query("SAVEPOINT sizes; SET LOCAL lock_timeout = '1s'")
        return with_sizes(reader, tables)
    except Interrupted:
        raise
    except HoldfastError:  # One of them is locked by somebody: the order is then that of the catalog.
        reader.query("ROLLBACK TO SAVEPOINT sizes")
        return tables


def _document(cluster: Cluster, known: _Known) -> JsonObject:
    server, placed = cluster.server, known.placed
    databases = tuple(
        known.witnessed.get(each.name, DatabaseWitness(each.name, each.encoding, each.owner))
        for each in known.databases
    )
    sizes: list[JsonValue] = [
        {"oid": int(oid), "name": name, "size_bytes": size}
        for oid, size in sorted(cluster.sizes.items(), key=lambda item: int(item[0]))
        for name in [next((each.name for each in known.databases if each.oid == oid), None)]
    ]
    document = to_document(Witness(cluster.taken_at, server.version, (), databases))
    document["position"] = None if placed is None else format_lsn(placed.position)
    document["timeline"] = server.timeline
    document["commits_since_end"] = None if placed is None else placed.commits_since
    document["reason"] = known.reason
    document["cluster"] = {
        "system_identifier": server.system_identifier,
        "checksums": server.checksums,
        "files": cluster.files,
        "size_bytes": cluster.size_bytes,
        "databases": sizes,
    }
    return document


def without_objects(witness: DatabaseWitness, found: DatabaseWitness) -> DatabaseWitness:
    """Return ``found`` with nothing but the tables of ``witness``: what a physical witness can be compared with."""
    wanted = {(table.schema, table.name) for table in witness.tables}
    tables = tuple(table for table in found.tables if (table.schema, table.name) in wanted)
    return replace(DatabaseWitness(found.name, witness.encoding, witness.owner), tables=tables)
