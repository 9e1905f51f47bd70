"""Restores into servers that cannot take them, or fail on the way: the right error, and nothing half loaded unnamed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from tests.conftest import StartPostgres
from tests.integration.postgres_live import live
from tests.integration.postgres_live.live import FolderContent, databases, execute, restore, rows, take, target, value
from tests.servers import PostgresServers, installed, quick_settings

from holdfast.model.errors import (
    Conflict,
    Denied,
    IntegrityBroken,
    NotFound,
    OutOfSpace,
    SourceFailed,
    Unavailable,
)
from holdfast.sandbox import ThrowawayPostgres, server_account
from holdfast.sources.postgres.logical.marks import loading_name
from holdfast.sources.postgres.logical.names import Selection, table_path
from holdfast.sources.postgres.settings import settings_from_dsn

WAIT_SECONDS_MAX = 20


@pytest.fixture(scope="module")
def server(postgres_servers: PostgresServers) -> Iterator[ThrowawayPostgres]:
    started = postgres_servers.start(15)
    execute(started, "CREATE ROLE keeper", "CREATE DATABASE shop")
    execute(
        started,
        "CREATE TABLE big (a int, t text)",
        "ALTER TABLE big OWNER TO keeper",
        "INSERT INTO big SELECT i, repeat('x', 200) FROM generate_series(1, 60000) i",
        "CREATE TABLE slow (a int)",
        "INSERT INTO slow SELECT 1",
        "CREATE FUNCTION lazy(a int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS "
        "$$BEGIN PERFORM pg_catalog.pg_sleep(coalesce(current_setting('my.nap', true), '0')::float); RETURN a; END$$",
        "CREATE INDEX slow_lazy ON slow (lazy(a))",
        database="shop",
    )
    yield started
    postgres_servers.drop(started)


@pytest.fixture(scope="module")
def backup(server: ThrowawayPostgres, tmp_path_factory: pytest.TempPathFactory) -> FolderContent:
    return take(server, tmp_path_factory.mktemp("backup") / "shop", "shop")


@pytest.fixture(autouse=True)
def only_the_shop(server: ThrowawayPostgres) -> Iterator[None]:
    yield
    for name in databases(server) - {"postgres", "shop"} if server.is_running() else ():
        execute(server, f'DROP DATABASE "{name}" WITH (FORCE)')


def child_named(word: str) -> int:
    """Wait for a child of ours of that name, and return its process id."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while time.monotonic() < deadline:
        listed = subprocess.run(["ps", "-o", "pid=,comm=", "--ppid", str(os.getpid())], capture_output=True, text=True)  # noqa: PLW1510
        for line in listed.stdout.splitlines():
            pid, name = line.split(maxsplit=1)
            if name.strip() == word:
                return int(pid)
    raise AssertionError(f"no child {word}")


def napping(server: ThrowawayPostgres) -> Callable[[str], None]:
    """Make the building of the slow index take its time."""

    def at_step(step: str) -> None:
        if step == "sequences":
            name = next(name for name in databases(server) if name.startswith("holdfast_loading_"))
            execute(server, f"ALTER DATABASE {name} SET my.nap = '6'")

    return at_step


@contextlib.contextmanager
def in_the_background(act: Callable[[], None]) -> Iterator[None]:
    import threading

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_a_killed_pg_restore_is_told_and_its_database_dropped(server: ThrowawayPostgres, backup: FolderContent) -> None:
    def kill() -> None:
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while not rows(server, "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%'"):
            assert time.monotonic() < deadline
        os.kill(child_named("pg_restore"), signal.SIGKILL)

    with in_the_background(kill), pytest.raises(SourceFailed, match="pg_restore was ended by signal 9") as caught:
        restore(backup, target(server, "new"), at_step=napping(server))
    assert "run this again" in caught.value.hint
    assert databases(server) == {"postgres", "shop"}


def test_a_session_ended_on_the_server_is_told_and_its_database_dropped(
    server: ThrowawayPostgres, backup: FolderContent
) -> None:
    def end() -> None:
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%'"
        while not rows(server, query):
            assert time.monotonic() < deadline

    with in_the_background(end), pytest.raises(Unavailable, match="terminating connection"):
        restore(backup, target(server, "new"), at_step=napping(server))
    assert databases(server) == {"postgres", "shop"}


def test_a_server_that_dies_leaves_a_named_database_which_the_next_restore_drops(
    new_postgres: StartPostgres, backup: FolderContent
) -> None:
    server = new_postgres(15)
    execute(server, "CREATE ROLE keeper")

    def at_step(step: str) -> None:
        if step == "indexes and constraints":
            server.kill()

    with pytest.raises(Unavailable) as caught:
        restore(backup, target(server, "new"), at_step=at_step, new_id=lambda: "0000abcd")
    assert f"left behind: database {loading_name('0000abcd')}" in caught.value.hint
    server.start()
    assert loading_name("0000abcd") in databases(server)
    plan = live.refill().plan(backup, target(server, "new"))
    assert any("was left by a restore that died" in note for note in plan.notes)
    report = restore(backup, target(server, "new"))
    assert any("left half loaded by a restore that died, was dropped" in note for note in report.notes)
    assert databases(server) == {"postgres", "new"}


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of a fixed size in memory. Needs root, as every test of a full disk does."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    account = server_account()
    if account is not None:
        os.chown(folder, account.user_id, account.group_id)
    folder.chmod(0o700)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_of_the_target_is_told_and_its_database_dropped(
    server: ThrowawayPostgres, new_postgres: StartPostgres, server_folder: Path, tmp_path: Path
) -> None:
    account = server_account()
    roomy = server_folder / "roomy"
    roomy.mkdir(0o700)
    if account is not None:
        os.chown(roomy, account.user_id, account.group_id)
    execute(server, f"CREATE TABLESPACE small LOCATION '{roomy}'", "CREATE DATABASE spaced TABLESPACE small")
    rows_of_it = "CREATE TABLE big AS SELECT i, repeat('x', 200) FROM generate_series(1, 100000) i"
    execute(server, rows_of_it, database="spaced")
    content = take(server, tmp_path / "spaced", "spaced")
    execute(server, "DROP DATABASE spaced", "DROP TABLESPACE small")
    other = new_postgres(15)
    assert "the target has no tablespace small" in " ".join(live.refill().plan(content, target(other, "new")).notes)
    with small_disk(server_folder / "disk", "12M") as disk:
        execute(other, f"CREATE TABLESPACE small LOCATION '{disk}'")
        with pytest.raises(OutOfSpace, match="No space left on device") as caught:
            restore(content, target(other, "new"))
        assert "Make room" in caught.value.hint
        assert databases(other) == {"postgres"}
        execute(other, "DROP TABLESPACE small")
    report = restore(content, target(other, "new"))
    assert (report.differences, report.rows_compared) == ((), 100000)


def test_rows_that_cannot_be_read_from_the_repository_leave_nothing(
    server: ThrowawayPostgres, backup: FolderContent
) -> None:
    class Broken(FolderContent):
        def open(self, index: int) -> Iterator[bytes]:
            yield from super().open(index)
            if self.entries[index].entry.path == table_path("shop", "public", "big"):
                raise IntegrityBroken("a chunk is broken")

    with pytest.raises(IntegrityBroken):
        restore(Broken(backup.folder), target(server, "new"))
    assert databases(server) == {"postgres", "shop"}


def test_rows_that_the_server_refuses_leave_nothing_and_name_the_table(
    server: ThrowawayPostgres, backup: FolderContent, tmp_path: Path
) -> None:
    changed = FolderContent(tmp_path / "changed")
    for path in backup.paths:
        new = changed.folder / path.relative_to(backup.folder)
        new.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(path.read_bytes())
    slow = changed.folder / table_path("shop", "public", "slow")
    slow.write_bytes(slow.read_bytes().replace(b"\n1\n", b"\nno number\n"))
    with pytest.raises(SourceFailed, match=r"invalid input syntax for type integer.*COPY slow, line 1"):
        restore(changed, target(server, "new"))
    assert databases(server) == {"postgres", "shop"}


def test_an_extension_the_target_lacks_is_told_before_anything_is_written(
    server: ThrowawayPostgres, backup: FolderContent, tmp_path: Path
) -> None:
    changed = FolderContent(tmp_path / "changed")
    for path in backup.paths:
        new = changed.folder / path.relative_to(backup.folder)
        new.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_bytes()
        new.write_bytes(
            text.replace(b'"plpgsql":', b'"postgis":"3.4","plpgsql":') if path.name == "@witness.json" else text
        )
    steps: list[str] = []
    with pytest.raises(NotFound, match="the target lacks extensions that shop uses: postgis") as caught:
        restore(changed, target(server, "new"), at_step=steps.append)
    assert "Install their packages" in caught.value.hint
    assert steps == []


def test_an_older_target_is_refused(new_postgres: StartPostgres, tmp_path: Path) -> None:
    newer, older = new_postgres(16), new_postgres(15)
    execute(newer, "CREATE DATABASE shop")
    content = take(newer, tmp_path / "shop", "shop", programs=installed(16).folder)
    with pytest.raises(Conflict, match="the backup is of PostgreSQL 16 and the target is PostgreSQL 15"):
        live.refill().plan(content, target(older, "new"))


def test_only_newer_programs_load_into_an_older_server_all_the_same(server: ThrowawayPostgres, tmp_path: Path) -> None:
    execute(server, "CREATE DATABASE small")
    execute(
        server,
        "CREATE TABLE t (a int PRIMARY KEY)",
        "INSERT INTO t SELECT 1",
        "CREATE MATERIALIZED VIEW v AS SELECT * FROM t",
        "SELECT lo_from_bytea(4711, 'abc')",
        database="small",
    )
    content = take(server, tmp_path / "small", "small", programs=installed(18).folder)
    wish = target(server, "new")
    wish = replace(wish, settings=replace(wish.settings, programs=installed(18).folder))
    report = restore(content, wish)
    assert report.differences == ()
    assert value(server, "SELECT count(*) FROM v", "new") == 1
    beside = replace(wish, database="small", selection=Selection("small", "public", "t"), into_table="t2")
    assert restore(content, beside).differences == ()


def test_what_a_newer_pg_dump_wrote_is_read_by_one_as_new(
    server: ThrowawayPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(server, "CREATE DATABASE newer")
    execute(server, "CREATE TABLE t (a int PRIMARY KEY)", "INSERT INTO t SELECT 1", database="newer")
    content = take(server, tmp_path / "newer", "newer", programs=installed(18).folder)
    wish = target(server, "as new")
    monkeypatch.setenv("HOLDFAST_POSTGRES_BIN_18", str(installed(18).folder))
    found = replace(wish, settings=replace(wish.settings, programs=None))
    assert restore(content, found).differences == ()
    only_older = replace(wish, settings=replace(wish.settings, programs=installed(15).folder), database="too old")
    with pytest.raises(NotFound, match="PostgreSQL 17 or newer") as caught:
        restore(content, only_older)
    assert "postgresql-client-17" in caught.value.hint
    assert "too old" not in databases(server)


def as_role(server: ThrowawayPostgres, role: str, database: str) -> live.ServerTarget:
    wish = target(server, database)
    address = psycopg.conninfo.make_conninfo(server.connection_string(), user=role)
    return replace(wish, settings=replace(settings_from_dsn(address), programs=wish.settings.programs))


@pytest.fixture(scope="module")
def keepers(server: ThrowawayPostgres, tmp_path_factory: pytest.TempPathFactory) -> FolderContent:
    """A database in which nothing is a superuser's."""
    execute(server, "CREATE DATABASE keepers OWNER keeper")
    execute(server, "SET ROLE keeper", "CREATE TABLE t (a int)", "INSERT INTO t SELECT 1", database="keepers")
    return take(server, tmp_path_factory.mktemp("backup") / "keepers", "keepers")


def test_a_role_that_may_too_little_is_told_exactly_what_it_lacks(
    server: ThrowawayPostgres, keepers: FolderContent
) -> None:
    backup = keepers
    execute(server, "CREATE ROLE small LOGIN")
    with pytest.raises(Denied, match="role small may not create databases") as caught:
        live.refill().plan(backup, as_role(server, "small", "new"))
    assert 'ALTER ROLE "small" CREATEDB' in caught.value.hint
    execute(server, "ALTER ROLE small CREATEDB")
    with pytest.raises(Denied, match="may not give objects to their owners: keeper") as owners:
        live.refill().plan(backup, as_role(server, "small", "new"))
    assert 'GRANT "keeper" TO "small"' in owners.value.hint
    execute(server, "GRANT keeper TO small")
    assert restore(backup, as_role(server, "small", "new")).differences == ()
    execute(server, "DROP DATABASE new", "DROP ROLE small")


@pytest.mark.parametrize("major", [15, 18])
def test_a_role_that_is_no_superuser_makes_the_roles_it_needs(
    new_postgres: StartPostgres, keepers: FolderContent, major: int
) -> None:
    server = new_postgres(major)
    execute(server, "CREATE ROLE master LOGIN CREATEDB CREATEROLE")
    report = restore(keepers, as_role(server, "master", "new"))
    assert report.differences == ()
    assert value(server, "SELECT relowner::regrole::text FROM pg_class WHERE relname = 't'", "new") == "keeper"


def test_too_few_connections_are_told_before_anything_is_written(
    new_postgres: StartPostgres, backup: FolderContent
) -> None:
    server = new_postgres(15, quick_settings({"max_connections": "10"}))
    with pytest.raises(Unavailable, match=re.escape("free connections, and a restore needs 9")):
        live.refill().plan(backup, target(server, "new"))


def test_a_standby_is_no_target(new_postgres: StartPostgres, backup: FolderContent, server_folder: Path) -> None:
    from holdfast.sandbox import PostgresSettings as ServerSettings

    primary = new_postgres(15)
    data = server_folder / "standby"
    account = server_account()
    subprocess.run(
        [str(primary.programs.path("pg_basebackup")), "-D", str(data), "-R", "-d", primary.connection_string()],
        check=True,
        capture_output=True,
    )
    assert account is None or data.exists()
    standby = new_postgres(15, ServerSettings(parameters=quick_settings().parameters, standby=True), data_folder=data)
    with pytest.raises(Conflict, match="the target is a standby"):
        live.refill().plan(backup, target(standby, "new"))
