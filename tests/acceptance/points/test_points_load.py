"""Random moments of a server under load: each comes back with every row committed before it, and none after."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import psycopg
import pytest
from tests.acceptance.cli.cli_program import SECONDS_MAX, Program
from tests.integration.postgres_capture.servers import execute, run_program
from tests.integration.roundtrip.cluster import connection_options
from tests.servers import PostgresServers, quick_settings

from holdfast.sandbox import ThrowawayPostgres, server_account
from holdfast.sandbox.account import spawn

MAJOR = 17
CLIENTS = 4
LOAD_SECONDS = 25
MOMENTS, MOMENTS_SAMPLED = 20, 5
POLL_SECONDS = 0.3


@dataclass
class Ledger:
    """What writers saw: of each row when it was begun and when its commit was acknowledged, by the server's clock."""

    server: ThrowawayPostgres
    rows: dict[int, tuple[datetime, datetime]] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    def write(self, writer: int) -> None:
        number = writer
        with psycopg.connect(self.server.connection_string(), autocommit=True) as connection:
            while not self.stop.is_set():
                number += CLIENTS
                begun = clock(connection)
                connection.execute("INSERT INTO ledger VALUES (%s)", (number,))
                self.rows[number] = (begun, clock(connection))


def clock(connection: psycopg.Connection[tuple[object, ...]]) -> datetime:
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    assert isinstance(row[0], datetime)
    return row[0]


@dataclass(frozen=True)
class Loaded:
    program: Program
    ledger: Ledger
    begins: datetime
    ends: datetime


@pytest.fixture(scope="module")
def loaded(postgres_servers: PostgresServers) -> Iterator[Loaded]:
    server = postgres_servers.start(MAJOR, quick_settings())
    execute(server, "CREATE TABLE ledger (id int PRIMARY KEY)")
    made = run_program(server, "pgbench", *connection_options(server), "-i", "-q", "-s1", "postgres")
    assert made.returncode == 0, made.stderr
    program = Program(postgres_servers.new_folder("load"))
    program.init(source=f"orders=postgresql://postgres@127.0.0.1:{server.port}/postgres")
    follower = program.start("follow", "--json")
    ledger = Ledger(server)
    try:
        until(follower, lambda: bool(json.loads(program.done("backups", "--json").out)))
        begins, ends = run_load(ledger)
        until(follower, lambda: reaches(program, ends))
        yield Loaded(program, ledger, begins, ends)
    finally:
        ledger.stop.set()
        follower.send_signal(signal.SIGTERM)
        follower.communicate(timeout=SECONDS_MAX)
        postgres_servers.drop(server)


def run_load(ledger: Ledger) -> tuple[datetime, datetime]:
    """Write rows while pgbench runs; return the moments between which both did."""
    command = [str(ledger.server.programs.path("pgbench")), *connection_options(ledger.server)]
    command += ["-n", f"-c{CLIENTS}", f"-T{LOAD_SECONDS}", "postgres"]
    load = spawn(command, server_account(), output=subprocess.DEVNULL)
    writers = [threading.Thread(target=ledger.write, args=(number,)) for number in range(CLIENTS)]
    for writer in writers:
        writer.start()
    try:
        assert load.wait(LOAD_SECONDS + SECONDS_MAX) == 0
    finally:
        ledger.stop.set()
        for writer in writers:
            writer.join()
    acknowledged = [acked for _, acked in ledger.rows.values()]
    return min(acknowledged), max(acknowledged)


def until(process: subprocess.Popen[bytes], fact: object) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    assert callable(fact)
    while not fact():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(POLL_SECONDS)


def reaches(program: Program, moment: datetime) -> bool:
    end = program.done("windows", "orders", "--json").document[0]["end"]
    return end is not None and datetime.fromisoformat(end) >= moment


def test_random_moments_under_load_are_exact(loaded: Loaded, postgres_servers: PostgresServers) -> None:
    require_exact(loaded, postgres_servers, MOMENTS_SAMPLED)


@pytest.mark.soak
def test_twenty_random_moments_under_load_are_exact(loaded: Loaded, postgres_servers: PostgresServers) -> None:
    require_exact(loaded, postgres_servers, MOMENTS)


def require_exact(loaded: Loaded, postgres_servers: PostgresServers, moments_tried: int) -> None:
    chosen = random.Random(5)
    span = (loaded.ends - loaded.begins).total_seconds()
    moments = sorted(loaded.begins + timedelta(seconds=chosen.uniform(0, span)) for _ in range(moments_tried))
    for moment in moments:
        folder = postgres_servers.new_folder("moment")
        loaded.program.done("restore", "orders", "--at", moment.isoformat(), "--into", folder / "data", "--quiet")
        server = postgres_servers.start(MAJOR, quick_settings(), data_folder=folder / "data")
        with psycopg.connect(server.connection_string()) as connection:
            found = {row[0] for row in connection.execute("SELECT id FROM ledger")}
        postgres_servers.drop_folder(folder)
        committed = {number for number, (_, acked) in loaded.ledger.rows.items() if acked <= moment}
        later = {number for number, (begun, _) in loaded.ledger.rows.items() if begun > moment}
        assert committed - found == set(), moment
        assert found & later == set(), moment
    assert len(loaded.ledger.rows) > 100
