"""The comparison of a live database with a witness: equal to the capture, and every planted difference by name."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.integration.postgres_logical.logical_scene import (
    MemorySink,
    capture,
    clients,
    execute,
    make_database,
    settings_of,
)
from tests.servers import PostgresServers, installed

from holdfast.model.errors import Interrupted
from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.postgres.connection import open_sql
from holdfast.sources.postgres.logical.children import ClientAccess
from holdfast.sources.postgres.logical.inspect import Inspection, inspect_database
from holdfast.sources.postgres.logical.tools import ClientPrograms
from holdfast.sources.postgres.logical.witness import DatabaseWitness, How, compare

SCENE = (
    "CREATE TABLE orders (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text, amount numeric(9, 2), "
    "doubled numeric GENERATED ALWAYS AS (2 * amount) STORED)",
    "INSERT INTO orders (note, amount) SELECT md5(i::text), i / 3.0 FROM generate_series(1, 1000) i",
    "CREATE INDEX by_note ON orders (note)",
    'CREATE TABLE "odd = [t]/.%" ("a ""b"" = [x]/.%" text, "é\n" integer)',
    """INSERT INTO "odd = [t]/.%" VALUES (E'tab\\tnew\\n\\\\.', 1), (NULL, 2)""",
    "CREATE MATERIALIZED VIEW seen AS SELECT count(*) AS n FROM orders",
    "CREATE SEQUENCE numbers START 40",
)

PLANTED = {
    "row": (
        "UPDATE orders SET note = 'x' WHERE id = 7",
        "table public.orders differs: its 1000 rows are not the same ones",
    ),
    "missing row": ("DELETE FROM orders WHERE id = 7", "table public.orders differs: 1000 rows became 999"),
    "row twice": (
        "INSERT INTO orders OVERRIDING SYSTEM VALUE SELECT 1001, note, amount FROM orders WHERE id = 7",
        "table public.orders differs: 1000 rows became 1001",
    ),
    "empty table": ("DELETE FROM orders", "table public.orders differs: 1000 rows became 0"),
    "column dropped": ("ALTER TABLE orders DROP note", "table public.orders differs: column note is missing"),
    "column added": ("ALTER TABLE orders ADD more text", "table public.orders differs: column more was not there"),
    "column type": (
        "ALTER TABLE orders ALTER note TYPE varchar(32)",
        "table public.orders differs: column note was text and is character varying(32)",
    ),
    "sequence": (
        "SELECT setval('numbers', 55)",
        "sequence public.numbers differs: stood at 40 (not used yet) and stands at 55",
    ),
    "index": ("DROP INDEX by_note", "index public.by_note is missing"),
    "table": ('DROP TABLE "odd = [t]/.%"', 'table public."odd = [t]/.%" is missing'),
    "view": ("REFRESH MATERIALIZED VIEW seen WITH NO DATA", "table public.seen differs: was filled and is not filled"),
}


def inspect(server: ThrowawayPostgres, expected: DatabaseWitness, **changes: object) -> DatabaseWitness:
    """Inspect the database of the same name on a server."""
    settings = settings_of(server, expected.name)
    folder = installed(server.programs.major)
    with open_sql(settings) as session, ClientAccess(session) as access:
        programs = ClientPrograms(folder.major, str(folder.major), folder.folder)
        return inspect_database(replace(Inspection(settings, programs, access), **changes), expected.name, expected)  # type: ignore[arg-type]


@pytest.fixture
def scene(postgres_servers: PostgresServers) -> Iterator[tuple[ThrowawayPostgres, DatabaseWitness]]:
    server = postgres_servers.shared(18)
    database = make_database(server, "inspected", *SCENE)
    yield server, capture(settings_of(server, database)).database(database)
    assert clients() == []


def test_a_database_equals_its_own_witness_and_its_copys_on_another_version(
    scene: tuple[ThrowawayPostgres, DatabaseWitness], postgres_servers: PostgresServers
) -> None:
    server, expected = scene
    assert compare(expected, inspect(server, expected)) == ()
    older = postgres_servers.shared(15)
    make_database(older, expected.name, *SCENE)
    found = inspect(older, expected)
    assert compare(expected, found) == ()
    assert {table.how for table in found.tables} == {How.COMPARED, How.RECOMPUTED}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_difference_is_named(scene: tuple[ThrowawayPostgres, DatabaseWitness], planted: str) -> None:
    server, expected = scene
    statement, words = PLANTED[planted]
    execute(server, statement, database=expected.name)
    told = [str(each) for each in compare(expected, inspect(server, expected)) if each.what != "table constraint"]
    assert words in told
    assert len(told) <= 2  # a column takes the index on it along


def test_columns_in_another_order_are_no_difference(scene: tuple[ThrowawayPostgres, DatabaseWitness]) -> None:
    server, expected = scene
    execute(
        server,
        "ALTER TABLE orders ADD later text",
        "UPDATE orders SET later = note",
        "DROP INDEX by_note",
        "ALTER TABLE orders DROP note",
        "ALTER TABLE orders RENAME later TO note",
        "CREATE INDEX by_note ON orders (note)",
        database=expected.name,
    )
    assert compare(expected, inspect(server, expected)) == ()


def test_a_sample_sees_a_missing_row_anywhere_and_a_changed_one_in_it(
    scene: tuple[ThrowawayPostgres, DatabaseWitness],
) -> None:
    server, whole = scene
    expected = capture(settings_of(server, whole.name, witness_bytes_max=50_000)).database(whole.name)
    assert [table.how for table in expected.tables if table.title == "public.orders"] == [How.SAMPLED]
    assert compare(expected, inspect(server, expected)) == ()
    execute(server, "UPDATE orders SET note = 'x' WHERE id = 300", database=whole.name)
    assert [each.name for each in compare(expected, inspect(server, expected))] == ["public.orders"]
    execute(server, "DELETE FROM orders WHERE id IN (7, 300)", database=whole.name)
    (told,) = compare(expected, inspect(server, expected))
    assert told.detail == "1000 rows became 998"


def test_a_part_is_read_alone(scene: tuple[ThrowawayPostgres, DatabaseWitness]) -> None:
    server, expected = scene
    found = inspect(server, expected, schema="public", table="orders")
    assert [table.title for table in found.tables] == ["public.orders"]
    assert found.tables[0].digest == next(table.digest for table in expected.tables if table.title == "public.orders")


def test_an_inspection_stops_when_asked_to(scene: tuple[ThrowawayPostgres, DatabaseWitness]) -> None:
    server, expected = scene
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        inspect(server, expected, stop_requested=stop.is_set)


def test_databases_of_other_encodings_are_captured_and_compared_in_their_own(
    postgres_servers: PostgresServers,
) -> None:
    """Of SQL_ASCII, text that is no valid UTF-8 as well, in rows and in names."""
    for major in (15, 18):
        server = postgres_servers.shared(major)
        for encoding, raw in (("LATIN1", b"\xe9t\xe9"), ("SQL_ASCII", b"\xff\xe9")):
            name = f"in_{encoding.lower()}"
            execute(
                server,
                f"DROP DATABASE IF EXISTS {name} WITH (FORCE)",
                f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
            )
            text = raw.decode("latin-1")
            odd = f"""convert_from('\\x{raw.hex()}', '{encoding}')"""
            execute(
                server,
                "CREATE TABLE words (a text)",
                f"INSERT INTO words VALUES ({odd}), ('plain')",
                f"DO $$ BEGIN EXECUTE format('CREATE TABLE %I (%I text)', 't' || {odd}, 'c' || {odd}); END $$",
                database=name,
            )
            sink = MemorySink()
            expected = capture(settings_of(server, name), sink=sink).database(name)
            assert expected.encoding == encoding
            path = f"databases/{name}/tables/public/words.sql"
            assert b"\n" + raw + b"\nplain\n\\.\n" in sink.files[path]
            odd_table = next(table for table in expected.tables if table.name != "words")
            written = text if encoding == "LATIN1" else raw.decode("utf-8", "surrogateescape")
            assert (odd_table.name, odd_table.columns[0].name) == (f"t{written}", f"c{written}")
            assert compare(expected, inspect(server, expected)) == ()
