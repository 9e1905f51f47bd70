"""Follow, mark and come back, as processes: any second of a real server, its marks, one table of a moment."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

import pytest
from tests.acceptance.cli.cli_program import SECONDS_MAX, Program
from tests.integration.postgres_capture.servers import execute, run_program, value
from tests.servers import PostgresServers, quick_settings

from holdfast.sandbox import ThrowawayPostgres, server_account
from holdfast.sandbox.folders import hand_over

MAJOR = 18
POLL_SECONDS = 0.3
PAUSE_SECONDS = 0.05


@dataclass
class Followed:
    """A server that is followed while the tests run, with a ledger of one row after another."""

    servers: PostgresServers
    program: Program
    server: ThrowawayPostgres
    rows: int = 0
    moments: dict[int, str] = field(default_factory=dict)

    def insert(self) -> str:
        """Add a row; return a moment, by the server's clock, at which it was the last one."""
        self.rows += 1
        execute(self.server, f"INSERT INTO ledger VALUES ({self.rows})")
        time.sleep(PAUSE_SECONDS)
        moment = value(self.server, "SELECT clock_timestamp()")
        assert isinstance(moment, datetime)
        time.sleep(PAUSE_SECONDS)
        self.moments[self.rows] = moment.isoformat()
        return self.moments[self.rows]

    def await_reachable(self, *words: str) -> None:
        """Wait until a moment is stored."""
        deadline = time.monotonic() + SECONDS_MAX
        while True:
            target = str(self.program.folder / "never made")
            ended = self.program.run("restore", "orders", *words, "--into", target, "--plan", "--json")
            if ended.code == 0:
                return
            assert time.monotonic() < deadline, ended.err
            time.sleep(POLL_SECONDS)

    def last_row_at(self, *words: str) -> int:
        """Restore a folder to a moment, start it, and return the last row that is there."""
        self.await_reachable(*words)
        folder = self.servers.new_folder("restored")
        self.program.done("restore", "orders", *words, "--into", str(folder / "data"))
        server = self.servers.start(MAJOR, quick_settings(), data_folder=folder / "data")
        try:
            return int(value(server, "SELECT coalesce(max(id), 0) FROM ledger"))
        finally:
            self.servers.drop_folder(folder)


@pytest.fixture(scope="module")
def followed(postgres_servers: PostgresServers) -> Iterator[Followed]:
    server = postgres_servers.start(MAJOR, quick_settings({"autovacuum": "off"}))
    execute(server, "CREATE TABLE ledger (id int PRIMARY KEY)", "CREATE TABLE beside AS SELECT 1 AS id")
    folder = str(server.programs.folder)
    program = Program(postgres_servers.new_folder("points"), {f"HOLDFAST_POSTGRES_BIN_{MAJOR}": folder})
    program.init(source=f"orders=postgresql://postgres@127.0.0.1:{server.port}/postgres")
    process = program.start("follow", "--json")
    scene = Followed(postgres_servers, program, server)
    try:
        await_backup(program, process)
        yield scene
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=SECONDS_MAX)
        postgres_servers.drop(server)


def await_backup(program: Program, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not json.loads(program.done("backups", "--json").out):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(POLL_SECONDS)


def test_a_moment_between_two_rows_comes_back(followed: Followed) -> None:
    first = followed.insert()
    number = followed.rows
    followed.insert()
    assert followed.last_row_at("--at", first) == number


def test_an_idle_server_is_reachable_now_and_at_its_latest(followed: Followed) -> None:
    moment = followed.insert()
    time.sleep(2.5)  # the samples of an idle server move its window on
    later = value(followed.server, "SELECT clock_timestamp()").isoformat()
    number = followed.rows
    assert followed.last_row_at("--at", moment) == number
    assert followed.last_row_at("--at", later) == number
    assert followed.last_row_at("--latest") == number


def test_a_mark_comes_back_by_its_name(followed: Followed) -> None:
    followed.insert()
    number = followed.rows
    marked = followed.program.done("mark", "before the deploy", "--json").events[-1]
    assert marked["restore_point"].startswith("holdfast:")
    assert marked["error"] is None
    taken = followed.program.run("mark", "before the deploy", "--json")
    assert taken.code != 0
    assert taken.error["kind"] == "already_exists"
    assert followed.last_row_at("--mark", "before the deploy") == number
    followed.insert()
    assert followed.last_row_at("--mark", "before the deploy") == number
    assert followed.last_row_at("--name", marked["restore_point"]) == number
    assert followed.program.run("restore", "orders", "--mark", "never made", "--plan").code == 2


def test_one_table_of_a_moment_goes_beside_the_live_database(followed: Followed) -> None:
    moment = followed.insert()
    number = followed.rows
    followed.insert()
    followed.await_reachable("--at", moment)
    ended = followed.program.done(
        "restore", "orders", "--only", "postgres.public.ledger", "--at", moment, "--into-table", "ledger_then", "--json"
    )
    plan = next(event for event in ended.events if event["event"] == "plan")
    assert plan["point"]["timeline"] == 1
    assert value(followed.server, "SELECT max(id) FROM ledger_then") == number


def test_r2_a_folder_at_one_moment_is_brought_to_another_by_a_delta(followed: Followed) -> None:
    first = followed.insert()
    number = followed.rows
    execute(followed.server, "SELECT pg_switch_wal()")
    second = followed.insert()
    followed.await_reachable("--at", second)
    folder = followed.servers.new_folder("restored")
    data = folder / "data"
    for moment, expected in ((second, number + 1), (first, number), (second, number + 1)):
        followed.program.done("restore", "orders", "--at", moment, "--into", data, "--delta", "--yes")
        server = followed.servers.start(MAJOR, quick_settings(), data_folder=data)
        assert value(server, "SELECT max(id) FROM ledger") == expected
        server.stop()
    followed.servers.drop_folder(folder)


def test_what_contradicts_is_refused_with_2(followed: Followed) -> None:
    program = followed.program
    for words in (
        ("--at", "-1m", "--lsn", "0/3000000"),
        ("--latest", "--xid", "7"),
        ("--lsn", "x"),
        ("--at", "2026-01-01 12:00"),
        ("--at", "2020-01-01T12:00:00Z"),
        ("--timeline", "0A"),
        ("--timeline", "7"),
        ("--backup", "latest", "--at", "2020-01-01T12:00:00Z"),
    ):
        ended = program.run("restore", "orders", *words, "--plan", "--json")
        assert (words, ended.code) == (words, 2)
    backup = program.done("backups", "--json").document[-1]["id"]
    assert program.run("restore", "--backup", backup, "--at", "-1m", "--plan").code == 2
    refused = program.run("restore", "orders", "--at", "2020-01-01T12:00:00Z", "--plan", "--json")
    assert "nearest" in refused.error["hint"]


def test_the_plan_tells_what_is_reached(followed: Followed) -> None:
    moment = followed.insert()
    followed.insert()
    followed.await_reachable("--at", moment)
    plan = followed.program.done("restore", "orders", "--at", moment, "--plan", "--json").events[0]
    assert plan["point"]["transaction_at"] is not None
    assert plan["point"]["timeline"] == 1
    shown = followed.program.done("restore", "orders", "--at", moment, "--plan").out
    assert "reaches" in shown
    assert "stops before the record" in shown


def test_a_backup_named_by_its_id_comes_back_as_it_was(followed: Followed) -> None:
    followed.insert()
    backup = followed.program.done("backups", "--json").document[0]["id"]
    folder = followed.servers.new_folder("restored")
    followed.program.done("restore", "--backup", backup, "--into", str(folder / "data"))
    server = followed.servers.start(MAJOR, quick_settings(), data_folder=folder / "data")
    assert value(server, "SELECT count(*) FROM ledger") == 0
    followed.servers.drop_folder(folder)


def test_the_strings_of_a_window_are_moments_that_can_be_restored(followed: Followed) -> None:
    followed.await_reachable("--at", followed.insert())
    rows = followed.program.done("windows", "--json").document
    assert [row["source"] for row in rows] == ["orders", "*"]
    for row in rows:
        assert row["skew_seconds"] == 0
        assert row["gaps"] == []
        assert row["start"] < row["end"]
        for moment in (row["start"], row["end"]):
            followed.program.done("restore", "orders", "--at", moment, "--into", "never made", "--plan")
    assert followed.last_row_at("--at", rows[0]["start"]) == 0
    assert followed.last_row_at("--at", rows[0]["end"]) == followed.rows
    shown = followed.program.done("windows").out
    assert "orders" in shown


def test_the_same_server_needs_no_adoption(followed: Followed) -> None:
    adopted = followed.program.done("adopt", "orders", "--json").events[-1]
    assert adopted["adopted"] is False


def test_a_restored_folder_passes_the_servers_own_verification(followed: Followed) -> None:
    moment = followed.insert()
    followed.await_reachable("--at", moment)
    folder = followed.servers.new_folder("restored")
    data = folder / "data"
    restored = followed.program.done("restore", "orders", "--at", moment, "--into", data, "--json").events[-1]
    assert restored["point"]["log_bytes"] > 0
    hand_over(data, server_account())
    verified = run_program(followed.server, "pg_verifybackup", str(data))
    assert verified.returncode == 0, verified.stderr
    followed.servers.drop_folder(folder)
