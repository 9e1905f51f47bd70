"""``holdfast follow`` as a process: the first base backup, what it stores, how it ends, what it resumes."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from tests.acceptance.cli.cli_program import Program

from holdfast.application.application import Application
from holdfast.config.loading import load_config
from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.postgres.details import parse_lsn

SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 30.0
newest = pytest.mark.parametrize("postgres_major", [18], indirect=True)


def until(fact: Callable[[], object], what: str, seconds: float = SECONDS_MAX) -> None:
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def run_sql(server: ThrowawayPostgres, *statements: str) -> list[tuple[object, ...]]:
    with psycopg.connect(server.connection_string(), autocommit=True) as connection:
        rows: list[tuple[object, ...]] = []
        for statement in statements:
            cursor = connection.execute(statement.encode())
            rows = cursor.fetchall() if cursor.description else []
        return rows


def acknowledged(server: ThrowawayPostgres) -> int:
    rows = run_sql(server, "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name LIKE 'holdfast%'")
    return parse_lsn(str(rows[0][0])) if rows and rows[0][0] else 0


def flushed(server: ThrowawayPostgres) -> int:
    return parse_lsn(str(run_sql(server, "SELECT pg_current_wal_flush_lsn()")[0][0]))


@pytest.fixture
def program(tmp_path: Path, postgres_server: ThrowawayPostgres) -> Program:
    """holdfast with a repository in a folder and a server to follow, and nothing backed up yet."""
    made = Program(tmp_path)
    url = f"postgresql://postgres@127.0.0.1:{postgres_server.port}/postgres"
    made.done(
        "init", "--application", "shop", "--repository", f"file://{tmp_path / 'kept'}", "--source", f"orders={url}"
    )
    return made


@pytest.fixture
def following(program: Program) -> Iterator[subprocess.Popen[bytes]]:
    process = program.start("follow", "--json")
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


@newest
def test_w16_follow_makes_the_first_base_backup_and_ends_within_half_a_minute_of_a_signal(
    program: Program, postgres_server: ThrowawayPostgres, following: subprocess.Popen[bytes]
) -> None:
    until(lambda: program.done("backups", "--json").document, "there is a base backup")
    # W16: the log is stored from before the first backup began; no moment after it is uncovered.
    [backup] = program.done("backups", "--json").document
    [[stretch]] = stored_stretches(program)
    assert stretch[0] <= start_of(program, backup["id"])
    run_sql(postgres_server, "CREATE TABLE t AS SELECT generate_series(1, 10000) a")
    end = flushed(postgres_server)
    until(lambda: acknowledged(postgres_server) >= end, "what was written is acknowledged")
    run_sql(postgres_server, "INSERT INTO t SELECT generate_series(1, 1000)")
    end = flushed(postgres_server)
    begun = time.monotonic()
    following.send_signal(signal.SIGTERM)
    out, err = following.communicate(timeout=STOP_SECONDS_MAX)
    assert following.returncode == 0, err
    assert time.monotonic() - begun < STOP_SECONDS_MAX
    assert b'"event": "followed"' in out or b'"event":"followed"' in out
    assert acknowledged(postgres_server) >= end
    assert program.done("check", "--json").code == 0


@newest
def test_a_killed_follower_is_resumed_without_a_gap_and_another_one_is_refused_meanwhile(
    program: Program, postgres_server: ThrowawayPostgres, following: subprocess.Popen[bytes]
) -> None:
    until(lambda: acknowledged(postgres_server) >= flushed(postgres_server), "it follows")
    refused = program.run("follow", "--json")
    assert refused.code == 11
    following.kill()
    following.wait()
    run_sql(postgres_server, "CREATE TABLE t AS SELECT generate_series(1, 100000) a")
    with program.start("follow", "--wait", "--json") as again:
        end = flushed(postgres_server)
        until(lambda: acknowledged(postgres_server) >= end, "it goes on", 240)
        again.send_signal(signal.SIGTERM)
        again.communicate(timeout=STOP_SECONDS_MAX)
        assert again.returncode == 0
    [stretches] = stored_stretches(program)
    assert len(stretches) == 1


def start_of(program: Program, backup: str) -> int:
    """Read where the log of a backup begins, from its label."""
    label = program.done("cat", f"{backup}:backup_label").out
    return parse_lsn(label.split("START WAL LOCATION: ")[1].split()[0])


def stored_stretches(program: Program) -> list[list[tuple[int, int]]]:
    """Read what is stored of the log of every generation."""
    from holdfast import bootstrap
    from holdfast.repository.log.listing import list_log

    config = load_config(program.folder / "holdfast.yaml", program.environment)
    assert Application(config)
    with bootstrap.opened_repository(config, None) as repository:
        listing = list_log(bootstrap.area_of(config, repository, "orders"))
        return [
            [(stretch.start, stretch.end) for stretch in listing.stretches(generation)]
            for generation in sorted(listing.generations)
        ]
