"""One table of a cluster of twenty databases comes back beside, while an application goes on; nothing else changes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.acceptance.cli.cli_program import Program
from tests.integration.postgres_capture.servers import execute, value
from tests.integration.postgres_live.live import rows
from tests.integration.postgres_logical.busy_database import SCENE, change, load, transfer
from tests.servers import PostgresServers

from holdfast.sandbox import ThrowawayPostgres

MAJOR = 15
NAMES = [f"tenant_{number:02d}" for number in range(1, 21)]
CHOSEN, BUSY = NAMES[6], NAMES[12]
OBJECTS = (
    "SELECT relname, relfilenode, relkind::text FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
)


@dataclass(frozen=True)
class Tenants:
    program: Program
    server: ThrowawayPostgres
    backups: dict[str, str]

    def objects(self) -> dict[str, list[tuple[object, ...]]]:
        """What lies in every database that nobody writes to; files change when anything of a table is rewritten."""
        return {name: rows(self.server, OBJECTS, name) for name in NAMES if name != BUSY}

    def databases(self) -> set[str]:
        return {name for (name,) in rows(self.server, "SELECT datname FROM pg_database")}


@pytest.fixture(scope="module")
def tenants(postgres_servers: PostgresServers) -> Iterator[Tenants]:
    server = postgres_servers.start_copy(MAJOR)
    for number, name in enumerate(NAMES, 1):
        execute(server, f"CREATE DATABASE {name}")
        execute(
            server,
            "CREATE TYPE state AS ENUM ('new', 'paid')",
            "CREATE TABLE customers (id int PRIMARY KEY)",
            "CREATE TABLE orders (id serial PRIMARY KEY, customer int REFERENCES customers, state state DEFAULT 'new')",
            f"INSERT INTO customers SELECT generate_series(1, {number})",
            f"INSERT INTO orders (customer) SELECT 1 + n % {number} FROM generate_series(1, {100 * number}) n",
            database=name,
        )
    execute(server, *SCENE, database=BUSY)
    program = Program(postgres_servers.new_folder("tenants"))
    program.init(source=f"tenants=postgresql://postgres@127.0.0.1:{server.port}/{CHOSEN}")
    path = program.folder / "holdfast.yaml"
    path.write_text(path.read_text().replace("kind: postgres", "kind: postgres, capture: [physical, logical]", 1))
    with load(server, BUSY, transfer, change):
        events = [event for event in program.done("backup", "--json").events if event["event"] == "backup"]
    yield Tenants(program, server, {event["form"]: event["id"] for event in events})
    postgres_servers.drop(server)


@pytest.mark.parametrize("form", ["logical", "physical"])
def test_one_table_of_twenty_databases_comes_back_beside_under_a_live_server(tenants: Tenants, form: str) -> None:
    execute(tenants.server, "DELETE FROM orders WHERE id % 2 = 0", database=CHOSEN)
    before, objects = tenants.databases(), tenants.objects()
    with load(tenants.server, BUSY, transfer, change) as done:
        restored = tenants.program.done(
            "restore", "--backup", tenants.backups[form], "--only", f"{CHOSEN}.public.orders", "--json"
        ).events[-1]
        so_far = done[0]
        table = f"orders_{random.randrange(10**6)}"
        beside = tenants.program.done(
            "restore", "--backup", tenants.backups[form], "--only", f"{CHOSEN}.public.orders", "--into-table", table,
            "--json",
        ).events[-1]  # fmt: skip
        assert done[0] > so_far > 0
    assert (restored["differences"], restored["rows_compared"]) == ([], 700)
    assert (beside["differences"], beside["rows_compared"]) == ([], 700)
    assert tenants.databases() - before == {restored["database"]}
    assert value(tenants.server, "SELECT count(*) FROM orders", restored["database"]) == 700
    assert value(tenants.server, "SELECT to_regclass('public.customers') IS NULL", restored["database"])
    assert value(tenants.server, f"SELECT count(*) FROM {table}", CHOSEN) == 700
    assert value(tenants.server, "SELECT count(*) FROM orders", CHOSEN) == 350
    execute(tenants.server, f"DROP TABLE {table}", database=CHOSEN)
    execute(tenants.server, f"DROP DATABASE {restored['database']}")
    assert tenants.objects() == objects
