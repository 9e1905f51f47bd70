"""Restores of whole databases into running servers: equal, named, compared, with what belongs to a database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import StartPostgres
from tests.integration.postgres_live import live
from tests.integration.postgres_live.live import FolderContent, execute, restore, rows, take, target, value
from tests.servers import PostgresServers

from holdfast.model.errors import ConfigInvalid
from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.postgres.logical.names import table_path

SHOP = (
    "CREATE TYPE mood AS ENUM ('a', 'b')",
    "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE TABLE orders (id serial PRIMARY KEY, m mood, n int DEFAULT one(), "
    "g int GENERATED ALWAYS AS IDENTITY, twice int GENERATED ALWAYS AS (n * 2) STORED)",
    "CREATE TABLE items (id int REFERENCES orders, t text)",
    "CREATE INDEX items_t ON items (t)",
    "CREATE TABLE guarded (a int CHECK (a < current_setting('my.most')::int))",
    "CREATE TABLE by_mood (m mood, n int) PARTITION BY HASH (m)",
    "CREATE TABLE by_mood_0 PARTITION OF by_mood FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
    "CREATE TABLE by_mood_1 PARTITION OF by_mood FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
    "INSERT INTO by_mood SELECT m, i FROM unnest(enum_range(NULL::mood)) m, generate_series(1, 5) i",
    "INSERT INTO orders (m) SELECT 'a' FROM generate_series(1, 3000)",
    "INSERT INTO items SELECT id, 'x' || id FROM orders",
    "CREATE MATERIALIZED VIEW z_view AS SELECT * FROM orders",
    "CREATE MATERIALIZED VIEW a_view AS SELECT count(*) AS n FROM z_view",
    "ALTER TABLE orders OWNER TO keeper",
    'GRANT SELECT ON orders TO "re ader"',
    "SELECT lo_from_bytea(4711, 'abc')",
)
BELONGINGS = (
    "COMMENT ON DATABASE shop IS E'it''s\\\\; \"the\" shop'",
    "ALTER DATABASE shop CONNECTION LIMIT 33",
    "ALTER DATABASE shop SET my.most = '10'",
    "ALTER DATABASE shop SET standard_conforming_strings = off",
    "ALTER DATABASE shop SET default_transaction_read_only = on",
    "ALTER ROLE keeper IN DATABASE shop SET work_mem = '3MB'",
    'GRANT CREATE ON DATABASE shop TO "re ader"',
    "ALTER DATABASE shop OWNER TO keeper",
)
BELONGING = """SELECT pg_get_userbyid(datdba), datconnlimit, datacl::text, shobj_description(oid, 'pg_database'),
(SELECT array_agg(setrole::regrole::text || setconfig::text ORDER BY setrole)
 FROM pg_db_role_setting WHERE setdatabase = d.oid)
FROM pg_database d WHERE datname = '{}'"""


def make_shop(server: ThrowawayPostgres) -> None:
    execute(server, "CREATE ROLE keeper LOGIN PASSWORD 'secret'", 'CREATE ROLE "re ader"', "CREATE ROLE stranger")
    execute(server, "CREATE DATABASE shop", "ALTER DATABASE shop SET my.most = '10'")
    execute(server, *SHOP, "INSERT INTO guarded SELECT generate_series(1, 9)", database="shop")
    execute(server, *BELONGINGS)


@pytest.fixture(scope="module")
def shop(postgres_servers: PostgresServers) -> Iterator[ThrowawayPostgres]:
    server = postgres_servers.start(15)
    make_shop(server)
    yield server
    postgres_servers.drop(server)


@pytest.fixture(scope="module")
def backup(shop: ThrowawayPostgres, tmp_path_factory: pytest.TempPathFactory) -> FolderContent:
    return take(shop, tmp_path_factory.mktemp("backup") / "shop", "shop")


def test_a_database_comes_back_beside_under_a_dated_name_equal_and_with_what_belongs_to_it(
    shop: ThrowawayPostgres, backup: FolderContent
) -> None:
    report = restore(backup, target(shop))
    assert report.database == f"shop_restored_{live.STAMP_TEXT}"
    assert report.differences == ()
    assert report.rows_compared == 3000 + 3000 + 9 + 10
    assert rows(shop, BELONGING.format(report.database)) == rows(shop, BELONGING.format("shop"))
    assert value(shop, "SELECT n FROM a_view", report.database) == 3000
    assert value(shop, "SELECT last_value FROM orders_id_seq", report.database) == 3000
    assert value(shop, "SELECT convert_from(lo_get(4711), 'UTF8')", report.database) == "abc"
    analyzed = "SELECT count(*) FROM pg_class WHERE reltuples > 0 AND relname IN ('orders', 'items')"
    assert value(shop, analyzed, report.database) == 2
    execute(shop, f'ALTER DATABASE "{report.database}" SET default_transaction_read_only = off')
    execute(shop, f'DROP DATABASE "{report.database}"')


@pytest.mark.parametrize("major", [15, 18])
def test_a_database_comes_back_on_a_new_server_with_the_roles_it_needs_and_no_password(
    backup: FolderContent, new_postgres: StartPostgres, major: int
) -> None:
    server = new_postgres(major)
    execute(server, "CREATE ROLE \"re ader\" PASSWORD 'its own' CONNECTION LIMIT 3")
    before = value(server, "SELECT rolpassword FROM pg_authid WHERE rolname = 're ader'")
    report = restore(backup, target(server, "new shop"))
    assert report.database == "new shop"
    assert report.differences == ()
    roles = {name: (password, limit) for name, password, limit in rows(
        server, "SELECT rolname, rolpassword, rolconnlimit FROM pg_authid WHERE rolname !~ '^pg_'")}  # fmt: skip
    assert roles.keys() == {"postgres", "keeper", "re ader"}
    assert roles["keeper"] == (None, -1)
    assert roles["re ader"] == (before, 3)
    assert any("1 roles were made: keeper" in note for note in report.notes)


def test_a_password_comes_along_when_asked_for(backup: FolderContent, new_postgres: StartPostgres) -> None:
    server = new_postgres(15)
    restore(backup, target(server, "shop", with_passwords=True))
    assert value(server, "SELECT rolpassword FROM pg_authid WHERE rolname = 'keeper'").startswith("SCRAM-SHA-256$")


def test_in_place_the_new_database_gets_what_belongs_to_the_live_one_now_and_the_old_one_is_kept(
    backup: FolderContent, new_postgres: StartPostgres
) -> None:
    server = new_postgres(15)
    make_shop(server)
    execute(server, "ALTER DATABASE shop CONNECTION LIMIT 44", "COMMENT ON DATABASE shop IS 'newer'")
    execute(server, "ALTER DATABASE shop RESET my.most", "ALTER ROLE \"re ader\" IN DATABASE shop SET work_mem = '1MB'")
    expected = rows(server, BELONGING.format("shop"))
    old = value(server, "SELECT oid FROM pg_database WHERE datname = 'shop'")
    writable = "SET default_transaction_read_only = off"
    execute(server, writable, "DELETE FROM items", "DROP TABLE guarded", database="shop")
    report = restore(backup, target(server, "shop", in_place=True))
    assert (report.database, report.kept_as, report.differences) == ("shop", f"shop_before_{live.STAMP_TEXT}", ())
    assert rows(server, BELONGING.format("shop")) == expected
    assert value(server, "SELECT count(*) FROM items", "shop") == 3000
    assert value(server, f"SELECT oid FROM pg_database WHERE datname = '{report.kept_as}'") == old
    assert value(server, "SELECT count(*) FROM items", report.kept_as or "") == 0
    assert live.databases(server) == {"postgres", "shop", report.kept_as}


def test_what_differs_from_the_witness_is_named_and_never_swapped_in(
    backup: FolderContent, new_postgres: StartPostgres, tmp_path: Path
) -> None:
    server = new_postgres(15)
    make_shop(server)
    changed = FolderContent(tmp_path / "changed")
    for path in backup.paths:
        new = changed.folder / path.relative_to(backup.folder)
        new.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(path.read_bytes())
    items = changed.folder / table_path("shop", "public", "items")
    items.write_bytes(items.read_bytes().replace(b"\tx77\n", b"\tx78\n"))
    live_oid = value(server, "SELECT oid FROM pg_database WHERE datname = 'shop'")
    report = restore(changed, target(server, "shop", in_place=True))
    assert [str(each) for each in report.differences] == [
        "table public.items differs: its 3000 rows are not the same ones"
    ]
    assert (report.database, report.kept_as) == (f"shop_restored_{live.STAMP_TEXT}", None)
    assert value(server, "SELECT oid FROM pg_database WHERE datname = 'shop'") == live_oid
    assert live.databases(server) == {"postgres", "shop", report.database}


def test_a_name_that_is_taken_or_missing_is_refused_before_anything_is_written(
    shop: ThrowawayPostgres, backup: FolderContent
) -> None:
    with pytest.raises(ConfigInvalid, match="has a database shop already"):
        live.refill().plan(backup, target(shop, "shop"))
    with pytest.raises(ConfigInvalid, match="has no database shop2"):
        live.refill().plan(backup, target(shop, "shop2", in_place=True))
    assert live.databases(shop) == {"postgres", "shop"}


def test_steps_are_told_in_their_order(backup: FolderContent, shop: ThrowawayPostgres) -> None:
    steps: list[str] = []
    report = restore(backup, target(shop, "steps"), at_step=steps.append)
    assert steps == [
        *("look", "create", "mark", "roles", "schema", "rows", "large objects", "sequences", "indexes and constraints"),
        *("materialised views", "compare", "properties", "name"),
    ]
    assert [name for name, _ in report.seconds] == steps[1:]
    execute(shop, "DROP DATABASE steps")
