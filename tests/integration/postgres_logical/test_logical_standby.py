"""A hot standby as the place to read from."""

from __future__ import annotations

import pytest
from tests.conftest import StartPostgres
from tests.integration.postgres_capture.servers import start_standby
from tests.integration.postgres_logical.logical_scene import (
    MemorySink,
    capture,
    clients,
    execute,
    make_database,
    settings_of,
)
from tests.servers import PostgresServers

from holdfast.model.errors import Unavailable
from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.postgres.logical.witness import How, compare

TABLES = (
    "CREATE TABLE orders AS SELECT i AS id, md5(i::text) AS note FROM generate_series(1, 300000) i",
    "CREATE UNLOGGED TABLE quick AS SELECT 7 AS a",
    "CREATE UNLOGGED SEQUENCE tickets",
    "CREATE SEQUENCE numbers START 40",
)


@pytest.mark.parametrize("postgres_major", [15, 18], indirect=True, ids=["pg15", "pg18"])
def test_a_standby_gives_what_its_primary_has_but_for_unlogged_tables(
    postgres_servers: PostgresServers,
    postgres_server: ThrowawayPostgres,
    postgres_major: int,
    new_postgres: StartPostgres,
) -> None:
    database = make_database(postgres_server, "shop", *TABLES)
    standby = start_standby(postgres_server, postgres_servers, postgres_major, new_postgres)
    of_primary = capture(settings_of(postgres_server, database))
    taken = capture(settings_of(standby, database), expected=of_primary.captured.identity)
    assert taken.captured.details["in_recovery"] is True
    assert taken.table(database, "public.quick").how is How.NOT_COMPARED
    assert taken.table(database, "public.orders") == of_primary.table(database, "public.orders")
    assert taken.sink.rows(database, "public", "orders") == of_primary.sink.rows(database, "public", "orders")
    told = " ".join(taken.captured.notices)
    assert "1 unlogged tables cannot be read on a standby and come back empty, first public.quick" in told
    assert "1 unlogged sequences" in told
    differences = compare(of_primary.database(database), taken.database(database))
    assert [str(each) for each in differences] == ["sequence public.tickets is missing"]


@pytest.mark.parametrize("postgres_major", [18], indirect=True, ids=["pg18"])
def test_a_capture_that_the_standbys_replay_ends_is_told_with_what_to_set(
    postgres_servers: PostgresServers,
    postgres_server: ThrowawayPostgres,
    postgres_major: int,
    new_postgres: StartPostgres,
) -> None:
    database = make_database(postgres_server, "shop", *TABLES)
    standby = start_standby(postgres_server, postgres_servers, postgres_major, new_postgres)
    acted: list[str] = []

    def truncate(path: str, size: int) -> None:
        if path.endswith("orders.sql") and size > 100_000 and not acted:
            acted.append(path)
            execute(postgres_server, "TRUNCATE orders", database=database)

    parameters = ("ALTER SYSTEM SET max_standby_streaming_delay = 0", "ALTER SYSTEM SET max_standby_archive_delay = 0")
    execute(standby, *parameters, "SELECT pg_reload_conf()")
    sink = MemorySink(truncate)
    with pytest.raises(Unavailable, match="conflict with recovery") as caught:
        capture(settings_of(standby, database), sink=sink)
    assert "hot_standby_feedback" in caught.value.hint
    assert "@witness.json" not in sink.files
    assert clients() == []
