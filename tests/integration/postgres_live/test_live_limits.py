"""Restores by a role that is no superuser, of names that are odd, and of several databases at one name."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from tests.integration.postgres_capture.servers import execute, value
from tests.integration.postgres_live import shop
from tests.integration.postgres_live.conftest import Live
from tests.integration.postgres_live.kept_folder import keep
from tests.servers import PostgresServers, quick_settings

from holdfast.model.errors import Denied, SourceFailed
from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.postgres.logical.names import Selection
from holdfast.sources.postgres.logical.refill import PostgresServerRefill, ServerTarget

ODD = 'Shop "x" \\ ; % é\'s = [y]'


@pytest.fixture
def server(postgres_servers: PostgresServers) -> Iterator[ThrowawayPostgres]:
    started = postgres_servers.start_copy(15, quick_settings())
    yield started
    postgres_servers.drop(started)


def plain(server: ThrowawayPostgres, postgres_servers: PostgresServers) -> Live:
    """Make a database that an ordinary role owns with everything in it, and back it up."""
    execute(server, "CREATE ROLE app LOGIN CREATEDB", "CREATE DATABASE plain OWNER app")
    execute(
        server,
        "SET ROLE app",
        "CREATE TABLE t (id int PRIMARY KEY)",
        "INSERT INTO t SELECT generate_series(1, 100)",
        database="plain",
    )
    return Live(server, keep(shop.settings_of(server), postgres_servers.new_folder("plain") / "kept", "plain"))


def test_an_owner_with_createdb_restores_in_place(server: ThrowawayPostgres, postgres_servers: PostgresServers) -> None:
    live = plain(server, postgres_servers)
    report = live.restore(live.target("plain", in_place=True, only="plain", role="app"))
    assert report.differences == ()
    assert report.kept_as is not None
    assert value(server, "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'plain'") == "app"


def test_a_role_that_may_not_rename_the_live_one_is_told_before_anything_is_written(
    server: ThrowawayPostgres, postgres_servers: PostgresServers
) -> None:
    # It may make databases and give things to app, but plain is not its to rename.
    live = plain(server, postgres_servers)
    execute(server, "CREATE ROLE other LOGIN CREATEDB", "GRANT app TO other", "ALTER ROLE other NOINHERIT")
    steps: list[str] = []
    refill = PostgresServerRefill(at_step=steps.append)
    with pytest.raises(Denied, match="plain belongs to app") as raised:
        live.restore(live.target("plain", in_place=True, only="plain", role="other"), refill)
    assert value(server, "SELECT count(*) FROM t", "plain") == 100
    assert raised.value.hint
    assert steps == []
    assert shop.databases(server) == {"plain"}


def test_a_database_with_an_odd_name_is_swapped_with_all_that_belongs_to_it(
    server: ThrowawayPostgres, postgres_servers: PostgresServers
) -> None:
    name = sql.Identifier(ODD)
    with psycopg.connect(server.connection_string(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE owner"))
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER owner CONNECTION LIMIT 9").format(name))
        connection.execute(sql.SQL("ALTER DATABASE {} SET standard_conforming_strings = off").format(name))
        connection.execute(sql.SQL("ALTER DATABASE {} SET shop.note = 'a \\ b'").format(name))
        connection.execute(sql.SQL("COMMENT ON DATABASE {} IS 'it''s \\ here'").format(name))
    execute(server, "CREATE TABLE t AS SELECT 1 AS id", database=ODD)
    live = Live(server, keep(shop.settings_of(server), postgres_servers.new_folder("odd") / "kept", ODD))
    facts = (
        "SELECT concat_ws('|', datname, pg_get_userbyid(datdba), datconnlimit, shobj_description(oid, 'pg_database'), "
        "(SELECT array_agg(s ORDER BY s)::text FROM pg_db_role_setting, unnest(setconfig) s "
        "WHERE setdatabase = d.oid)) FROM pg_database d "
        "WHERE datname LIKE 'Shop%]'"
    )
    before = value(server, facts)
    target = ServerTarget(shop.settings_of(server), ODD, Selection(ODD), in_place=True)
    report = live.restore(target)
    assert report.differences == ()
    assert value(server, facts) == before
    assert value(server, "SELECT count(*) FROM pg_database WHERE datname LIKE 'Shop%'") == 2


def test_what_is_ready_of_one_database_is_not_taken_for_another(
    server: ThrowawayPostgres, postgres_servers: PostgresServers
) -> None:
    for name, rows in (("one", 10), ("two", 20)):
        execute(server, f"CREATE DATABASE {name}")
        execute(server, f"CREATE TABLE t AS SELECT generate_series(1, {rows}) AS id", database=name)
    live = Live(server, keep(shop.settings_of(server), postgres_servers.new_folder("two") / "kept"))

    class DeadError(BaseException):
        """Stands for a death after which nothing of ours runs any more."""

    def die(step: str) -> None:
        if step == "swap":
            raise DeadError

    settings = shop.settings_of(server)
    with pytest.raises(DeadError):
        live.restore(ServerTarget(settings, "two", Selection("one"), in_place=True), PostgresServerRefill(at_step=die))
    report = live.restore(ServerTarget(settings, "two", Selection("two"), in_place=True))
    assert report.differences == ()
    assert value(server, "SELECT count(*) FROM t", "two") == 20


def test_a_live_template_is_swapped_and_what_fails_before_is_named(
    server: ThrowawayPostgres, postgres_servers: PostgresServers
) -> None:
    execute(server, "CREATE DATABASE mould")
    execute(server, "CREATE TABLE t AS SELECT 1 AS id", database="mould")
    live = Live(server, keep(shop.settings_of(server), postgres_servers.new_folder("mould") / "kept", "mould"))
    execute(server, "ALTER DATABASE mould IS_TEMPLATE true")
    target = ServerTarget(shop.settings_of(server), "mould", Selection("mould"), in_place=True)
    ours = "SELECT coalesce(array_agg(datname::text), '{}') FROM pg_database WHERE datname LIKE 'holdfast%'"

    def fail(step: str) -> None:
        if step == "ready":
            raise SourceFailed("it fails here")

    with pytest.raises(SourceFailed) as raised:
        live.restore(target, PostgresServerRefill(at_step=fail))
    assert all(name in raised.value.hint for name in value(server, ours))
    report = live.restore(target)
    assert report.differences == ()
    assert value(server, "SELECT datistemplate FROM pg_database WHERE datname = 'mould'") is True
    assert value(server, ours) == []
