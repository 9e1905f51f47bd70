"""What a logical capture of real servers holds, and that one snapshot is what it all comes from."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest
from tests.integration.postgres_logical.logical_scene import (
    MemorySink,
    capture,
    clients,
    execute,
    make_database,
    quoted,
    settings_of,
    value,
)
from tests.servers import PostgresServers, installed

from holdfast.model.errors import ConfigInvalid, Conflict, NotFound, Unavailable
from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.port import Identity
from holdfast.sources.postgres.connection import open_replication
from holdfast.sources.postgres.logical import capture as capture_module
from holdfast.sources.postgres.logical import snapshot as snapshot_module
from holdfast.sources.postgres.logical.names import Selection, database_path, table_path
from holdfast.sources.postgres.logical.readers import Reader, Tools
from holdfast.sources.postgres.logical.snapshot import Snapshot
from holdfast.sources.postgres.logical.witness import How, compare
from holdfast.sources.postgres.server import read_server

OLDEST_AND_NEWEST = pytest.mark.parametrize("postgres_major", [15, 18], indirect=True)
MIDDLE = pytest.mark.parametrize("postgres_major", [16, 17], indirect=True)
NEWEST = pytest.mark.parametrize("postgres_major", [18], indirect=True)

SHOP = (
    "CREATE TABLE orders (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text, "
    "doubled integer GENERATED ALWAYS AS (2 * length(note)) STORED)",
    "INSERT INTO orders (note) SELECT repeat('x', i) FROM generate_series(1, 5) i",
    "CREATE UNLOGGED TABLE quick (a integer)",
    "INSERT INTO quick VALUES (7)",
    "CREATE TABLE parted (a integer, b text) PARTITION BY RANGE (a)",
    "CREATE TABLE parted_low (b text, a integer)",
    "ALTER TABLE parted ATTACH PARTITION parted_low FOR VALUES FROM (0) TO (10)",
    "CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (10) TO (20)",
    "INSERT INTO parted VALUES (1, 'low'), (11, 'high'), (12, 'high')",
    "CREATE TABLE parent (a integer)",
    "CREATE TABLE child (b integer) INHERITS (parent)",
    "INSERT INTO parent VALUES (1)",
    "INSERT INTO child VALUES (2, 2), (3, 3)",
    "CREATE TABLE nothing ()",
    "INSERT INTO nothing DEFAULT VALUES",
    "CREATE FOREIGN DATA WRAPPER none",
    "CREATE SERVER elsewhere FOREIGN DATA WRAPPER none",
    "CREATE FOREIGN TABLE far (a integer) SERVER elsewhere",
    "CREATE SEQUENCE numbers START 40",
    "SELECT nextval('numbers'), nextval('numbers')",
    "CREATE SEQUENCE untouched",
    "CREATE MATERIALIZED VIEW a_second AS SELECT 1 AS one WITH NO DATA",
    "CREATE MATERIALIZED VIEW z_first AS SELECT count(*) AS n FROM orders",
    "CREATE VIEW between_them AS SELECT n + 1 AS n FROM z_first",
    "CREATE MATERIALIZED VIEW b_last AS SELECT n FROM between_them",
    "SELECT lo_from_bytea(0, 'large')",
)


def once(act: Callable[[], None]) -> tuple[Callable[[], None], list[int]]:
    """Make a hook that acts at its first call only, and the list of its calls."""
    calls: list[int] = []

    def hook() -> None:
        calls.append(len(calls))
        if len(calls) == 1:
            act()

    return hook, calls


@OLDEST_AND_NEWEST
def test_tables_are_those_with_rows_of_their_own(shared_postgres: ThrowawayPostgres) -> None:
    database = make_database(shared_postgres, "own rows", *SHOP)
    taken = capture(settings_of(shared_postgres, database))
    tables = {table.title: table for table in taken.database(database).tables}
    assert {name: (table.rows, table.how) for name, table in tables.items()} == {
        "public.orders": (5, How.COMPARED),
        "public.quick": (1, How.COMPARED),
        "public.parted_low": (1, How.COMPARED),
        "public.parted_high": (2, How.COMPARED),
        "public.parent": (1, How.COMPARED),
        "public.child": (2, How.COMPARED),
        "public.nothing": (1, How.COMPARED),
        "public.a_second": (None, How.RECOMPUTED),
        "public.z_first": (None, How.RECOMPUTED),
        "public.b_last": (None, How.RECOMPUTED),
    }
    assert [column.name for column in tables["public.orders"].columns] == ["id", "note"]
    assert taken.sink.rows(database, "public", "orders")[:2] == [b"1\tx", b"2\txx"]
    assert taken.sink.rows(database, "public", "parent") == [b"1"]
    assert table_path(database, "public", "far") not in taken.sink.files


@OLDEST_AND_NEWEST
def test_what_is_stored_beside_the_rows(shared_postgres: ThrowawayPostgres) -> None:
    database = make_database(shared_postgres, "beside rows", *SHOP)
    taken = capture(settings_of(shared_postgres, database))
    files = taken.sink.files
    assert b"CREATE ROLE postgres" in files["globals.sql"]
    assert files[database_path(database, "schema.dump")].startswith(b"PGDMP")
    assert files[database_path(database, "large_objects.dump")].startswith(b"PGDMP")
    assert b"x\tx" not in files[database_path(database, "large_objects.dump")]
    sequences = files[database_path(database, "sequences.sql")].decode()
    assert """'"public"."numbers"', 41, true)""" in sequences
    assert """'"public"."untouched"', 1, false)""" in sequences
    assert """'"public"."orders_id_seq"', 5, true)""" in sequences
    views = files[database_path(database, "views.sql")].decode().splitlines()
    refresh = 'REFRESH MATERIALIZED VIEW "public"."{}";'
    assert views[2:] == [refresh.format("z_first"), refresh.format("b_last")]
    assert taken.database(database).large_objects == 1
    assert taken.captured.details["databases"] == [database]
    assert taken.captured.position == "13 rows in 10 tables, 1 databases"


@MIDDLE
def test_the_versions_between_are_captured_too(shared_postgres: ThrowawayPostgres) -> None:
    database = make_database(shared_postgres, "between", *SHOP)
    assert capture(settings_of(shared_postgres, database)).table(database, "public.orders").rows == 5


@OLDEST_AND_NEWEST
def test_databases_with_odd_names_and_without_any_table_are_captured(shared_postgres: ThrowawayPostgres) -> None:
    name = """a/b "q" it's = [x] %.é\\ UPPER"""
    make_database(shared_postgres, name)
    taken = capture(settings_of(shared_postgres, name))
    assert set(taken.sink.files) == {
        "globals.sql",
        "@witness.json",
        database_path(name, "schema.dump"),
        database_path(name, "sequences.sql"),
    }
    execute(shared_postgres, f"DROP DATABASE {quoted(name)}")


@NEWEST
def test_both_forms_of_a_source_have_one_identity(shared_postgres: ThrowawayPostgres) -> None:
    settings = settings_of(shared_postgres, "postgres")
    with open_replication(settings) as session:
        physical = read_server(session).identity
    assert capture(settings, expected=physical).captured.identity == physical
    other = Identity("postgres", (("system_identifier", "1"), ("major_version", "18")))
    with pytest.raises(Conflict, match="another system"):
        capture(settings, expected=other)


@NEWEST
def test_every_database_but_templates_is_taken_where_none_is_named(postgres_server: ThrowawayPostgres) -> None:
    make_database(postgres_server, "one")
    make_database(postgres_server, "two")
    settings = replace(settings_of(postgres_server, "postgres"), databases=())
    assert capture(settings).captured.details["databases"] == ["one", "postgres", "two"]
    with pytest.raises(ConfigInvalid, match="no database three"):
        capture(replace(settings, databases=("one", "three")))


@NEWEST
def test_a_selection_takes_one_table_only(shared_postgres: ThrowawayPostgres) -> None:
    database = make_database(shared_postgres, "selected", *SHOP)
    taken = capture(settings_of(shared_postgres, "postgres"), selection=Selection(database, "public", "orders"))
    assert [path for path in taken.sink.files if "/tables/" in path] == [table_path(database, "public", "orders")]


@NEWEST
def test_no_more_streams_are_open_than_may_be(shared_postgres: ThrowawayPostgres) -> None:
    database = make_database(shared_postgres, "many", *(f"CREATE TABLE t{i} AS SELECT {i} AS a" for i in range(40)))
    taken = capture(settings_of(shared_postgres, database, jobs=3))
    assert len(taken.database(database).tables) == 40
    assert [table.rows for table in taken.database(database).tables] == [1] * 40
    assert clients() == []


@NEWEST
def test_above_the_limit_a_table_is_only_counted_and_sampled_and_it_is_said(shared_postgres: ThrowawayPostgres) -> None:
    database = make_database(
        shared_postgres,
        "limit",
        "CREATE TABLE large AS SELECT i, repeat('x', 100) AS x FROM generate_series(1, 5000) i",
        "CREATE TABLE small AS SELECT 1 AS a",
    )
    taken = capture(settings_of(shared_postgres, database, witness_bytes_max=100_000))
    large = taken.table(database, "public.large")
    assert (large.how, large.rows, bool(large.reason)) == (How.SAMPLED, 5000, True)
    assert taken.table(database, "public.small").how is How.COMPARED
    assert any("public.large" in notice for notice in taken.captured.notices)


# The gap between a snapshot and its locks

GAP = {
    "truncate": ("TRUNCATE orders",),
    "vacuum full": ("VACUUM FULL orders",),
    "alter type": ("ALTER TABLE parent ALTER a TYPE bigint",),
    "add column": ("ALTER TABLE orders ADD extra integer DEFAULT 5",),
    "drop column": ("ALTER TABLE orders DROP note CASCADE",),
    "rename column": ("ALTER TABLE orders RENAME note TO remark",),
    "rename": ("ALTER TABLE orders RENAME TO purchases",),
    "swap": ("ALTER TABLE orders RENAME TO old; ALTER TABLE child RENAME TO orders; ALTER TABLE old RENAME TO child",),
    "drop": ("DROP TABLE orders CASCADE",),
    "drop schema": ("DROP SCHEMA gone CASCADE",),
    "drop sequence": ("DROP SEQUENCE numbers",),
}


@OLDEST_AND_NEWEST
@pytest.mark.parametrize("change", GAP)
def test_a_change_right_after_the_snapshot_leads_to_a_new_one(shared_postgres: ThrowawayPostgres, change: str) -> None:
    more = ("CREATE SCHEMA gone", "CREATE TABLE gone.t AS SELECT 1 AS a")
    database = make_database(shared_postgres, "gap", *SHOP, *more)
    hook, calls = once(lambda: execute(shared_postgres, *GAP[change], database=database))
    taken = capture(settings_of(shared_postgres, database), between=hook)
    assert len(calls) == 2
    again = capture(settings_of(shared_postgres, database))
    assert compare(taken.database(database), again.database(database)) == ()


@NEWEST
def test_rows_written_after_the_snapshot_are_not_in_it(shared_postgres: ThrowawayPostgres) -> None:
    database = make_database(shared_postgres, "after", *SHOP)
    write = "INSERT INTO orders (note) VALUES ('late'); DELETE FROM orders WHERE id = 1"
    hook, calls = once(lambda: execute(shared_postgres, write, database=database))
    taken = capture(settings_of(shared_postgres, database), between=hook)
    assert len(calls) == 1
    assert taken.sink.rows(database, "public", "orders")[0] == b"1\tx"
    assert taken.table(database, "public.orders").rows == 5


@NEWEST
def test_tables_that_always_change_end_the_attempts(
    shared_postgres: ThrowawayPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_module, "ATTEMPTS_MAX", 3)
    database = make_database(shared_postgres, "always", *SHOP)
    calls: list[int] = []

    def hook() -> None:
        calls.append(1)
        execute(shared_postgres, "TRUNCATE orders", database=database)

    sink = MemorySink()
    with pytest.raises(Unavailable, match=r"database always: .*table public.orders was truncated"):
        capture(settings_of(shared_postgres, database), between=hook, sink=sink)
    assert len(calls) == 3
    assert list(sink.files) == ["globals.sql"]


@OLDEST_AND_NEWEST
def test_a_change_that_waits_for_the_capture_does_not_stop_it(shared_postgres: ThrowawayPostgres) -> None:
    statements = [f"CREATE TABLE t{i} AS SELECT i FROM generate_series(1, {(9 - i) * 1000}) i" for i in range(8)]
    database = make_database(shared_postgres, "waiting", *statements)
    waiting = threading.Thread(
        target=execute, args=(shared_postgres, "ALTER TABLE t7 ADD more integer"), kwargs={"database": database}
    )

    def begin(path: str, size: int) -> None:
        if path.endswith("t0.sql") and size == 0:
            waiting.start()
            await_waiting(shared_postgres, database)

    started = time.monotonic()
    taken = capture(settings_of(shared_postgres, database), sink=MemorySink(begin))
    assert time.monotonic() - started < 15
    assert taken.table(database, "public.t7").rows == 2000
    waiting.join(20)
    assert not waiting.is_alive()


@NEWEST
def test_a_change_that_queues_up_between_the_locks_leads_to_a_new_snapshot(
    shared_postgres: ThrowawayPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = make_database(shared_postgres, "queued", *SHOP)
    change = ("ALTER TABLE orders ADD more integer DEFAULT 9",)
    waiting = threading.Thread(target=execute, args=(shared_postgres, *change), kwargs={"database": database})
    original = capture_module.open_readers
    calls: list[int] = []

    def late(tools: Tools, snapshot: Snapshot, count: int) -> AbstractContextManager[tuple[Reader, ...]]:
        calls.append(count)
        if len(calls) == 1:
            waiting.start()
            await_waiting(shared_postgres, database)
        return original(tools, snapshot, count)

    monkeypatch.setattr(snapshot_module, "FOLLOW_SECONDS_MAX", 1)
    monkeypatch.setattr(capture_module, "open_readers", late)
    taken = capture(settings_of(shared_postgres, database))
    waiting.join(20)
    assert len(calls) >= 2  # Once more where the second snapshot was older than the end of the change.
    assert [column.name for column in taken.table(database, "public.orders").columns] == ["id", "note", "more"]


def await_waiting(server: ThrowawayPostgres, database: str) -> None:
    """Wait until a session of the database waits for a lock."""
    deadline = time.monotonic() + 20
    query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND wait_event_type = 'Lock'"
    while not value(server, query):
        assert time.monotonic() < deadline
        time.sleep(0.02)


# The digest

VALUES = (
    "CREATE TYPE mood AS ENUM ('sad', 'ok')",
    "CREATE TABLE things (id integer PRIMARY KEY, f8 float8, f4 float4, n numeric, b bytea, t timestamptz, d date, "
    "i interval, m money, x xml, j jsonb, a text[], e mood, u uuid, r int4range, txt text)",
    "INSERT INTO things SELECT i, i / 7.0, i / 3.0, i / 9.0, decode(md5(i::text), 'hex'), "
    "'2026-01-15 12:00:00+05:30'::timestamptz + make_interval(hours => i), '2026-01-15'::date + i, "
    "make_interval(months => i, days => -i, secs => (i / 3.0)::float8), i::numeric::money, '<a>é</a>', "
    "jsonb_build_object('k', i), ARRAY['a b', NULL, '\"'], 'ok', md5(i::text)::uuid, int4range(i, i + 2), "
    "E'tab\\tnew\\nline\\\\é' FROM generate_series(1, 300) i",
)
TRAPS = (
    "SET datestyle = 'SQL, DMY'",
    "SET intervalstyle = 'sql_standard'",
    "SET timezone = 'Asia/Kathmandu'",
    "SET extra_float_digits = -10",
    "SET bytea_output = 'escape'",
    "SET xmloption = 'document'",
    "SET search_path = 'nowhere'",
    "SET client_encoding = 'LATIN1'",
    "SET standard_conforming_strings = off",
    "SET quote_all_identifiers = on",
    "SET row_security = on",
    "SET statement_timeout = '20s'",
    "SET idle_in_transaction_session_timeout = '1s'",
    "SET default_transaction_isolation = 'serializable'",
)


def test_the_digest_depends_on_content_only(postgres_servers: PostgresServers) -> None:
    """Not on the version, the order of rows on disk, or the settings of sessions; and on every changed byte."""
    database = "digests"
    found = []
    for major in (15, 18):
        server = postgres_servers.shared(major)
        make_database(server, database, *VALUES)
        settings = settings_of(server, database)
        found.append(capture(settings).database(database))
        by_hash = "CREATE INDEX by_hash ON things (md5(id::text))"
        execute(server, by_hash, "CLUSTER things USING by_hash", "DROP INDEX by_hash", database=database)
        execute(server, *(f"ALTER DATABASE {database} {trap}" for trap in TRAPS))
        assert value(server, "SELECT id FROM public.things LIMIT 1", database) != 1
        found.append(capture(settings).database(database))
    first = found[0]
    for other in found[1:]:
        assert compare(first, other) == ()
    execute(server, "UPDATE public.things SET f8 = f8 + 1e-14 WHERE id = 1", database=database)
    assert [str(each) for each in compare(first, capture(settings).database(database))] == [
        "table public.things differs: its 300 rows are not the same ones"
    ]


def test_clients_older_than_the_server_are_refused_with_the_package(postgres_servers: PostgresServers) -> None:
    server = postgres_servers.shared(18)
    with pytest.raises(NotFound, match=r"PostgreSQL 18 or newer are not in .*found: 15") as caught:
        capture(settings_of(server, "postgres", programs=installed(15).folder))
    assert "postgresql-client-18" in caught.value.hint
