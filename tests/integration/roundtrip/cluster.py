"""A cluster with everything that is awkward to back up, what is true of it for ever, and people who write to it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from tests.integration.postgres_capture.servers import execute, run_program, value
from tests.servers import quick_settings

from holdfast.sandbox import PostgresSettings, ThrowawayPostgres, server_account
from holdfast.sandbox.account import spawn
from holdfast.sandbox.folders import make_private_folder
from holdfast.sandbox.ports import LOCAL_ADDRESS

ODD_DATABASES = ("with space, 'one' and \"two\"", "k=v[0]#1?\\їжак")
ODD_FILE = b"odd =[#?\\ \xff\xfe"
ODD_CONTENT = b"not ours, but in the data folder\n"
PGBENCH_SCALE = 3
PGBENCH_SECONDS_MAX = 120
VERIFY_SECONDS_MAX = 60
PAUSE_SECONDS = 0.01
LARGE_OBJECTS = 20


def archiving_settings(archive: Path) -> PostgresSettings:
    """Return settings of a server that archives into a folder, as a careful operator's would (never over a file)."""
    make_private_folder(archive, server_account())
    command = f"test ! -f {archive}/%f && cp %p {archive}/%f"
    return quick_settings({"archive_mode": "on", "archive_command": command, "max_wal_size": "256MB"})


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def fill(server: ThrowawayPostgres, first: Path, second: Path) -> None:
    """Fill a new cluster, with tablespaces at two places."""
    for place in (first, second):
        make_private_folder(place, server_account())
    spaces = {"first": first, "second": second}
    execute(
        server,
        *(f"CREATE TABLESPACE {name} LOCATION '{place}'" for name, place in spaces.items()),
        "CREATE TABLE quiet AS SELECT n AS id, md5(n::text) AS word FROM generate_series(1, 20000) n",
        "CREATE INDEX ON quiet (word)",
        "CREATE TABLE quiet_toasted AS SELECT n AS id, string_agg(md5((n * m)::text), '') AS word "
        "FROM generate_series(1, 50) n, generate_series(1, 1000) m GROUP BY n",
        "CREATE TABLE quiet_first (id int PRIMARY KEY USING INDEX TABLESPACE second, word text) TABLESPACE first",
        "INSERT INTO quiet_first SELECT n, repeat('x', 100) FROM generate_series(1, 5000) n",
        "CREATE TABLE quiet_parts (id int, word text) PARTITION BY RANGE (id)",
        "CREATE TABLE parts_low PARTITION OF quiet_parts FOR VALUES FROM (0) TO (1000)",
        "CREATE TABLE parts_high PARTITION OF quiet_parts FOR VALUES FROM (1000) TO (2000) PARTITION BY HASH (id)",
        "CREATE TABLE parts_high_even PARTITION OF parts_high FOR VALUES WITH (MODULUS 2, REMAINDER 0) "
        "TABLESPACE second",
        "CREATE TABLE parts_high_odd PARTITION OF parts_high FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
        "INSERT INTO quiet_parts SELECT n, md5(n::text) FROM generate_series(0, 1999) n",
        "CREATE MATERIALIZED VIEW quiet_view AS SELECT word, count(*) FROM quiet_parts GROUP BY word",
        "CREATE UNLOGGED TABLE fleeting (id serial PRIMARY KEY, word text) TABLESPACE first",
        "INSERT INTO fleeting (word) SELECT md5(n::text) FROM generate_series(1, 1000) n",
        f"SELECT lo_from_bytea(1000 + n, decode(repeat(md5(n::text), 400), 'hex')) "
        f"FROM generate_series(1, {LARGE_OBJECTS}) n",
        "CREATE TABLE moving (id bigserial PRIMARY KEY, word text)",
        f"CREATE DATABASE {identifier(ODD_DATABASES[0])} TABLESPACE second",
        *(f"CREATE DATABASE {identifier(name)}" for name in ODD_DATABASES[1:]),
    )
    for name in ODD_DATABASES:
        execute(
            server,
            f"CREATE TABLE {identifier('quiet ' + name)} AS SELECT n AS id FROM generate_series(1, 500) n",
            database=name,
        )
    Path(os.fsdecode(os.fsencode(server.data_folder) + b"/" + ODD_FILE)).write_bytes(ODD_CONTENT)
    done = run_program(server, "pgbench", *connection_options(server), "-i", "-q", f"-s{PGBENCH_SCALE}", "postgres")
    assert done.returncode == 0, done.stderr


def connection_options(server: ThrowawayPostgres) -> tuple[str, ...]:
    return ("-h", LOCAL_ADDRESS, "-p", str(server.port), "-U", "postgres")


def digests(server: ThrowawayPostgres) -> dict[str, str]:
    """Return a digest of everything that nobody writes to: tables and views called quiet, and large objects."""
    found: dict[str, str] = {}
    for database in ("postgres", *ODD_DATABASES):
        with psycopg.connect(server.connection_string(database), autocommit=True) as connection:
            names = connection.execute(
                "SELECT relname FROM pg_class WHERE relname LIKE 'quiet%' AND relkind IN ('r', 'p', 'm') ORDER BY 1"
            ).fetchall()
            for (name,) in names:
                query = f"SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {identifier(name)} t"
                row = connection.execute(query.encode()).fetchone()
                assert row is not None
                found[f"{database}: {name}"] = row[0]
    query = "SELECT md5(string_agg(md5(lo_get(oid)), ',' ORDER BY oid)) FROM pg_largeobject_metadata"
    found["large objects"] = value(server, query)
    assert len(found) == 5 + len(ODD_DATABASES) + 1
    return found


def balances(server: ThrowawayPostgres) -> tuple[int, int, int, int]:
    """Return the sums that pgbench keeps equal."""
    with psycopg.connect(server.connection_string(), autocommit=True) as connection:
        row = connection.execute(
            "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),"
            " (SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history)"
        ).fetchone()
    assert row is not None
    return row


def transfers(server: ThrowawayPostgres) -> int:
    return int(value(server, "SELECT count(*) FROM pgbench_history"))


def check_indexes(server: ThrowawayPostgres) -> None:
    """Run amcheck over every table and index of every database."""
    options = ("--all", "--install-missing", "--heapallindexed", "--jobs=2")
    done = run_program(server, "pg_amcheck", *connection_options(server), *options)
    assert done.returncode == 0, done.stdout + done.stderr


def verify_backup(server: ThrowawayPostgres, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run pg_verifybackup of the server's version over a folder that was not started yet, as whoever restored it."""
    return subprocess.run(
        [str(server.programs.path("pg_verifybackup")), str(folder)],
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=VERIFY_SECONDS_MAX,
        check=False,
    )


class Load:
    """pgbench beside a thread that creates, fills, moves, rewrites, truncates and drops tables, until left.

    ``rounds`` counts how often the thread went through all of it.
    """

    def __init__(self, server: ThrowawayPostgres) -> None:
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._define)
        self._pgbench: subprocess.Popen[bytes] | None = None
        self.problems: list[Exception] = []
        self.rounds = 0

    def __enter__(self) -> Self:
        options = ("-n", "-c2", f"-T{PGBENCH_SECONDS_MAX}", "--rate=400", "postgres")
        command = [str(self._server.programs.path("pgbench")), *connection_options(self._server), *options]
        self._pgbench = spawn(command, server_account(), output=subprocess.DEVNULL)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        assert self._pgbench is not None
        still_ran = self._pgbench.poll() is None
        self._pgbench.send_signal(signal.SIGINT)
        self._pgbench.wait(PGBENCH_SECONDS_MAX)
        if kind is None:
            assert not self.problems
            assert still_ran

    def _define(self) -> None:
        number = 0
        try:
            with psycopg.connect(self._server.connection_string(), autocommit=True) as connection:
                while not self._stop.is_set():
                    for statement in self._statements(f"passing_{number % 3}"):
                        connection.execute(statement.encode())
                    self._stop.wait(PAUSE_SECONDS)
                    number += 1
                    self.rounds = number
        except psycopg.Error as error:
            self.problems.append(error)

    @staticmethod
    def _statements(name: str) -> tuple[str, ...]:
        return (
            f"DROP TABLE IF EXISTS {name}",
            f"CREATE TABLE {name} AS SELECT n AS id, repeat('y', 300) AS word FROM generate_series(1, 2000) n",
            f"CREATE INDEX ON {name} (id)",
            f"DELETE FROM {name} WHERE id % 3 = 0",
            f"VACUUM FULL {name}",
            f"ALTER TABLE {name} SET TABLESPACE first",
            "INSERT INTO moving (word) SELECT repeat('x', 500) FROM generate_series(1, 200)",
            "DELETE FROM moving WHERE id % 7 = 0",
            "VACUUM moving",
            "INSERT INTO fleeting (word) VALUES ('more')",
            f"TRUNCATE {name}",
            f"INSERT INTO {name} SELECT n, 'z' FROM generate_series(1, 300) n",
        )
