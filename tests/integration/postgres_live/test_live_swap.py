"""The swap under running clients: killed at any step, the application's database is the old or the new."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from tests.conftest import StartPostgres
from tests.integration.postgres_live import live
from tests.integration.postgres_live.live import FolderContent, databases, execute, restore, rows, take, target, value
from tests.servers import PostgresServers, installed, quick_settings

from holdfast.model.errors import Conflict, Denied, Interrupted
from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.postgres.logical.marks import loading_name, open_maintenance
from holdfast.sources.postgres.logical.swap import Exchange, exchange
from holdfast.sources.postgres.settings import settings_from_dsn

ROOT = Path(__file__).resolve().parents[3]
RESTORE_SECONDS_MAX = 60
CLIENTS = 4
STEPS = (
    *("create", "mark", "roles", "schema", "rows", "large objects", "sequences", "indexes and constraints"),
    *("materialised views", "compare", "properties", "ready", "swap", "swapped"),
)


@pytest.fixture(scope="module")
def server(postgres_servers: PostgresServers) -> Iterator[ThrowawayPostgres]:
    started = postgres_servers.start(15)
    yield started
    postgres_servers.drop(started)


@pytest.fixture
def backup(server: ThrowawayPostgres, tmp_path: Path) -> Iterator[FolderContent]:
    execute(server, "CREATE DATABASE shop")
    execute(
        server,
        "CREATE TABLE state (word text)",
        "INSERT INTO state VALUES ('backed up')",
        "CREATE TABLE orders (id serial PRIMARY KEY, t text)",
        "INSERT INTO orders (t) SELECT 'order ' || i FROM generate_series(1, 2000) i",
        database="shop",
    )
    content = take(server, tmp_path / "shop", "shop")
    execute(server, "UPDATE state SET word = 'live'", "DELETE FROM orders", database="shop")
    yield content
    live.drop_all(server)


@contextmanager
def running_clients(server: ThrowawayPostgres) -> Iterator[list[str]]:
    """Clients that read the state over and over, connecting anew when they are ended; yields what they saw."""
    seen: list[str] = []
    done = threading.Event()

    def client() -> None:
        while not done.is_set():
            try:
                with psycopg.connect(server.connection_string("shop"), autocommit=True) as connection:
                    while not done.wait(0.005):
                        row = connection.execute("SELECT word FROM state").fetchone()
                        seen.append(str(row[0]) if row else "nothing")
            except psycopg.Error:
                done.wait(0.01)

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        done.set()
        for thread in threads:
            thread.join()


@contextmanager
def watched(server: ThrowawayPostgres) -> Iterator[list[int]]:
    """Count, again and again, the databases of the application's name."""
    counts: list[int] = []
    done = threading.Event()

    def watch() -> None:
        with psycopg.connect(server.connection_string(), autocommit=True) as connection:
            while not done.is_set():
                row = connection.execute("SELECT count(*) FROM pg_database WHERE datname = 'shop'").fetchone()
                counts.append(int(row[0]) if row else -1)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield counts
    finally:
        done.set()
        thread.join()


def restore_and_die(server: ThrowawayPostgres, content: FolderContent, step: str) -> int:
    """Restore in place in a process of its own that is killed as a step begins; return how it ended."""
    folder = installed(server.programs.major).folder
    arguments = [str(content.folder), server.connection_string(), "shop", "yes", step]
    return subprocess.run(
        [sys.executable, "-m", "tests.integration.postgres_live.live", *arguments],
        env={**os.environ, "HOLDFAST_POSTGRES_BIN": str(folder), "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
        cwd=ROOT,
        timeout=RESTORE_SECONDS_MAX,
        check=False,
    ).returncode


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step_the_name_is_the_old_or_the_new_and_the_next_restore_completes(
    server: ThrowawayPostgres, backup: FolderContent, step: str
) -> None:
    with running_clients(server) as seen, watched(server) as counts:
        assert restore_and_die(server, backup, step) == -9
        word = value(server, "SELECT word FROM state", "shop")
        assert word == ("backed up" if step == "swapped" else "live")
        left = {name for name in databases(server) if name.startswith("holdfast_loading_")}
        assert len(left) == (0 if step in ("create", "swapped") else 1)
        report = restore(backup, target(server, "shop", in_place=True))
    assert report.differences == ()
    assert set(counts) == {1}
    assert set(seen) <= {"live", "backed up"}
    assert value(server, "SELECT word FROM state", "shop") == "backed up"
    kept = [name for name in databases(server) if name.startswith("shop_before_")]
    assert len(kept) == (2 if step == "swapped" else 1)
    assert databases(server) == {"postgres", "shop", *kept}
    words = {value(server, "SELECT word FROM state", name) for name in kept}
    assert words == ({"live", "backed up"} if step == "swapped" else {"live"})
    told = " ".join(report.notes)
    assert all(name in told for name in left)
    assert ("it is used" in told) == (step == "swap")


@pytest.mark.parametrize("later", ["0.005", "0.03", "0.06", "0.1"])
def test_killed_within_the_swap_the_name_is_the_old_or_the_new(
    server: ThrowawayPostgres, backup: FolderContent, later: str
) -> None:
    with running_clients(server) as seen, watched(server) as counts:
        restore_and_die(server, backup, f"swap+{later}")
        assert value(server, "SELECT word FROM state", "shop") in ("live", "backed up")
        restore(backup, target(server, "shop", in_place=True))
    assert set(counts) == {1}
    assert set(seen) <= {"live", "backed up"}
    assert value(server, "SELECT word FROM state", "shop") == "backed up"
    kept = {name for name in databases(server) if name.startswith("shop_before_")}
    assert databases(server) == {"postgres", "shop"} | kept
    assert "live" in {value(server, "SELECT word FROM state", name) for name in kept}


def test_all_steps_of_a_restore_in_place_were_tried(server: ThrowawayPostgres, backup: FolderContent) -> None:
    steps: list[str] = []
    restore(backup, target(server, "shop", in_place=True), at_step=steps.append)
    assert tuple(steps) == ("look", *STEPS)


def test_the_database_of_a_restore_that_is_alive_is_named_and_left_alone(
    server: ThrowawayPostgres, backup: FolderContent
) -> None:
    notes: list[str] = []

    def at_step(step: str) -> None:
        if step == "rows":
            notes.extend(restore(backup, target(server, "second")).notes)

    report = restore(backup, target(server, "first"), at_step=at_step, new_id=lambda: "0000abcd")
    assert report.differences == ()
    assert f"database {loading_name('0000abcd')} is being loaded by another restore right now" in notes
    assert databases(server) == {"postgres", "shop", "first", "second"}


def test_somebody_elses_database_with_a_name_like_ours_is_never_dropped(
    server: ThrowawayPostgres, backup: FolderContent
) -> None:
    theirs = loading_name("00000001")
    execute(server, f"CREATE DATABASE {theirs}")
    execute(server, "CREATE TABLE precious (a int)", database=theirs)
    report = restore(backup, target(server, "new"))
    assert any(theirs in note and "not touched" in note for note in report.notes)
    assert theirs in databases(server)


def test_prepared_transactions_subscriptions_and_slots_are_named_with_what_to_do(
    new_postgres: StartPostgres, tmp_path: Path
) -> None:
    server = new_postgres(15, quick_settings({"wal_level": "logical", "max_prepared_transactions": "4"}))
    execute(server, "CREATE DATABASE shop")
    execute(server, "CREATE TABLE state (word text)", database="shop")
    content = take(server, tmp_path / "shop", "shop")
    wish = target(server, "shop", in_place=True)
    execute(server, "BEGIN", "INSERT INTO state VALUES ('x')", "PREPARE TRANSACTION 'pending one'", database="shop")
    with pytest.raises(Conflict, match="prepared transactions, first pending one") as prepared:
        live.refill().plan(content, wish)
    assert "ROLLBACK PREPARED" in prepared.value.hint
    execute(server, "ROLLBACK PREPARED 'pending one'", database="shop")
    execute(server, "SELECT pg_create_logical_replication_slot('feed', 'pgoutput')", database="shop")
    with pytest.raises(Conflict, match="logical replication slots: feed") as slots:
        live.refill().plan(content, wish)
    assert "pg_drop_replication_slot" in slots.value.hint
    execute(server, "SELECT pg_drop_replication_slot('feed')", database="shop")
    execute(
        server,
        "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (connect = false)",
        "ALTER SUBSCRIPTION s SET (slot_name = 'other')",
        "ALTER SUBSCRIPTION s ENABLE",
        database="shop",
    )
    with pytest.raises(Conflict, match="enabled subscriptions: s") as subscriptions:
        live.refill().plan(content, wish)
    assert "DISABLE" in subscriptions.value.hint
    execute(server, "ALTER SUBSCRIPTION s DISABLE", database="shop")
    assert live.refill().plan(content, wish).live == "shop"


def test_a_prepared_transaction_that_appears_meanwhile_keeps_the_loaded_database_for_the_next_run(
    new_postgres: StartPostgres, tmp_path: Path
) -> None:
    server = new_postgres(15, quick_settings({"max_prepared_transactions": "4"}))
    execute(server, "CREATE DATABASE shop")
    execute(server, "CREATE TABLE state (word text)", "INSERT INTO state VALUES ('backed up')", database="shop")
    content = take(server, tmp_path / "shop", "shop")

    def at_step(step: str) -> None:
        if step == "swap":
            execute(server, "BEGIN", "DELETE FROM state", "PREPARE TRANSACTION 'late'", database="shop")

    wish = target(server, "shop", in_place=True)
    with pytest.raises(Conflict, match="first late") as caught:
        restore(content, wish, at_step=at_step, new_id=lambda: "0000abcd")
    assert f"waits as database {loading_name('0000abcd')}: run this again" in caught.value.hint
    execute(server, "ROLLBACK PREPARED 'late'", database="shop")
    steps: list[str] = []
    report = restore(content, wish, at_step=steps.append)
    assert "rows" not in steps
    assert report.database == "shop"
    assert databases(server) == {"postgres", "shop", report.kept_as}


def test_sessions_that_may_not_be_ended_are_named_and_nothing_is_renamed(server: ThrowawayPostgres) -> None:
    execute(
        server, "CREATE ROLE small LOGIN CREATEDB", "CREATE DATABASE shop OWNER small", "CREATE DATABASE x OWNER small"
    )
    settings = settings_from_dsn(psycopg.conninfo.make_conninfo(server.connection_string(), user="small"))
    with psycopg.connect(server.connection_string("shop"), autocommit=True), open_maintenance(settings) as session:
        with pytest.raises(Denied, match="may not end sessions of shop, those of postgres") as caught:
            exchange(settings, session, Exchange("x", "shop", "shop_before", "NULL"))
        assert "pg_signal_backend" in caught.value.hint
        assert databases(server) == {"postgres", "shop", "x"}
    live.drop_all(server)


def test_a_stop_before_the_swap_leaves_everything_as_it_was(server: ThrowawayPostgres, backup: FolderContent) -> None:
    steps: list[str] = []
    with pytest.raises(Interrupted):
        restore(
            backup,
            target(server, "shop", in_place=True),
            at_step=steps.append,
            stop_requested=lambda: "indexes and constraints" in steps,
        )
    assert value(server, "SELECT word FROM state", "shop") == "live"
    assert databases(server) == {"postgres", "shop"}


def test_the_database_that_maintenance_works_from_can_itself_be_replaced(
    new_postgres: StartPostgres, tmp_path: Path
) -> None:
    server = new_postgres(15)
    execute(server, "CREATE TABLE state (word text)", "INSERT INTO state VALUES ('backed up')")
    content = take(server, tmp_path / "all", "postgres")
    execute(server, "UPDATE state SET word = 'live'")
    report = restore(content, target(server, "postgres", in_place=True))
    assert rows(server, "SELECT word FROM state") == [("backed up",)]
    assert report.kept_as in databases(server)
