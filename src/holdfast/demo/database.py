"""The demo's data: made fast, and the facts about it that are recorded before the disaster and compared after."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path

from holdfast.demo.programs import run_program
from holdfast.sandbox import PostgresPrograms, PostgresSettings, ThrowawayPostgres
from holdfast.sources.postgres.connection import Session, open_sql
from holdfast.sources.postgres.roles import create_role, quote_identifier
from holdfast.sources.postgres.settings import settings_from_dsn

DATABASE = "shop"
ROLE = "holdfast"
FILL_SECONDS_MAX = 1800.0
QUERY_SECONDS_MAX = 300.0
SCRAM_ROUNDS = 4096

PARAMETERS = {
    "checkpoint_timeout": "30min",
    "fsync": "off",
    "max_wal_size": "384MB",
    "min_wal_size": "80MB",
    "shared_buffers": "128MB",
}
"""A server that lives for a minute need not survive its machine, so it does not wait for the disk."""

CUSTOMERS = """CREATE TABLE public.customers AS
SELECT id, 'customer ' || id AS name, md5(id::text) || '@example.com' AS address
FROM generate_series(1, $1::int) AS id"""

# Every value follows from the id: nothing random, and yet no two rows alike.
ORDERS = """CREATE TABLE public.orders AS
SELECT id,
       1 + abs(hashint4(id) % 20000) AS customer,
       timestamptz '2024-01-01 00:00+00' + id * interval '97 seconds' AS placed_at,
       jsonb_build_object(
           'status', (ARRAY['open', 'paid', 'sent', 'returned'])[1 + abs(hashint4(id + 1) % 4)],
           'reference', md5(id::text),
           'items', jsonb_build_array(jsonb_build_object(
               'article', 'A-' || abs(hashint4(id + 2) % 5000),
               'quantity', 1 + abs(hashint4(id + 3) % 8),
               'price', abs(hashint4(id + 4) % 100000) / 100.0))) AS content
FROM generate_series(1, {orders}) AS id"""

UNTOUCHED = ("customers", "orders")
"""Tables that nobody writes to: equal to the last byte, or not brought back."""

BALANCES = """SELECT (SELECT coalesce(sum(abalance), 0) FROM public.pgbench_accounts),
       (SELECT coalesce(sum(tbalance), 0) FROM public.pgbench_tellers),
       (SELECT coalesce(sum(bbalance), 0) FROM public.pgbench_branches),
       (SELECT coalesce(sum(delta), 0) FROM public.pgbench_history),
       (SELECT count(*) FROM public.pgbench_history)"""


@dataclass(frozen=True, slots=True)
class TableFacts:
    """What a table holds: how many rows, and one digest over all of them in the order of their keys."""

    name: str
    rows: int
    digest: str


@dataclass(frozen=True, slots=True)
class Balances:
    """pgbench's four sums, which every transaction changes alike, and how many transactions there were."""

    accounts: int
    tellers: int
    branches: int
    history: int
    transactions: int

    @property
    def agree(self) -> bool:
        """Whether no transaction is there in part."""
        return self.accounts == self.tellers == self.branches == self.history


def make_server(programs: PostgresPrograms, folder: Path) -> ThrowawayPostgres:
    """Return the server that will be lost, not started yet; its superuser's password is new and random."""
    settings = PostgresSettings(password=secrets.token_urlsafe(18), parameters=PARAMETERS)
    return ThrowawayPostgres(programs, folder, settings)


def connect(server: ThrowawayPostgres, database: str = DATABASE) -> Session:
    """Open a session of the superuser; the caller closes it."""
    return open_sql(settings_from_dsn(server.connection_string(database)))


def fill(server: ThrowawayPostgres, scale: int, orders: int) -> int:
    """Make the database with all its tables and return the size of the cluster's databases in bytes."""
    with connect(server, "postgres") as session:
        session.query(f"CREATE DATABASE {DATABASE}")
    steps = ("--initialize", "--init-steps=dtgvp", "--quiet", f"--scale={scale}")
    run_program(server.programs.path("pgbench"), *steps, server.connection_string(DATABASE))
    with connect(server) as session:
        session.query(CUSTOMERS.replace("$1", str(max(1, orders // 8))), seconds_max=FILL_SECONDS_MAX)
        session.query(ORDERS.format(orders=orders), seconds_max=FILL_SECONDS_MAX)
        for table in UNTOUCHED:
            session.query(f"ALTER TABLE public.{table} ADD PRIMARY KEY (id)", seconds_max=FILL_SECONDS_MAX)
        session.query("CREATE INDEX ON public.orders (customer)", seconds_max=FILL_SECONDS_MAX)
        session.query("CHECKPOINT", seconds_max=FILL_SECONDS_MAX)
        return int(session.query("SELECT sum(pg_database_size(oid)) FROM pg_database")[0][0] or 0)


def make_role(server: ThrowawayPostgres, password: str) -> str:
    """Make the least role that can back up and return the statement; only the password's verifier is sent."""
    statement = create_role(ROLE)
    verifier = scram_verifier(password, secrets.token_bytes(16))
    with connect(server) as session:
        session.query(statement)
        session.query(f"ALTER ROLE {quote_identifier(ROLE)} PASSWORD '{verifier}'")
    return statement


def scram_verifier(password: str, salt: bytes) -> str:
    """Return what PostgreSQL keeps of an ASCII password (RFC 5802, section 3; RFC 7677; src/common/scram-common.c)."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, SCRAM_ROUNDS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored = base64.b64encode(hashlib.sha256(client_key).digest()).decode()
    server = base64.b64encode(hmac.digest(salted, b"Server Key", "sha256")).decode()
    return f"SCRAM-SHA-256${SCRAM_ROUNDS}:{base64.b64encode(salt).decode()}${stored}:{server}"


def read_untouched(session: Session) -> tuple[TableFacts, ...]:
    """Read rows and digest of every table that nobody writes to."""
    return tuple(_table_facts(session, name) for name in UNTOUCHED)


def read_balances(session: Session) -> Balances:
    """Read the sums in one statement, hence of one instant."""
    row = session.query(BALANCES, seconds_max=QUERY_SECONDS_MAX)[0]
    return Balances(*(int(value or 0) for value in row))


def count_transactions(session: Session) -> int:
    """Count pgbench's transactions so far."""
    return int(session.query("SELECT count(*) FROM public.pgbench_history")[0][0] or 0)


def read_timeline(session: Session) -> int:
    """Read the timeline that a server writes on now."""
    query = "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int"
    return int(session.query(query)[0][0] or 0)


def _table_facts(session: Session, name: str) -> TableFacts:
    query = f"SELECT count(*), md5(string_agg(md5(row::text), '' ORDER BY id)) FROM public.{name} AS row"  # noqa: S608 our own names
    count, digest = session.query(query, seconds_max=QUERY_SECONDS_MAX)[0]
    return TableFacts(name, int(count or 0), digest or "")
