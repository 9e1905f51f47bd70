"""The database of the tests of restores into a server: its schema, its rows, and what must be equal afterwards."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psycopg
from tests.integration.postgres_capture.servers import execute, value
from tests.servers import installed

from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.postgres.logical.names import quote_identifier
from holdfast.sources.postgres.settings import PostgresSettings, settings_from_dsn

ROLES = (
    "CREATE ROLE clerk LOGIN PASSWORD 'old secret' CONNECTION LIMIT 7",
    'CREATE ROLE "odd clerk"',
    'GRANT clerk TO "odd clerk"',
)
SHOP = """
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE FUNCTION next_total() RETURNS int LANGUAGE sql AS 'SELECT 41 + 1';
CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, feels mood DEFAULT 'glad');
INSERT INTO customers SELECT n, 'customer ' || n FROM generate_series(1, 50) n;
CREATE TABLE orders (id serial PRIMARY KEY, customer int REFERENCES customers, feels mood,
    total int DEFAULT next_total(), doubled int GENERATED ALWAYS AS (total * 2) STORED);
INSERT INTO orders (customer, feels, total) SELECT n % 50 + 1, 'sad', n FROM generate_series(1, 400) n;
CREATE INDEX orders_by_customer ON orders (customer);
ALTER TABLE orders OWNER TO clerk;
GRANT SELECT ON orders TO "odd clerk";
COMMENT ON TABLE orders IS 'it''s the orders';
CREATE TABLE nothing_in_it (id int);
CREATE TABLE days (day date, what text) PARTITION BY RANGE (day);
CREATE TABLE days_2025 PARTITION OF days FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE days_2026 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE INDEX ON days (day);
INSERT INTO days SELECT date '2025-12-01' + n, 'day ' || n FROM generate_series(1, 60) n;
CREATE SCHEMA "odd/schema";
CREATE TABLE "odd/schema"."a b.c" (x text, at timestamptz DEFAULT '2026-01-15');
INSERT INTO "odd/schema"."a b.c" (x) VALUES (E'tab\\t'), (NULL), (E'\\\\.'), ('');
CREATE MATERIALIZED VIEW sums AS SELECT sum(total) AS total FROM orders;
CREATE MATERIALIZED VIEW a_sums_again AS SELECT total FROM sums;
SELECT lo_from_bytea(0, 'large');
"""


def settings_of(server: ThrowawayPostgres, role: str = "postgres") -> PostgresSettings:
    """How a server is reached, by the client programs of its own version."""
    settings = settings_from_dsn(psycopg.conninfo.make_conninfo(server.connection_string(), user=role))
    return replace(settings, query_seconds_max=30.0, programs=installed(server.programs.major).folder)


def psql(server: ThrowawayPostgres, database: str, sql: str) -> str:
    """Run a script of several statements; returns what it prints."""
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    command = [str(server.programs.path("psql")), "-XqAt", "-v", "ON_ERROR_STOP=1", "-f", "-"]
    done = subprocess.run(
        [*command, "-d", server.connection_string(database)],
        input=sql.encode(),
        capture_output=True,
        env=surroundings,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def build(server: ThrowawayPostgres, database: str = "shop", roles: Sequence[str] = ROLES) -> None:
    """Make the roles and the database with everything that belongs to it."""
    name = quote_identifier(database)
    execute(server, *roles, f"CREATE DATABASE {name}")
    psql(server, database, SHOP)
    execute(
        server,
        f"ALTER DATABASE {name} OWNER TO clerk",
        f"ALTER DATABASE {name} CONNECTION LIMIT 33",
        f"ALTER DATABASE {name} SET work_mem = '7MB'",
        f"ALTER ROLE clerk IN DATABASE {name} SET work_mem = '9MB'",
        f'GRANT CREATE ON DATABASE {name} TO "odd clerk"',
        f"COMMENT ON DATABASE {name} IS 'it''s the \\ shop'",
    )


def databases(server: ThrowawayPostgres) -> set[str]:
    found = value(server, "SELECT array_agg(datname::text) FROM pg_database WHERE NOT datistemplate")
    return set(found) - {"postgres"}


def belongs(server: ThrowawayPostgres, database: str) -> str:
    """Tell in one text what belongs to a database by its name."""
    told = value(
        server,
        "SELECT concat_ws(' | ', pg_get_userbyid(datdba), datconnlimit, datacl, shobj_description(oid, 'pg_database'), "
        "pg_encoding_to_char(encoding), datcollate, datctype, (SELECT string_agg(setrole::regrole || ':' || "
        "setconfig::text, ',' ORDER BY setrole) FROM pg_db_role_setting WHERE setdatabase = d.oid)) "
        f"FROM pg_database d WHERE datname = '{database}'",
    )
    return str(told)


def dump(server: ThrowawayPostgres, database: str, programs: Path | None = None) -> str:
    """Tell everything that pg_dump says of a database: schema and rows, without what is random in its text."""
    program = (programs or server.programs.folder) / "pg_dump"
    done = subprocess.run(
        [program, "--no-password", "-d", server.connection_string(database)],
        capture_output=True,
        timeout=60,
        check=True,
    )
    lines = done.stdout.decode().split("\n")
    return "\n".join(line for line in lines if not line.startswith(("\\restrict", "\\unrestrict", "-- Dumped")))
