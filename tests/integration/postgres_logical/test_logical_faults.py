"""Whatever fails in a capture, the error says what, there is no backup, and nothing is left running."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from tests.integration.postgres_logical.logical_scene import (
    MemorySink,
    capture,
    clients,
    execute,
    make_database,
    sessions,
    settings_of,
)
from tests.servers import installed

from holdfast.model.errors import HoldfastError, Interrupted, OutOfSpace, SourceFailed, Unavailable
from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.postgres.logical import snapshot as snapshot_module
from holdfast.sources.postgres.logical.tools import PROGRAMS

OLDEST_AND_NEWEST = pytest.mark.parametrize("postgres_major", [15, 18], indirect=True)
NEWEST = pytest.mark.parametrize("postgres_major", [18], indirect=True)
ROWS = "SELECT i, md5(i::text) AS x FROM generate_series(1, 200000) i"
TABLES = (f"CREATE TABLE big AS {ROWS}", f"CREATE TABLE other AS {ROWS}", "CREATE TABLE small AS SELECT 1 AS a")
BIG = "databases/faults/tables/public/big.sql"


@pytest.fixture
def database(shared_postgres: ThrowawayPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database whose large tables are still being read when the second block of one arrives."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    name = make_database(shared_postgres, "faults", *TABLES)
    yield name
    assert clients() == []
    deadline = time.monotonic() + 10
    while sessions(shared_postgres, name):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert list(tmp_path.glob("holdfast-clients-*")) == []


def failing(
    server: ThrowawayPostgres, kind: type[HoldfastError], act: Callable[[], None] = lambda: None, **changes: object
) -> HoldfastError:
    """Capture, act in the middle of the large table, and return the error."""
    acted = threading.Event()

    def once(path: str, size: int) -> None:
        if path == BIG and size > 100_000 and not acted.is_set():
            acted.set()
            act()

    sink = MemorySink(once)
    with pytest.raises(HoldfastError) as caught:
        capture(settings_of(server, "faults", **changes), sink=sink)
    assert type(caught.value) is kind, caught.value
    assert "@witness.json" not in sink.files
    return caught.value


def kill(name: str) -> None:
    for pid, found in clients():
        if found == name:
            os.kill(pid, signal.SIGKILL)


def terminate(server: ThrowawayPostgres, condition: str) -> Callable[[], None]:
    statement = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'faults' AND {condition}"
    return lambda: execute(server, statement)


def with_program(folder: Path, name: str, text: str, major: int) -> Path:
    """Make a folder of client programs in which one is a script."""
    folder.mkdir()
    original = installed(major).folder
    for program in PROGRAMS:
        path = folder / program
        if program == name:
            path.write_text(
                f'#!/bin/sh\ncase "$1" in --version) exec "{original / program}" --version;; esac\n'
                f'real="{original / program}"\n{text}\n'
            )
            path.chmod(0o755)
        else:
            path.symlink_to(original / program)
    return folder


@OLDEST_AND_NEWEST
def test_a_psql_that_is_killed_yields_no_backup(shared_postgres: ThrowawayPostgres, database: str) -> None:
    error = failing(shared_postgres, SourceFailed, lambda: kill("psql"))
    assert "ended by signal 9" in error.message
    assert "reading table public." in error.message


@NEWEST
@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        ("kill -9 $$", SourceFailed, "reading the schema of faults: pg_dump was ended by signal 9"),
        ('"$real" "$@" | head -c 500; kill -9 $$', SourceFailed, "reading the schema of faults: pg_dump was ended"),
        ('"$real" "$@" | head -c 500; exit 1', SourceFailed, "pg_dump ended with 1"),
        ("echo 'pg_dump: error: No space left on device' >&2; exit 1", OutOfSpace, "No space left"),
        ("exit 0", SourceFailed, "pg_dump"),
    ],
    ids=["at once", "in the middle", "fails in the middle", "says why", "silent"],
)
def test_a_pg_dump_that_fails_yields_no_backup(
    shared_postgres: ThrowawayPostgres,
    database: str,
    tmp_path: Path,
    script: str,
    kind: type[HoldfastError],
    words: str,
) -> None:
    programs = with_program(tmp_path / "programs", "pg_dump", script, 18)
    assert words in failing(shared_postgres, kind, programs=programs).message


@NEWEST
def test_a_pg_dumpall_that_fails_yields_no_backup(
    shared_postgres: ThrowawayPostgres, database: str, tmp_path: Path
) -> None:
    programs = with_program(tmp_path / "programs", "pg_dumpall", "echo 'no way' >&2; exit 1", 18)
    assert "reading roles" in failing(shared_postgres, SourceFailed, programs=programs).message


@NEWEST
@pytest.mark.parametrize(
    "text", ['"$real" "$@" | dd bs=1000 count=99 status=none', "cat >/dev/null & exit 0"], ids=["short", "nothing"]
)
def test_a_psql_that_ends_early_without_a_failure_yields_no_backup(
    shared_postgres: ThrowawayPostgres, database: str, tmp_path: Path, text: str
) -> None:
    programs = with_program(tmp_path / "programs", "psql", text, 18)
    assert "psql ended too early" in failing(shared_postgres, SourceFailed, programs=programs).message


@OLDEST_AND_NEWEST
@pytest.mark.parametrize(
    "condition", ["application_name = 'psql'", "query LIKE 'COPY%'"], ids=["every reader", "one reader"]
)
def test_a_connection_that_is_ended_is_told(shared_postgres: ThrowawayPostgres, database: str, condition: str) -> None:
    condition = "query LIKE '%COPY%' AND pid <> pg_backend_pid()" if "COPY" in condition else "backend_xmin IS NOT NULL"
    error = failing(shared_postgres, Unavailable, terminate(shared_postgres, condition))
    assert "reading table public." in error.message


@NEWEST
def test_the_session_that_holds_the_snapshot_matters_to_the_end(
    shared_postgres: ThrowawayPostgres, database: str
) -> None:
    which = "query NOT LIKE '%COPY%' AND state LIKE 'idle in%'"
    failing(shared_postgres, Unavailable, terminate(shared_postgres, which))


@NEWEST
def test_a_server_that_crashes_is_told(postgres_server: ThrowawayPostgres) -> None:
    make_database(postgres_server, "faults", *TABLES)
    failing(postgres_server, Unavailable, postgres_server.kill)
    assert clients() == []


@NEWEST
def test_a_lock_that_is_not_to_be_had_is_told(
    shared_postgres: ThrowawayPostgres, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_module, "LOCK_SECONDS_MAX", 1)
    with psycopg.connect(shared_postgres.connection_string(database)) as holder:
        holder.execute("LOCK TABLE small IN ACCESS EXCLUSIVE MODE")
        error = failing(shared_postgres, Unavailable)
        assert "locked by somebody else" in error.message
        assert "pg_locks" in error.hint


@NEWEST
def test_a_repository_that_fails_is_what_is_told(shared_postgres: ThrowawayPostgres, database: str) -> None:
    def fail() -> None:
        raise OutOfSpace("the repository is full")

    assert "the repository is full" in failing(shared_postgres, OutOfSpace, fail).message


@NEWEST
def test_a_capture_stops_when_asked_to(shared_postgres: ThrowawayPostgres, database: str) -> None:
    stop = threading.Event()
    sink = MemorySink(lambda path, size: stop.set() if path == BIG and size > 100_000 else None)
    started = time.monotonic()
    with pytest.raises(Interrupted):
        capture(settings_of(shared_postgres, database), sink=sink, stop_requested=stop.is_set)
    assert time.monotonic() - started < 20
    assert "@witness.json" not in sink.files
