"""What the tests of logical captures share: SQL, a sink in memory, and a capture of one database."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
from tests.servers import installed

from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.port import SINK_STREAMS_MAX, Captured, CaptureRequest, Data, Entry, Identity, Inspect, Tier
from holdfast.sources.postgres.logical.capture import LogicalSource
from holdfast.sources.postgres.logical.names import WITNESS, Selection
from holdfast.sources.postgres.logical.witness import DatabaseWitness, TableWitness, Witness, from_document
from holdfast.sources.postgres.settings import PostgresSettings, settings_from_dsn

OnWrite = Callable[[str, int], None]


def execute(server: ThrowawayPostgres, *statements: str, database: str = "postgres") -> None:
    with psycopg.connect(server.connection_string(database), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def value(server: ThrowawayPostgres, query: str, database: str = "postgres") -> Any:
    with psycopg.connect(server.connection_string(database), autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def make_database(server: ThrowawayPostgres, database: str, *statements: str) -> str:
    """Make a database, anew where an earlier test left one of its name."""
    execute(server, f"DROP DATABASE IF EXISTS {quoted(database)} WITH (FORCE)", f"CREATE DATABASE {quoted(database)}")
    execute(server, *statements, database=database)
    return database


def make_role(server: ThrowawayPostgres, role: str, database: str, attributes: str = "") -> None:
    """Make a role that may connect and nothing else; an earlier test's, which may own things, is renamed."""
    execute(
        server,
        f"DO $$ BEGIN EXECUTE (SELECT format('ALTER ROLE %I RENAME TO %I', rolname, rolname || oid) FROM pg_roles "
        f"WHERE rolname = '{role}'); EXCEPTION WHEN null_value_not_allowed THEN NULL; END $$",
        f"CREATE ROLE {quoted(role)} LOGIN {attributes}",
        database=database,
    )


def settings_of(server: ThrowawayPostgres, database: str, **changes: Any) -> PostgresSettings:
    """How a server is reached, with short bounds and the client programs of its own version."""
    settings = settings_from_dsn(server.connection_string())
    folder = installed(server.programs.major).folder
    given = {"query_seconds_max": 30.0, "programs": folder, "databases": (database,), **changes}
    return replace(settings, **given)


def as_role(server: ThrowawayPostgres, role: str, database: str, **changes: Any) -> PostgresSettings:
    """The same for another role."""
    dsn = f"host=127.0.0.1 port={server.port} user='{role}' dbname=postgres"
    return replace(settings_of(server, database, **changes), dsn=dsn)


class MemoryStream:
    """The content of one entry."""

    def __init__(self, sink: MemorySink, path: str) -> None:
        self._sink = sink
        self._path = path
        self._content = bytearray()

    def write(self, data: Data) -> None:
        self._content += data
        self._sink.on_write(self._path, len(self._content))

    def close(self) -> None:
        self._sink.closed(self._path, bytes(self._content))


class MemorySink:
    """Keeps what was closed by path; ``on_write`` is called on the thread that writes."""

    def __init__(self, on_write: OnWrite = lambda path, size: None) -> None:
        self.files: dict[str, bytes] = {}
        self.on_write = on_write
        self.expected_bytes = -1
        self.open_most = 0
        self._lock = threading.Lock()
        self._open: set[str] = set()

    def add(self, entry: Entry) -> None:
        raise AssertionError(entry)

    def open(self, entry: Entry, inspect: Inspect | None = None) -> MemoryStream:
        with self._lock:
            assert entry.path not in self._open
            assert entry.path not in self.files
            self._open.add(entry.path)
            self.open_most = max(self.open_most, len(self._open))
            assert self.open_most <= SINK_STREAMS_MAX
        self.on_write(entry.path, 0)
        return MemoryStream(self, entry.path)

    def closed(self, path: str, content: bytes) -> None:
        with self._lock:
            self._open.remove(path)
            self.files[path] = content

    def drain(self) -> None:
        assert not self._open

    def expect(self, size_bytes: int) -> None:
        self.expected_bytes = size_bytes

    def rows(self, database: str, schema: str, table: str) -> list[bytes]:
        """The rows of a table, without what makes a script of them."""
        script = self.files[f"databases/{database}/tables/{schema}/{table}.sql"]
        head, _, rest = script.partition(b" FROM stdin WITH (ENCODING 'UTF8');\n")
        assert head
        assert rest.endswith(b"\\.\n")
        return rest.removesuffix(b"\\.\n").splitlines()


@dataclass(frozen=True, slots=True)
class Taken:
    """A capture and its witness."""

    captured: Captured
    sink: MemorySink
    witness: Witness

    def database(self, name: str) -> DatabaseWitness:
        found = self.witness.database(name)
        assert found is not None
        return found

    def table(self, database: str, title: str) -> TableWitness:
        return next(table for table in self.database(database).tables if table.title == title)


def capture(
    settings: PostgresSettings,
    *,
    sink: MemorySink | None = None,
    selection: Selection | None = None,
    between: Callable[[], None] = lambda: None,
    expected: Identity | None = None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> Taken:
    import json

    into = sink or MemorySink()
    source = LogicalSource("shop", settings, selection, between=between)
    captured = source.capture(CaptureRequest(Tier.FULL, expected, stop_requested), into)
    into.drain()
    return Taken(captured, into, from_document(json.loads(into.files[WITNESS])))


def children() -> Iterator[tuple[int, str]]:
    """The living children of this process: (process id, name)."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            before, _, after = entry.read_text().rpartition(")")
        except OSError:  # ended meanwhile
            continue
        name = before.partition("(")[2]
        state, parent = after.split()[:2]
        if int(parent) == os.getpid() and state != "Z":
            yield int(entry.parent.name), name


def clients() -> list[tuple[int, str]]:
    return [(pid, name) for pid, name in children() if name in ("psql", "pg_dump", "pg_dumpall", "pg_restore")]


def sessions(server: ThrowawayPostgres, database: str) -> int:
    return int(value(server, f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'"))
