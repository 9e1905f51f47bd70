"""Logical backups and restores into a running server, as processes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.acceptance.cli.cli_program import Program
from tests.integration.postgres_capture.servers import execute, value
from tests.servers import PostgresServers

from holdfast.sandbox import ThrowawayPostgres

MAJOR = 15
SHOP = """
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, feels mood DEFAULT 'glad');
INSERT INTO customers SELECT n, 'customer ' || n FROM generate_series(1, 500) n;
CREATE TABLE orders (id serial PRIMARY KEY, customer int REFERENCES customers, doc jsonb, total numeric,
    doubled numeric GENERATED ALWAYS AS (total * 2) STORED);
INSERT INTO orders (customer, doc, total) SELECT n % 500 + 1, '{"a": 1}', n / 7.0 FROM generate_series(1, 3000) n;
CREATE INDEX orders_by_customer ON orders (customer);
CREATE SCHEMA "odd/schema";
CREATE TABLE "odd/schema"."a b.c" (x text);
INSERT INTO "odd/schema"."a b.c" VALUES (E'tab\\t'), (NULL);
CREATE VIEW glad AS SELECT * FROM customers WHERE feels = 'glad';
CREATE MATERIALIZED VIEW sums AS SELECT sum(total) FROM orders;
SELECT lo_from_bytea(0, 'large');
"""


@dataclass(frozen=True)
class Shop:
    """An application whose server has a database `shop`, backed up in both forms."""

    program: Program
    server: ThrowawayPostgres
    logical: str
    physical: str

    def databases(self) -> set[str]:
        rows = value(self.server, "SELECT string_agg(datname, ',') FROM pg_database WHERE NOT datistemplate")
        return set(str(rows).split(","))

    def psql(self, database: str, sql: str) -> str:
        arguments = [str(self.server.programs.path("psql")), "-XqAt", "-v", "ON_ERROR_STOP=1", "-f", "-"]
        address = self.server.connection_string(database)
        done = subprocess.run([*arguments, "-d", address], input=sql.encode(), stdout=subprocess.PIPE, check=True)
        return done.stdout.decode().strip()


@pytest.fixture(scope="module")
def shop(postgres_servers: PostgresServers) -> Iterator[Shop]:
    server = postgres_servers.start_copy(MAJOR)
    execute(server, "CREATE DATABASE shop")
    program = Program(postgres_servers.new_folder("cli"))
    program.init(source=f"orders=postgresql://postgres@127.0.0.1:{server.port}/shop")
    path = program.folder / "holdfast.yaml"
    text = path.read_text()
    assert "kind: postgres" in text
    path.write_text(text.replace("kind: postgres", "kind: postgres, capture: [physical, logical]", 1))
    found = Shop(program, server, "", "")
    found.psql("shop", SHOP)
    found.psql("shop", "ALTER DATABASE shop SET work_mem = '7MB'; COMMENT ON DATABASE shop IS 'it''s the shop'")
    events = [event for event in program.done("backup", "--json").events if event["event"] == "backup"]
    ids = {event["form"]: event["id"] for event in events}
    yield Shop(program, server, ids["logical"], ids["physical"])
    postgres_servers.drop(server)


def test_both_forms_are_taken_and_listed(shop: Shop) -> None:
    listed = shop.program.done("backups", "--json").document
    assert {row["form"] for row in listed} == {"physical", "logical"}
    assert shop.program.done("check", "--read-data").code == 0


def test_doctor_looks_at_what_a_logical_backup_needs(shop: Shop) -> None:
    told = shop.program.run("doctor").out
    assert "client programs of PostgreSQL 15" in told
    assert "can read every table of" in told
    assert "has every extension in use" in told


def test_doctor_names_extensions_that_this_machine_lacks(shop: Shop) -> None:
    execute(shop.server, "CREATE DATABASE extended")
    columns = "oid, extname, extowner, extnamespace, extrelocatable, extversion"
    shop.psql("extended", f"INSERT INTO pg_extension ({columns}) VALUES (99999, 'not_here', 10, 11, false, '1')")
    told = shop.program.run("doctor").out
    assert "lacks extensions that the databases use: not_here" in told
    execute(shop.server, "DROP DATABASE extended")


def test_cat_gives_a_script_that_psql_loads(shop: Shop) -> None:
    script = shop.program.done("cat", f"{shop.logical}:databases/shop/tables/public/customers.sql").out
    execute(shop.server, "CREATE DATABASE by_hand")
    shop.psql(
        "by_hand", "CREATE TYPE mood AS ENUM ('glad', 'sad'); CREATE TABLE customers (id int, name text, feels mood)"
    )
    shop.psql("by_hand", script)
    assert shop.psql("by_hand", "SELECT count(*), min(feels) FROM customers") == "500|glad"


def test_ls_reaches_tables_with_odd_names(shop: Shop) -> None:
    listed = shop.program.done("ls", f"{shop.logical}:databases/shop/tables", "--json").document
    assert "databases/shop/tables/odd%2fschema/a b.c.sql" in {entry["path"] for entry in listed["entries"]}


def test_a_database_comes_back_beside_equal_to_its_witness(shop: Shop) -> None:
    address = f"postgresql://postgres@127.0.0.1:{shop.server.port}/shop2"
    event = shop.program.done("restore", "orders", "--only", "shop", "--into", address, "--json").events[-1]
    assert event["database"] == "shop2"
    assert (event["differences"], event["tables_compared"], event["rows_compared"]) == ([], 3, 3502)
    assert shop.psql("shop2", "SELECT count(*), sum(doubled) FROM orders") == shop.psql(
        "shop", "SELECT count(*), sum(doubled) FROM orders"
    )
    assert shop.psql("shop2", "SHOW work_mem; SELECT nextval('orders_id_seq')") == "7MB\n3001"
    comment = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'shop2'"
    assert shop.psql("shop2", comment) == "it's the shop"
    again = shop.program.run("restore", "orders", "--only", "shop", "--into", address)
    assert again.code == 2
    assert "shop2 already" in again.err


def test_passwords_of_new_roles_come_along_only_when_asked_for(shop: Shop, postgres_servers: PostgresServers) -> None:
    execute(shop.server, "CREATE ROLE keeper LOGIN PASSWORD 'of old'", "CREATE DATABASE kept OWNER keeper")
    taken = shop.program.done("backup", "--json").events
    logical = next(event["id"] for event in taken if event["event"] == "backup" and event["form"] == "logical")
    other = postgres_servers.start(MAJOR)
    password = "SELECT rolpassword IS NOT NULL FROM pg_authid WHERE rolname = 'keeper'"
    for words, has_password in (((), False), (("--with-passwords",), True)):
        address = f"postgresql://postgres@127.0.0.1:{other.port}/kept"
        shop.program.done("restore", "--backup", logical, "--only", "kept", "--into", address, *words)
        assert value(other, password) is has_password
        execute(other, "DROP DATABASE kept", "DROP ROLE keeper")
    postgres_servers.drop(other)
    execute(shop.server, "DROP DATABASE kept", "DROP ROLE keeper")


@pytest.mark.parametrize("form", ["logical", "physical"])
def test_one_table_comes_back_from_either_form(shop: Shop, form: str) -> None:
    before = shop.databases()
    words = ("restore", "--backup", getattr(shop, form), "--only", "shop.public.orders", "--json")
    event = shop.program.done(*words).events[-1]
    assert (event["differences"], event["tables_compared"], event["rows_compared"]) == ([], 1, 3000)
    assert shop.databases() - before == {event["database"]}
    assert shop.psql(event["database"], "SELECT count(*) FROM orders") == "3000"
    assert shop.psql(event["database"], "SELECT count(*) FROM pg_indexes WHERE indexname = 'orders_by_customer'") == "1"
    assert shop.psql(event["database"], "SELECT count(*) FROM pg_tables WHERE tablename = 'customers'") == "0"


def test_rows_of_one_table_come_back_into_a_table_beside_the_live_one(shop: Shop) -> None:
    before = shop.databases()
    words = ("restore", "orders", "--only", "shop.public.orders", "--into-table", "orders_then", "--json")
    event = shop.program.done(*words).events[-1]
    assert (event["database"], event["table"], event["differences"]) == ("shop", "orders_then", [])
    assert shop.psql("shop", "SELECT count(*), sum(doubled) FROM orders_then") == shop.psql(
        "shop", "SELECT count(*), sum(doubled) FROM orders"
    )
    assert shop.databases() == before


def test_in_place_replaces_the_live_database_under_a_client_and_keeps_it(shop: Shop) -> None:
    shop.psql("shop", "DELETE FROM orders; CREATE TABLE later (x int); ALTER DATABASE shop CONNECTION LIMIT 50")
    client = subprocess.Popen(
        [str(shop.server.programs.path("psql")), "-Xq", "-d", shop.server.connection_string("shop")],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert shop.program.run("restore", "orders", "--only", "shop", "--in-place").code == 2  # nobody agrees
        event = shop.program.done("restore", "orders", "--only", "shop", "--in-place", "--yes", "--json").events[-1]
    finally:
        client.kill()
        client.communicate()
    assert (event["database"], event["differences"]) == ("shop", [])
    assert shop.psql("shop", "SELECT count(*) FROM orders") == "3000"
    assert shop.psql(event["kept_as"], "SELECT count(*) FROM orders") == "0"
    assert shop.psql("shop", "SELECT datconnlimit FROM pg_database WHERE datname = 'shop'") == "50"
    runs = json.loads(shop.program.done("runs", "--json").out)
    assert runs[-1]["verb"] == "restore"
    assert runs[-1]["figures"]["differences"] == 0


def test_what_the_server_or_the_backup_lacks_is_refused_before_anything_is_made(shop: Shop) -> None:
    before = shop.databases()
    absent = f"postgresql://postgres@127.0.0.1:{shop.server.port}/absent"
    for words, said in (
        (("--only", "absent"), "no database absent"),
        (("--only", "shop.public.absent"), "no table in shop.public.absent"),
        (("--only", "a.b.c.d"), "names no part"),
        (("--only", "shop", "--into", absent, "--in-place"), "absent"),
        (("--only", "shop.public.orders", "--in-place", "--yes"), "a part of a database"),
        (("--only", "shop", "--delta"), "into folders"),
    ):
        ended = shop.program.run("restore", "orders", *words)
        assert ended.code in (1, 2), ended.err
        assert said in ended.err
    assert shop.databases() == before


def test_prepared_transactions_keep_the_live_database_in_its_place(shop: Shop) -> None:
    execute(shop.server, "ALTER SYSTEM SET max_prepared_transactions = 5")
    shop.server.restart()
    shop.psql("shop", "BEGIN; CREATE TABLE pending (x int); PREPARE TRANSACTION 'waiting'")
    ended = shop.program.run("restore", "orders", "--only", "shop", "--in-place", "--yes")
    shop.psql("shop", "ROLLBACK PREPARED 'waiting'")
    assert ended.code == 1
    assert "waiting" in ended.err
    assert "COMMIT PREPARED" in ended.err
