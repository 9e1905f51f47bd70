"""What fails in the middle of a restore is told with its kind and a hint, and nothing half loaded stays unnamed."""

from __future__ import annotations

import json
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from tests.integration.postgres_capture.servers import execute, value
from tests.integration.postgres_live import shop
from tests.integration.postgres_live.conftest import Live
from tests.integration.postgres_live.kept_folder import keep
from tests.servers import PostgresServers

from holdfast.model.errors import (
    Conflict,
    HoldfastError,
    Interrupted,
    NotFound,
    OutOfSpace,
    SourceFailed,
    Unavailable,
)
from holdfast.sources.postgres.logical import swap
from holdfast.sources.postgres.logical.refill import PostgresServerRefill

FILE_BYTES_MAX = 17 << 20
"""Room for a WAL segment, and for no table that is larger."""
LOOKS_MAX = 2000


def at(wanted: str, act: Callable[[], None]) -> PostgresServerRefill:
    """Do something as a step begins."""

    def at_step(step: str) -> None:
        if step == wanted:
            act()

    return PostgresServerRefill(at_step=at_step)


def loading(live: Live) -> str:
    return next(name for name in shop.databases(live.server) if name.startswith("holdfast_loading_"))


def children_called(name: str) -> list[int]:
    """List our own children of that name."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "stat").read_text().rsplit(")", 1)
            if words[0].split("(", 1)[1] == name and int(words[1].split()[1]) == os.getpid():
                found.append(int(folder.name))
    return found


def kill_soon(name: str) -> None:
    def look() -> None:
        for _ in range(LOOKS_MAX):
            for pid in children_called(name):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                return
            time.sleep(0.001)

    threading.Thread(target=look, daemon=True).start()


@contextmanager
def small_files(live: Live) -> Iterator[None]:
    """Let no file of the server grow beyond a bound: it sees that as it sees a full disk."""
    pid = int((live.server.data_folder / "postmaster.pid").read_text().split()[0])
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("step", "program"),
    [("schema", "pg_restore"), ("rows", "psql"), ("indexes and constraints", "pg_restore")],
)
def test_a_killed_program_fails_the_restore_and_leaves_nothing(live: Live, step: str, program: str) -> None:
    with pytest.raises(SourceFailed, match=f"{program} was ended by signal 9") as raised:
        live.restore(live.target("beside"), at(step, lambda: kill_soon(program)))
    assert "ran out of memory" in raised.value.hint
    assert shop.databases(live.server) == {"shop"}


def test_sessions_ended_on_the_server_fail_the_restore_and_leave_nothing(live: Live) -> None:
    def end() -> None:
        def look() -> None:
            with psycopg.connect(live.server.connection_string(), autocommit=True) as connection:
                for _ in range(LOOKS_MAX):
                    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'holdfast%'"
                    if connection.execute(query).fetchall():
                        return

        threading.Thread(target=look, daemon=True).start()

    with pytest.raises(Unavailable):
        live.restore(live.target("beside"), at("rows", end))
    assert shop.databases(live.server) == {"shop"}


def test_a_full_disk_is_told_as_one_and_leaves_nothing(live: Live, postgres_servers: PostgresServers) -> None:
    big = "CREATE TABLE big AS SELECT n, repeat('x', 1000) AS t FROM generate_series(1, 30000) n"
    execute(live.server, "CREATE DATABASE large")
    execute(live.server, big, database="large")
    folder = postgres_servers.new_folder("large")
    large = Live(live.server, keep(shop.settings_of(live.server), folder / "kept", "large"))
    with small_files(live), pytest.raises(OutOfSpace) as raised:
        large.restore(large.target("beside", only="large"))
    assert "room" in raised.value.hint
    assert shop.databases(live.server) == {"shop", "large"}


def test_a_server_that_dies_leaves_a_database_that_is_named_and_then_dropped(live: Live) -> None:
    loaded: list[str] = []

    def die() -> None:
        loaded.append(loading(live))
        live.server.kill()

    with pytest.raises(HoldfastError) as raised:
        live.restore(live.target("beside"), at("rows", die))
    live.server.restart()
    assert loaded[0] in raised.value.hint
    assert shop.databases(live.server) == {"shop", loaded[0]}
    report = live.restore(live.target("beside"))
    assert shop.databases(live.server) == {"shop", "beside"}
    assert any(loaded[0] in note for note in report.notes)


def test_a_stop_leaves_nothing(live: Live) -> None:
    stop = threading.Event()
    refill = PostgresServerRefill(
        stop_requested=stop.is_set, at_step=lambda step: stop.set() if step == "indexes and constraints" else None
    )
    with pytest.raises(Interrupted):
        live.restore(live.target("beside"), refill)
    assert shop.databases(live.server) == {"shop"}


def test_what_is_not_ours_is_never_dropped(live: Live) -> None:
    # Somebody took the name of ours away and gave the database a comment of his own.
    execute(
        live.server,
        "CREATE DATABASE holdfast_loading_0000abcd",
        "COMMENT ON DATABASE holdfast_loading_0000abcd IS 'mine'",
    )
    execute(live.server, "CREATE DATABASE holdfast_loading_1000abcd")
    execute(live.server, "CREATE TABLE precious (id int)", database="holdfast_loading_1000abcd")
    report = live.restore(live.target("beside"))
    assert {"holdfast_loading_0000abcd", "holdfast_loading_1000abcd"} <= shop.databases(live.server)
    assert any("holdfast_loading_1000abcd" in note for note in report.notes)


def test_a_name_taken_meanwhile_leaves_the_other_one_and_nothing_of_ours(live: Live) -> None:
    def take() -> None:
        execute(live.server, "CREATE DATABASE beside")
        execute(live.server, "CREATE TABLE precious (id int)", database="beside")

    with pytest.raises(HoldfastError, match="beside"):
        live.restore(live.target("beside"), at("compare", take))
    assert shop.databases(live.server) == {"shop", "beside"}
    assert value(live.server, "SELECT to_regclass('precious')::text", "beside") == "precious"


def test_a_lock_that_is_not_to_be_had_leaves_the_old(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swap, "LOCK_SECONDS_MAX", 1)
    monkeypatch.setattr(swap, "ATTEMPTS_MAX", 2)
    with psycopg.connect(live.server.connection_string()) as holder:
        holder.execute("COMMENT ON DATABASE shop IS 'held'")
        with pytest.raises(Unavailable, match="lock") as raised:
            live.restore(live.target("shop", in_place=True))
        holder.rollback()
    left = shop.databases(live.server) - {"shop"}
    assert len(left) == 1
    assert next(iter(left)) in raised.value.hint
    report = live.restore(live.target("shop", in_place=True))
    assert any("it is used" in note for note in report.notes)
    assert report.differences == ()
    assert not left & shop.databases(live.server)


@pytest.mark.parametrize(
    ("make", "end", "word"),
    [
        ("BEGIN; CREATE TABLE p (i int); PREPARE TRANSACTION 'half'", "ROLLBACK PREPARED 'half'", "prepared"),
        (
            "SELECT pg_create_logical_replication_slot('tail', 'test_decoding')",
            "SELECT pg_drop_replication_slot('tail')",
            "tail",
        ),
        (
            "CREATE SUBSCRIPTION sub CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (connect = false); "
            "ALTER SUBSCRIPTION sub ENABLE",
            "ALTER SUBSCRIPTION sub DISABLE; ALTER SUBSCRIPTION sub SET (slot_name = NONE); DROP SUBSCRIPTION sub",
            "sub",
        ),
    ],
)
def test_what_binds_a_database_is_refused_before_anything_is_written(
    live: Live, make: str, end: str, word: str
) -> None:
    shop.psql(live.server, "shop", make)
    steps: list[str] = []
    try:
        with pytest.raises(Conflict, match=word) as raised:
            live.restore(live.target("shop", in_place=True), PostgresServerRefill(at_step=steps.append))
    finally:
        shop.psql(live.server, "shop", end)
    assert raised.value.hint
    assert steps == []
    assert shop.databases(live.server) == {"shop"}


def test_roles_that_a_failed_restore_made_are_named(live: Live, postgres_servers: PostgresServers) -> None:
    other = Live(postgres_servers.start_copy(15), live.folder)
    with pytest.raises(SourceFailed) as raised:
        other.restore(other.target("beside"), at("rows", lambda: kill_soon("psql")))
    roles = value(other.server, "SELECT array_agg(rolname::text) FROM pg_roles WHERE rolname LIKE '%clerk'")
    assert shop.databases(other.server) == set()
    assert all(role in raised.value.hint for role in roles or [])
    postgres_servers.drop(other.server)


def test_a_missing_extension_is_found_before_anything_is_written(live: Live, postgres_servers: PostgresServers) -> None:
    witness = json.loads(live.content.witness.read_text())
    witness["databases"][0]["extensions"]["postgis_of_tests"] = "3.4"
    folder = postgres_servers.new_folder("extension") / "kept"
    folder.mkdir()
    rows = json.loads((live.folder / "index.json").read_text())
    (folder / "witness").write_text(json.dumps(witness))
    size = (folder / "witness").stat().st_size
    rows = [
        [path, size, str(folder / "witness")] if path == "@witness.json" else [path, bytes_, file]
        for path, bytes_, file in rows
    ]
    (folder / "index.json").write_text(json.dumps(rows))
    lacking = Live(live.server, folder)
    steps: list[str] = []
    with pytest.raises(NotFound, match="postgis_of_tests") as raised:
        lacking.restore(lacking.target("beside"), PostgresServerRefill(at_step=steps.append))
    assert "package" in raised.value.hint
    assert "create" not in steps
    assert shop.databases(live.server) == {"shop"}
