"""Writers in the manner of pgbench that note outside the database which of their commits the server acknowledged."""

from __future__ import annotations

import itertools
import random
import time
from contextlib import suppress
from threading import Event, Lock, Thread

import psycopg
from tests.acceptance.follow.test_follow_command import run_sql

from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.postgres.details import parse_lsn

WRITERS = 4
ACCOUNTS = 1000
PAUSE_SECONDS_MAX = 0.03
"""Between two commits of one writer: each becomes an object in the store, and all are read back at the end."""
RECONNECT_SECONDS = 0.05
CONNECT_SECONDS_MAX = 2
JOIN_SECONDS_MAX = 30

TABLES = (
    "CREATE TABLE ledger (id bigint PRIMARY KEY, delta int NOT NULL)",
    "CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL)",
    f"INSERT INTO accounts SELECT id, 0 FROM generate_series(1, {ACCOUNTS}) id",
    "CREATE TABLE bulk (line text)",
)
_PAY = b"""
    WITH moved AS (UPDATE accounts SET balance = balance + %(delta)s WHERE id = %(account)s)
    INSERT INTO ledger VALUES (%(id)s, %(delta)s)"""
_ACKNOWLEDGED = b"SELECT coalesce(max(flush_lsn), '0/0')::text FROM pg_stat_replication"
_BURST = b"""
    TRUNCATE bulk;
    INSERT INTO bulk SELECT repeat(md5(n::text), 32) FROM generate_series(1, 20000) n"""
"""One transaction of more than one span of log, so that several are on their way at once."""


class LedgerWriters:
    """Commit row after row, through every crash of the server, until stopped.

    ``acknowledged`` are the rows whose commit came back, in that order; ``position`` is the highest one of the log
    that the server was ever seen to count as flushed by its standby. No statement has a time limit: a wait for the
    standby that is cancelled would be told as a commit, with one of ``warnings``, of which there must be none.
    """

    def __init__(self, server: ThrowawayPostgres, seed: int) -> None:
        self.acknowledged: list[int] = []
        self.begun: set[int] = set()
        self.position = 0
        self.warnings: list[str] = []
        self.burst = Event()
        self._dsn = server.connection_string()
        self._numbers = itertools.count(1)
        self._lock = Lock()
        self._ended = Event()
        self._threads = [Thread(target=self._run, args=(random.Random(seed + n),), daemon=True) for n in range(WRITERS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End them; the server has to be gone, else a commit that waits for a dead follower waits for ever."""
        self._ended.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(JOIN_SECONDS_MAX)

    def _run(self, chance: random.Random) -> None:
        while not self._ended.is_set():
            with (
                suppress(psycopg.Error),
                psycopg.connect(self._dsn, autocommit=True, connect_timeout=CONNECT_SECONDS_MAX) as connection,
            ):
                connection.add_notice_handler(self._take_notice)
                while not self._ended.is_set():
                    self._commit(connection, chance)
                    time.sleep(chance.uniform(0, PAUSE_SECONDS_MAX))
            time.sleep(RECONNECT_SECONDS)

    def _take_notice(self, told: psycopg.errors.Diagnostic) -> None:
        """Keep a warning; a FATAL that comes unasked is a server process that saw the postmaster killed."""
        if told.severity_nonlocalized == "WARNING":
            self.warnings.append(told.message_primary or "")

    def _commit(self, connection: psycopg.Connection[tuple[object, ...]], chance: random.Random) -> None:
        if self.burst.is_set():
            self.burst.clear()
            connection.execute(_BURST)
        with self._lock:
            number = next(self._numbers)
            self.begun.add(number)
        payment = {"id": number, "account": chance.randint(1, ACCOUNTS), "delta": chance.randint(-5000, 5000)}
        connection.execute(_PAY, payment)
        with self._lock:
            self.acknowledged.append(number)
        row = connection.execute(_ACKNOWLEDGED).fetchone()
        assert row is not None
        with self._lock:
            self.position = max(self.position, parse_lsn(str(row[0])))


def rows_of(server: ThrowawayPostgres) -> set[int]:
    """Read the ledger of a restored server, which must be of one piece: the balances are what its rows add up to."""
    [(whole,)] = run_sql(server, "SELECT (SELECT sum(balance) FROM accounts) = (SELECT sum(delta) FROM ledger)")
    assert whole is True
    return {int(str(row[0])) for row in run_sql(server, "SELECT id FROM ledger")}
