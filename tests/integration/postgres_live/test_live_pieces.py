"""Parts of a backup: a schema or a table into a new database, and the rows of a table into the live one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.integration.postgres_live import live
from tests.integration.postgres_live.live import FolderContent, databases, execute, restore, rows, take, target, value
from tests.servers import PostgresServers

from holdfast.model.errors import ConfigInvalid, Conflict, SourceFailed
from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.postgres.logical.names import Selection

RELATIONS = """SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid >= 16384 AND n.nspname !~ '^pg_' ORDER BY 1"""


@pytest.fixture(scope="module")
def server(postgres_servers: PostgresServers) -> Iterator[ThrowawayPostgres]:
    started = postgres_servers.start(15)
    execute(started, "CREATE ROLE keeper", "CREATE DATABASE shop")
    execute(
        started,
        "CREATE TYPE mood AS ENUM ('a', 'b')",
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TABLE customers (id serial PRIMARY KEY, name text)",
        "CREATE TABLE orders (id serial PRIMARY KEY, customer int REFERENCES customers, m mood, n int DEFAULT one(), "
        "twice int GENERATED ALWAYS AS (n * 2) STORED, i int GENERATED ALWAYS AS IDENTITY)",
        "CREATE INDEX orders_m ON orders (m)",
        "ALTER TABLE orders OWNER TO keeper",
        "INSERT INTO customers (name) SELECT 'c' || i FROM generate_series(1, 50) i",
        "INSERT INTO orders (customer, m) SELECT 1 + i % 50, 'b' FROM generate_series(1, 2000) i",
        "CREATE TABLE parts (a int, t text) PARTITION BY RANGE (a)",
        "CREATE TABLE parts_1 (t text, a int NOT NULL)",
        "ALTER TABLE parts ATTACH PARTITION parts_1 FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20)",
        "INSERT INTO parts SELECT i, 'p' || i FROM generate_series(0, 19) i",
        'CREATE SCHEMA "o.dd"',
        'CREATE TABLE "o.dd"."t ""x" (a int, "b c" text)',
        """INSERT INTO "o.dd"."t ""x" VALUES (1, E'tab\\tnew\\nline')""",
        'CREATE VIEW "o.dd".v AS SELECT * FROM "o.dd"."t ""x"',
        database="shop",
    )
    yield started
    postgres_servers.drop(started)


@pytest.fixture(scope="module")
def backup(server: ThrowawayPostgres, tmp_path_factory: pytest.TempPathFactory) -> FolderContent:
    return take(server, tmp_path_factory.mktemp("backup") / "shop", "shop")


@pytest.fixture(autouse=True)
def only_the_shop(server: ThrowawayPostgres) -> Iterator[None]:
    yield
    for name in databases(server) - {"postgres", "shop"}:
        execute(server, f'DROP DATABASE "{name}"')


def test_one_table_comes_back_alone_with_its_type_function_sequences_and_key(
    server: ThrowawayPostgres, backup: FolderContent
) -> None:
    report = restore(backup, target(server, "part", selection=Selection("shop", "public", "orders")))
    assert (report.differences, report.tables_compared, report.rows_compared) == ((), 1, 2000)
    assert rows(server, RELATIONS, "part") == [
        ("public.orders",),
        ("public.orders_i_seq",),
        ("public.orders_id_seq",),
        ("public.orders_m",),
        ("public.orders_pkey",),
    ]
    assert value(server, "SELECT sum(twice) FROM orders", "part") == 4000
    execute(server, "INSERT INTO orders (m) VALUES ('a')", database="part")
    assert value(server, "SELECT max(id) || ' ' || max(i) FROM orders", "part") == "2001 2001"
    assert any("orders_customer_fkey" in note for note in report.notes)


def test_one_schema_comes_back_alone_under_a_dated_name(server: ThrowawayPostgres, backup: FolderContent) -> None:
    report = restore(backup, target(server, selection=Selection("shop", "o.dd")))
    assert report.database == f"shop_restored_{live.STAMP_TEXT}"
    assert (report.differences, report.tables_compared) == ((), 1)
    assert rows(server, RELATIONS, report.database) == [('o.dd.t "x',), ("o.dd.v",)]
    assert value(server, 'SELECT "b c" FROM "o.dd".v', report.database) == "tab\tnew\nline"


def test_the_rows_of_a_table_come_beside_the_live_one_which_goes_on_meanwhile(
    server: ThrowawayPostgres, backup: FolderContent
) -> None:
    execute(
        server, "ALTER TABLE orders ADD COLUMN later int DEFAULT 7", "DELETE FROM orders WHERE id > 5", database="shop"
    )
    before = rows(server, RELATIONS, "shop")
    written = 0
    done = threading.Event()

    def write() -> None:
        nonlocal written
        with psycopg.connect(server.connection_string("shop"), autocommit=True) as connection:
            connection.execute("SET lock_timeout = '2s'")
            while not done.is_set():
                connection.execute("BEGIN; LOCK TABLE orders; UPDATE orders SET n = n + 1 WHERE id = 1; COMMIT")
                written += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wish = target(server, selection=Selection("shop", "public", "orders"), into_table="orders_restored_20260115")
        report = restore(backup, wish)
    finally:
        done.set()
        writer.join()
    assert (report.database, report.into_table) == ("shop", "orders_restored_20260115")
    assert (report.differences, report.rows_compared) == ((), 2000)
    assert written > 0
    assert value(server, "SELECT n FROM orders WHERE id = 1", "shop") == written + 1
    assert rows(server, RELATIONS, "shop") == sorted([*before, ("public.orders_restored_20260115",)])
    assert value(server, "SELECT sum(twice) FROM orders_restored_20260115", "shop") == 4000
    assert databases(server) == {"postgres", "shop"}
    with pytest.raises(Conflict, match="is there already"):
        restore(backup, wish)
    assert databases(server) == {"postgres", "shop"}


def test_a_partitioned_table_comes_beside_as_one_table_with_the_rows_of_all_partitions(
    server: ThrowawayPostgres, backup: FolderContent
) -> None:
    wish = target(server, "shop", selection=Selection("shop", "public", "parts"), into_table='parts "again"')
    report = restore(backup, wish)
    assert report.differences == ()
    assert value(server, 'SELECT count(*) || \' \' || sum(a) || max(t) FROM "parts ""again"""', "shop") == "20 190p9"


def test_a_table_with_odd_names_comes_beside(server: ThrowawayPostgres, backup: FolderContent) -> None:
    wish = target(server, "shop", selection=Selection("shop", "o.dd", 't "x'), into_table="a.b c")
    assert restore(backup, wish).differences == ()
    assert rows(server, 'SELECT * FROM "o.dd"."a.b c"', "shop") == [(1, "tab\tnew\nline")]


def test_a_live_database_without_the_tables_type_is_left_as_it_was_with_a_hint(
    server: ThrowawayPostgres, backup: FolderContent
) -> None:
    execute(server, "CREATE DATABASE other")
    wish = target(server, "other", selection=Selection("shop", "public", "orders"), into_table="orders_again")
    with pytest.raises(SourceFailed, match="does not exist") as caught:
        restore(backup, wish)
    assert "Restore the table into a new database instead" in caught.value.hint
    assert rows(server, RELATIONS, "other") == []
    assert databases(server) == {"postgres", "shop", "other"}


def test_parts_that_cannot_be_meant_are_refused(server: ThrowawayPostgres, backup: FolderContent) -> None:
    plan = live.refill().plan
    with pytest.raises(ConfigInvalid, match=r"no table in shop\.public\.nothing"):
        plan(backup, target(server, "x", selection=Selection("shop", "public", "nothing")))
    with pytest.raises(ConfigInvalid, match="cannot replace the whole"):
        plan(backup, target(server, "shop", selection=Selection("shop", "public"), in_place=True))
    with pytest.raises(ConfigInvalid, match="only from one table"):
        plan(backup, target(server, "shop", selection=Selection("shop", "public"), into_table="x"))
    with pytest.raises(ConfigInvalid, match="the backup has no database other"):
        plan(backup, target(server, "x", selection=Selection("other")))


def test_a_restore_beside_that_is_stopped_leaves_nothing(
    server: ThrowawayPostgres, backup: FolderContent, tmp_path: Path
) -> None:
    steps: list[str] = []
    wish = target(server, "shop", selection=Selection("shop", "public", "customers"), into_table="customers_again")
    before = rows(server, RELATIONS, "shop")
    with pytest.raises(Exception, match="stopped"):
        restore(backup, wish, at_step=steps.append, stop_requested=lambda: "rows" in steps)
    assert rows(server, RELATIONS, "shop") == before
    assert databases(server) == {"postgres", "shop"}
