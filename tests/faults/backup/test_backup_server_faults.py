"""A real PostgreSQL that goes away in the middle of a whole backup: a clear error in bounded time, and no entry."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from tests.faults.backup.tcp_proxy import proxy_to
from tests.faults.backup.whole_backups import World, area_of, make, settled
from tests.servers import PostgresServers

from holdfast.backup.taking import BackupOrder, BackupTaken, take_backup
from holdfast.model.errors import HoldfastError, Interrupted, SourceFailed, Unavailable
from holdfast.model.events import Progress
from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.port import Tier
from holdfast.sources.postgres.capture import PostgresSource
from holdfast.sources.postgres.settings import PostgresSettings, settings_from_dsn
from holdfast.storage.folder import FolderStore

MIDDLE_BYTES = 3_000_000
SLOW_KIB = 6144
SILENCE_SECONDS_MAX = 1.5
END_SECONDS_MAX = 30.0
GONE_SECONDS_MAX = 30.0


@pytest.fixture(scope="module")
def server(postgres_servers: PostgresServers) -> Iterator[ThrowawayPostgres]:
    started = postgres_servers.start_copy(18)
    yield started
    postgres_servers.drop(started)


@pytest.fixture
def store(world: World, tmp_path: Path) -> FolderStore:
    made = FolderStore(tmp_path / "repository")
    make(made)
    return made


def execute(server: ThrowawayPostgres, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(server.connection_string(), autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


def settings_of(server: ThrowawayPostgres, port: int | None = None) -> PostgresSettings:
    settings = settings_from_dsn(f"host=127.0.0.1 port={port or server.port} user=postgres dbname=postgres")
    return replace(
        settings, max_rate_kib=SLOW_KIB, silence_seconds_max=SILENCE_SECONDS_MAX, query_seconds_max=SILENCE_SECONDS_MAX
    )


def take(
    world: World,
    store: FolderStore,
    settings: PostgresSettings,
    middle: Callable[[], object] = lambda: None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> BackupTaken:
    """Take a backup, and do something once, in the middle of the stream."""
    done: list[bool] = []

    def on_progress(progress: Progress) -> None:
        if progress.done_bytes >= MIDDLE_BYTES and not done:
            done.append(True)
            middle()

    around = world.around(on_progress=on_progress, stop_requested=stop_requested, lease_period_seconds=15.0)
    source = PostgresSource("orders", settings)
    taken = take_backup(area_of(settled(store)), source, BackupOrder(Tier.FULL, "physical", "physical"), around)
    assert done
    return taken


def require_told_and_well_again(
    world: World, store: FolderStore, server: ThrowawayPostgres, settings: PostgresSettings, error: HoldfastError
) -> None:
    """Require that the failed run is told and left nothing behind, and that the next one works at once."""
    area = area_of(store)
    runs = list(area.runs())
    assert [run["outcome"] for run in runs] == ["interrupted" if isinstance(error, Interrupted) else "failed"]
    assert world.listed(store) == []
    until = time.monotonic() + GONE_SECONDS_MAX
    while execute(server, "SELECT pid FROM pg_stat_replication UNION ALL SELECT active_pid FROM pg_replication_slots"):
        assert time.monotonic() < until, "a slot or a WAL sender is left on the server"
        time.sleep(0.05)
    taken = take(world, store, replace(settings, max_rate_kib=None))
    assert [record.id for record in world.listed(store)] == [taken.record.id]
    assert world.check(store).findings == ()


def fail(world: World, store: FolderStore, settings: PostgresSettings, middle: Callable[[], object]) -> HoldfastError:
    """Take a backup that has to fail soon after what happens in its middle; return its error."""
    at: list[float] = []

    def act() -> None:
        middle()
        at.append(time.monotonic())

    with pytest.raises((Unavailable, SourceFailed)) as caught:
        take(world, store, settings, act)
    assert time.monotonic() - at[0] < END_SECONDS_MAX
    assert caught.value.exit_code == 1
    assert caught.value.hint
    return caught.value


def test_a_terminated_backend_leaves_no_backup(world: World, store: FolderStore, server: ThrowawayPostgres) -> None:
    settings = settings_of(server)
    terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_replication"
    error = fail(world, store, settings, lambda: execute(server, terminate))
    require_told_and_well_again(world, store, server, settings, error)


@pytest.mark.parametrize("how", ["immediate", "killed", "restarted"])
def test_a_server_that_ends_leaves_no_backup(
    world: World, store: FolderStore, server: ThrowawayPostgres, how: str
) -> None:
    def immediate() -> None:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGQUIT)

    settings = settings_of(server)
    error = fail(
        world, store, settings, {"immediate": immediate, "killed": server.kill, "restarted": server.restart}[how]
    )
    if how != "restarted":
        server.restart()
    require_told_and_well_again(world, store, server, settings, error)


@pytest.mark.parametrize("how", ["silent", "cut"])
def test_a_network_that_ends_leaves_no_backup(
    world: World, store: FolderStore, server: ThrowawayPostgres, how: str
) -> None:
    with proxy_to(server.port) as proxy:
        settings = settings_of(server, proxy.port)
        error = fail(world, store, settings, proxy.fall_silent if how == "silent" else proxy.cut)
        assert "silent" in error.message or how == "cut"
    require_told_and_well_again(world, store, server, settings_of(server), error)


def test_a_server_that_is_not_there_is_told_before_anything_is_stored(
    world: World, store: FolderStore, server: ThrowawayPostgres
) -> None:
    with pytest.raises(Unavailable) as caught:
        take(world, store, settings_of(server, 1))
    assert not [info for info in store.list("areas/") if "/packs/" in info.name]
    require_told_and_well_again(world, store, server, settings_of(server), caught.value)


def test_a_stop_in_the_middle_is_an_interruption_and_frees_the_lease(
    world: World, store: FolderStore, server: ThrowawayPostgres
) -> None:
    asked: list[bool] = []
    settings = settings_of(server)
    with pytest.raises(Interrupted) as caught:
        take(world, store, settings, lambda: asked.append(True), lambda: bool(asked))
    assert caught.value.exit_code == 130
    require_told_and_well_again(world, store, server, settings, caught.value)


def test_two_backups_of_one_server_at_once_in_two_lanes_are_both_whole(
    world: World, store: FolderStore, server: ThrowawayPostgres
) -> None:
    source = PostgresSource("orders", replace(settings_of(server), max_rate_kib=None))
    inner: list[BackupTaken] = []

    def middle() -> None:
        order = BackupOrder(Tier.FULL, "physical", "logical")
        inner.append(take_backup(area_of(settled(store)), source, order, world.around(lease_period_seconds=15.0)))

    outer = take(world, store, replace(settings_of(server), silence_seconds_max=60.0), middle)
    assert [record.id for record in world.listed(store)] == [inner[0].record.id, outer.record.id]
    assert world.check(store).findings == ()
    for record in world.listed(store):
        assert "backup_manifest" in world.read_all(store, record)


def test_no_thread_of_a_failed_backup_stays_behind(world: World, store: FolderStore, server: ThrowawayPostgres) -> None:
    import threading

    before = {thread.ident for thread in threading.enumerate()}
    terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_replication"
    fail(world, store, settings_of(server), lambda: execute(server, terminate))
    with suppress(StopIteration):
        left = next(
            thread
            for thread in threading.enumerate()
            if thread.ident not in before and not thread.name.startswith("ThreadPoolExecutor")
        )
        pytest.fail(f"{left.name} is still running")
