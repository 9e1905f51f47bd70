"""kill -9 of follower, server, and both: no commit that was acknowledged under synchronous commit is ever missing."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import psycopg
from tests.acceptance.cli.cli_program import Program
from tests.acceptance.follow.test_follow_command import newest, run_sql, stored_stretches, until

from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.postgres.details import parse_lsn

ROUNDS = 6
STOP_SECONDS_MAX = 30


class Ledger:
    """Commits row after row; knows the highest position of one that the server acknowledged."""

    def __init__(self, server: ThrowawayPostgres) -> None:
        self._server = server
        self.acknowledged = 0
        self.commits = 0
        self._ended = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> Ledger:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(STOP_SECONDS_MAX)

    def _run(self) -> None:
        while not self._ended.is_set():
            with suppress(psycopg.Error), self._connected() as connection:
                while not self._ended.is_set():
                    self._commit(connection)
            time.sleep(0.05)

    def _commit(self, connection: psycopg.Connection) -> None:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO ledger DEFAULT VALUES")
        row = connection.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
        connection.execute("COMMIT")
        assert row is not None
        # The commit's own record lies behind this position; what is before it must be stored in any case.
        self.acknowledged = max(self.acknowledged, parse_lsn(str(row[0])))
        self.commits += 1

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection]:
        # No timeout for statements: a cancelled wait for the standby would be told as a commit.
        with psycopg.connect(self._server.connection_string(), autocommit=True, connect_timeout=2) as connection:
            yield connection


@newest
def test_w14_no_acknowledged_commit_is_missing_whoever_is_killed(
    postgres_server: ThrowawayPostgres, tmp_path: Path
) -> None:
    chance = random.Random(5)
    program = Program(tmp_path)
    url = f"postgresql://postgres@127.0.0.1:{postgres_server.port}/postgres"
    repository = f"file://{tmp_path / 'kept'}"
    program.done("init", "--application", "shop", "--repository", repository, "--source", f"orders={url}")
    run_sql(postgres_server, "CREATE TABLE ledger (id bigserial, at timestamptz DEFAULT now())")
    follower = start(program)
    try:
        run_sql(postgres_server, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        with Ledger(postgres_server) as ledger:
            for _ in range(ROUNDS):
                before = ledger.commits
                until(lambda before=before: ledger.commits > before + 5, "commits are acknowledged", 120)
                victims = chance.choice(("follower", "server", "both"))
                if victims != "follower":
                    postgres_server.kill()
                if victims != "server":
                    follower.kill()
                    follower.communicate()
                    follower = start(program)
                if victims != "follower":
                    postgres_server.start()
            before = ledger.commits
            until(lambda: ledger.commits > before, "commits are acknowledged", 120)
            acknowledged = ledger.acknowledged
        [stretches] = stored_stretches(program)
        assert len(stretches) == 1, stretches
        assert stretches[0][1] > acknowledged
    finally:
        follower.send_signal(signal.SIGTERM)
        follower.communicate(timeout=STOP_SECONDS_MAX)


def start(program: Program) -> subprocess.Popen[bytes]:
    return program.start("follow", "--no-base", "--wait", "--json")
