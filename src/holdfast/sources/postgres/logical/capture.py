"""One PostgreSQL cluster, captured by meaning: schema by pg_dump, rows by COPY, all in one snapshot a database."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from holdfast.model.documents import JsonValue, encode_document, format_time
from holdfast.model.errors import ConfigInvalid, Denied, HoldfastError, Interrupted, SourceFailed
from holdfast.sources.port import Captured, CaptureRequest, Entry, Identity, Probe, StreamSink
from holdfast.sources.postgres.connection import Session, open_sql
from holdfast.sources.postgres.logical import names
from holdfast.sources.postgres.logical.catalog import DatabaseFacts, Table, has_large_objects, read_facts, read_roles
from holdfast.sources.postgres.logical.children import Child, ClientAccess, run_child
from holdfast.sources.postgres.logical.names import Selection, dotted, quote_identifier, quote_literal
from holdfast.sources.postgres.logical.readers import Reader, Tools, open_readers, reading, reading_table
from holdfast.sources.postgres.logical.rows import SCRIPT_END, Counting, copy_out, pour, script_header
from holdfast.sources.postgres.logical.snapshot import (
    FOLLOW_SECONDS_MAX,
    Snapshot,
    TableMovedError,
    client_encoding,
    hold_snapshot,
)
from holdfast.sources.postgres.logical.tools import ClientPrograms, clients_for
from holdfast.sources.postgres.logical.witness import (
    NEVER_FILLED,
    VIEW,
    DatabaseWitness,
    How,
    TableWitness,
    Witness,
    to_document,
)
from holdfast.sources.postgres.server import KIND, require_same_system, require_supported
from holdfast.sources.postgres.settings import PostgresSettings, parse_dsn

POOLER_HINT = (
    "A pooler (PgBouncer or the like) stands between: a snapshot is shared by several connections, which it cannot "
    "keep together. Name the host and port of PostgreSQL itself."
)


UNLOGGED = "unlogged, on a standby"
NO_IDENTIFIER = "the role may not ask for the system identifier (pg_control_system): {} is taken for the same server"


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class LogicalServer:
    """A server as a logical capture sees it. ``system_identifier`` is empty where the role may not ask for it.

    ``address`` is then what tells it from others: the one that the operator wrote, which outlives a failover.
    """

    version_num: int
    version: str
    system_identifier: str
    in_recovery: bool
    sees_passwords: bool
    address: str

    @property
    def major(self) -> int:
        """The major version."""
        return self.version_num // 10000

    @property
    def identity(self) -> Identity:
        """The same facts as a physical backup's, where the server tells them."""
        which = ("system_identifier", self.system_identifier) if self.system_identifier else ("address", self.address)
        return Identity(KIND, (which, ("major_version", str(self.major))))


@dataclass(slots=True)
class _Work:
    """What one capture shares among its steps."""

    settings: PostgresSettings
    server: LogicalServer
    programs: ClientPrograms
    access: ClientAccess
    sink: StreamSink
    stop_requested: Callable[[], bool]
    notices: list[str] = field(default_factory=list)
    failed: threading.Event = field(default_factory=threading.Event)

    def stopped(self) -> bool:
        return self.failed.is_set() or self.stop_requested()

    @property
    def tools(self) -> Tools:
        return Tools(self.programs, self.access, self.stopped)


@dataclass(frozen=True, slots=True)
class _Joined:
    """Everybody who reads one snapshot, each with its locks."""

    readers: tuple[Reader, ...]
    schema: Child
    large_objects: Child | None


_CHANGED = re.compile(
    r"(lock|statement) timeout|cache lookup failed|could not open relation|does not exist|returned no (data|rows)|"
    r"was concurrently",
    re.IGNORECASE,
)
"""What pg_dump says where something it saw in the snapshot's catalogs was locked or dropped meanwhile."""


class LogicalSource:
    """A cluster read through SQL by PostgreSQL's own programs; needs a role that reads every table.

    ``selection`` takes a part only. ``between`` is for tests: called between a snapshot and the locks on its tables.
    """

    def __init__(
        self,
        name: str,
        settings: PostgresSettings,
        selection: Selection | None = None,
        *,
        now: Callable[[], datetime] = _utc_now,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self._name = name
        self._settings = settings
        self._selection = selection
        self._now = now
        self._between = between

    @property
    def kind(self) -> str:
        """The word for it."""
        return KIND

    def probe(self) -> Probe:
        """Look, change nothing."""
        from holdfast.sources.postgres.logical.probe import probe_logical

        return probe_logical(self._settings)

    def capture(self, request: CaptureRequest, sink: StreamSink) -> Captured:
        """Write roles, schemas, rows and the witness into ``sink``. Raises as the contract says."""
        started_at = self._now()
        with open_sql(self._settings) as session:
            session.stop_requested = request.stop_requested
            require_direct(session)
            require_supported(session.server_version)
            server = read_logical_server(session, self._settings)
            require_same_system(self._name, request.expected, server.identity)
            databases = self._databases(session)
            roles = read_roles(session)
            programs = clients_for(server.major, named=self._settings.programs)
            sink.expect(_size(session, databases))
            with ClientAccess(session, _password(self._settings)) as access:
                work = _Work(self._settings, server, programs, access, sink, request.stop_requested)
                if not server.system_identifier:
                    work.notices.append(NO_IDENTIFIER.format(server.address))
                _globals(work, session.query("SELECT pg_catalog.current_database()")[0][0] or "postgres")
                witnesses = [self._database(work, database) for database in databases]
        witness = Witness(started_at, server.version, roles, tuple(witnesses))
        _put(sink, names.WITNESS, encode_document(to_document(witness)))
        return self._captured(work, witness, started_at)

    def _databases(self, session: Session) -> list[str]:
        rows = session.query(
            "SELECT datname FROM pg_catalog.pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname"
        )
        there = [name for (name,) in rows if name is not None]
        wanted = [self._selection.database] if self._selection else list(self._settings.databases)
        missing = [name for name in wanted if name not in there]
        if missing:
            raise ConfigInvalid(
                f"the server has no database {', '.join(missing)}", hint=f"It has {', '.join(there) or 'none'}."
            )
        return wanted or there

    def _wanted(self, table: Table) -> bool:
        chosen = self._selection
        if chosen is None:
            return True
        return chosen.schema in (None, table.schema) and chosen.table in (None, table.name)

    def _database(self, work: _Work, database: str) -> DatabaseWitness:
        def join(snapshot: Snapshot) -> AbstractContextManager[_Joined]:
            snapshot.session.stop_requested = work.stop_requested
            return _join(work, snapshot)

        with hold_snapshot(self._settings, database, join, self._wanted, self._between) as (snapshot, joined):
            facts = read_facts(snapshot.session, database, snapshot.tables, snapshot.sequences)
            largest_first = sorted(facts.tables, key=lambda table: -table.size_bytes)

            def read(reader: Reader, table: Table) -> TableWitness:
                return _read_table(work, reader, facts, table)

            # The schema's stream is this thread's; the tables' run beside it in the same snapshot.
            with reading(joined.readers, largest_first, read, work.failed) as results:
                _schema(work, facts, joined)
                tables = results()
        return _witness(facts, tables)

    def _captured(self, work: _Work, witness: Witness, started_at: datetime) -> Captured:
        server = work.server
        tables = [table for database in witness.databases for table in database.tables]
        partial = [table.title for table in tables if table.how in (How.COUNTED, How.SAMPLED)]
        if partial:
            work.notices.append(
                f"{len(partial)} large tables are only counted and sampled in the witness, first {partial[0]}"
            )
        unread = [table.title for table in tables if table.reason == UNLOGGED]
        if unread:
            work.notices.append(
                f"{len(unread)} unlogged tables cannot be read on a standby and come back empty, first {unread[0]}"
            )
        listed: list[JsonValue] = [database.name for database in witness.databases]
        return Captured(
            identity=server.identity,
            position=f"{sum(table.rows or 0 for table in tables)} rows in {len(tables)} tables, "
            f"{len(witness.databases)} databases",
            started_at=started_at,
            ended_at=self._now(),
            details={
                "server_version": server.version,
                "server_version_num": server.version_num,
                "tools_version": work.programs.version,
                "databases": listed,
                "selection": str(self._selection) if self._selection else None,
                "in_recovery": server.in_recovery,
                "snapshot_at": format_time(started_at),
            },
            notices=tuple(work.notices),
        )


def require_direct(session: Session) -> None:
    """Raise ``SourceFailed`` where a pooler stands between."""
    if session.is_pooled:
        raise SourceFailed("the server that answers is not the one that greeted us", hint=POOLER_HINT)


def read_logical_server(session: Session, settings: PostgresSettings) -> LogicalServer:
    """Ask what a logical capture must know of a server."""
    try:
        identifier = session.query("SELECT system_identifier FROM pg_catalog.pg_control_system()")[0][0] or ""
    except (Denied, SourceFailed):
        identifier = ""
    where = session.resolved() | parse_dsn(settings.dsn)
    sees = session.query("SELECT pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT')")[0][0] == "t"
    return LogicalServer(
        session.server_version,
        session.show("server_version") or str(session.server_version),
        identifier,
        session.query("SELECT pg_catalog.pg_is_in_recovery()")[0][0] == "t",
        sees,
        f"{where['host']}:{where['port']}",
    )


def _password(settings: PostgresSettings) -> str | None:
    return settings.password.reveal() if settings.password is not None else None


def _size(session: Session, databases: Sequence[str]) -> int:
    listed = ", ".join(quote_literal(name) for name in databases)
    try:
        rows = session.query(
            f"SELECT sum(pg_catalog.pg_database_size(oid)) FROM pg_catalog.pg_database WHERE datname IN ({listed})"
        )
    except HoldfastError as error:
        if isinstance(error, Interrupted):
            raise
        return 0  # Only for the progress line.
    return int(rows[0][0] or 0)


def _put(sink: StreamSink, path: str, content: bytes) -> None:
    stream = sink.open(Entry(path))
    stream.write(content)
    stream.close()


def _globals(work: _Work, database: str) -> None:
    options = ["--globals-only", "--no-password"]
    if not work.server.sees_passwords:
        options.append("--no-role-passwords")
        work.notices.append(
            "the role may not read passwords (pg_authid): roles come back without theirs (GRANT it by a superuser, or "
            "set them anew after a restore)"
        )
    program = work.programs.path("pg_dumpall")
    arguments = [program, *options, f"--dbname={work.access.address(database)}"]
    stream = work.sink.open(Entry(names.GLOBALS))
    run_child(arguments, work.access, "reading roles and other globals", work.stopped, take=stream.write)
    stream.close()


@contextmanager
def _join(work: _Work, snapshot: Snapshot) -> Iterator[_Joined]:
    """Bring pg_dump and the readers into a snapshot.

    Nothing is written before each has all its locks, and pg_dump all that it reads of the catalogs: until then a new
    snapshot can still be taken.
    """
    database = snapshot.database
    dump = [
        work.programs.path("pg_dump"),
        "--format=custom",
        "--compress=0",
        "--no-password",
        f"--snapshot={snapshot.id}",
        f"--encoding={snapshot.encoding}",
        f"--lock-wait-timeout={FOLLOW_SECONDS_MAX}s",
        f"--dbname={work.access.address(database)}",
    ]
    # Data only, and of no table: what is left are the large objects with owners, comments and privileges.
    large = [*dump, "--data-only", "--blobs", "--exclude-table-data=*.*"]

    with ExitStack() as stack:

        def start(arguments: list[str], doing: str) -> Child:
            return stack.enter_context(Child(arguments, work.access, doing, work.stopped))

        schema = start([*dump, "--schema-only"], f"reading the schema of {database}")
        large_objects = None
        if has_large_objects(snapshot.session):
            large_objects = start(large, f"reading the large objects of {database}")
        count = min(work.settings.jobs, len(snapshot.tables))
        readers = stack.enter_context(open_readers(work.tools, snapshot, count))
        for child in (schema, large_objects):
            if child is not None:
                _begin(child)
        yield _Joined(readers, schema, large_objects)


def _begin(child: Child) -> None:
    try:
        child.begin()
    except HoldfastError as error:
        if _CHANGED.search(error.message):
            raise TableMovedError(error.message) from error
        raise


def _schema(work: _Work, facts: DatabaseFacts, joined: _Joined) -> None:
    def path(file: str) -> str:
        return names.database_path(facts.name, file)

    _take(work, joined.schema, path(names.SCHEMA))
    if joined.large_objects is not None:
        _take(work, joined.large_objects, path(names.LARGE_OBJECTS))
    header = f"SET client_encoding = {quote_literal(client_encoding(facts.encoding))};"
    values = [
        f"SELECT pg_catalog.setval({quote_literal(f'{quote_identifier(each.schema)}.{quote_identifier(each.name)}')}, "
        f"{each.last_value}, {str(each.is_called).lower()});"
        for each in facts.sequences
    ]
    _put(work.sink, path(names.SEQUENCES), _script(header, *values))
    filled = [f"REFRESH MATERIALIZED VIEW {view.sql};" for view in facts.views if view.is_filled]
    if filled:
        _put(work.sink, path(names.VIEWS), _script(header, "SET search_path = '';", *filled))
    if facts.unread_sequences:
        work.notices.append(f"{len(facts.unread_sequences)} unlogged sequences cannot be read on a standby")


def _script(*statements: str) -> bytes:
    return "".join(f"{statement}\n" for statement in statements).encode("utf-8", "surrogateescape")


def _take(work: _Work, child: Child, path: str) -> None:
    stream = work.sink.open(Entry(path))
    for block in child.take():
        stream.write(block)
    child.finish()
    stream.close()


def _read_table(work: _Work, reader: Reader, facts: DatabaseFacts, table: Table) -> TableWitness:
    if table.is_unlogged and work.server.in_recovery:
        return _table_witness(table, How.NOT_COMPARED, None, UNLOGGED)
    limit = work.settings.witness_bytes_max
    how = How.COMPARED if limit is None or table.size_bytes <= limit else How.SAMPLED
    counting = Counting(how)
    statement = copy_out(_as_witness(table), facts.encoding, table.column_list)
    stream = work.sink.open(Entry(names.table_path(facts.name, table.schema, table.name)))
    stream.write(script_header(table, facts.encoding))
    pour(reader.rows(statement, reading_table(table.schema, table.name)), stream, counting)
    stream.write(SCRIPT_END)
    stream.close()
    return _table_witness(table, how, counting, "" if how is How.COMPARED else "larger than the witness's limit")


def _as_witness(table: Table) -> TableWitness:
    return _table_witness(table, How.NOT_COMPARED, None, "")


def _table_witness(table: Table, how: How, counting: Counting | None, reason: str) -> TableWitness:
    return TableWitness(
        schema=table.schema,
        name=table.name,
        columns=table.columns,
        how=how,
        rows=counting.rows if counting else None,
        digest=counting.digest if counting else None,
        size_bytes=table.size_bytes,
        condition=table.condition,
        reason=reason,
        root=dotted(*table.root) if table.root else "",
    )


def _witness(facts: DatabaseFacts, tables: Sequence[TableWitness]) -> DatabaseWitness:
    views = [
        _table_witness(view, How.RECOMPUTED, None, VIEW if view.is_filled else NEVER_FILLED) for view in facts.views
    ]
    return DatabaseWitness(
        name=facts.name,
        encoding=facts.encoding,
        owner=facts.owner,
        tables=tuple(sorted([*tables, *views], key=lambda table: (table.schema, table.name))),
        sequences=facts.sequences,
        extensions=facts.extensions,
        settings=facts.settings,
        objects=facts.objects,
        large_objects=facts.large_objects,
    )
