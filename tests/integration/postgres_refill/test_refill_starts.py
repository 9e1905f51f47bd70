"""A restored folder starts by itself, as itself, and leaves its source alone (real servers)."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from plain_backup import PROMOTION_LOOKS_MAX, PlainBackup, await_promotion, run_program, start_folder, take_backup
from tests.servers import PostgresServers, quick_settings

from holdfast.model.errors import Conflict
from holdfast.sandbox import PostgresPrograms, PostgresSettings, ThrowawayPostgres, server_account
from holdfast.sandbox.folders import make_private_folder
from holdfast.sandbox.ports import free_port
from holdfast.sources.port import FolderTarget
from holdfast.sources.postgres.details import Tablespace, parse_lsn
from holdfast.sources.postgres.refill_wal import segment_name

COMMIT_SECONDS_MAX = 10
MIB_16 = 16 << 20
OLDEST_AND_NEWEST = pytest.mark.parametrize("postgres_major", [15, 18], indirect=True)


@contextmanager
def started(programs: PostgresPrograms, folder: Path, *options: str, may_connect: bool = True) -> Iterator[str]:
    """Start a folder with pg_ctl alone, as an operator does; yields how to connect, once recovery is over."""
    sockets = folder.parent / "s"
    make_private_folder(sockets, server_account())
    port = free_port(random.SystemRandom())
    words = " ".join([f"-p {port}", f"-k {sockets}", *options])
    log = sockets / "log"
    start_folder(programs, folder, log, words)
    address = f"host={sockets} port={port} user=postgres dbname=postgres connect_timeout={COMMIT_SECONDS_MAX}"
    try:
        if may_connect:
            await_promotion(address)
        yield address
    finally:
        run_program(programs, "pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(folder))


def facts_of_tree(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for parent, _, files in os.walk(folder):
        for name in files:
            status = Path(parent, name).stat()
            found[str(Path(parent, name).relative_to(folder))] = (status.st_size, status.st_mtime_ns)
    return found


def tablespace(server: ThrowawayPostgres, folder: Path) -> Tablespace:
    """Make a tablespace with a table in it."""
    make_private_folder(folder, server_account())
    with psycopg.connect(server.connection_string(), autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE beside LOCATION '{folder}'")
        connection.execute("CREATE TABLE placed TABLESPACE beside AS SELECT generate_series(1, 1000) AS id")
        connection.execute("CREATE UNLOGGED TABLE fleeting AS SELECT 1 AS id")
        row = connection.execute("SELECT oid::int FROM pg_tablespace WHERE spcname = 'beside'").fetchone()
    assert row
    return Tablespace(row[0], str(folder), None)


@pytest.fixture
def archiving(postgres_servers: PostgresServers, postgres_major: int) -> Iterator[tuple[ThrowawayPostgres, Path]]:
    """A server that archives into a folder, and the folder."""
    archive = postgres_servers.new_folder("archive")
    make_private_folder(archive, server_account())
    settings = quick_settings(
        {
            "archive_mode": "on",
            "archive_command": f"cp %p {archive}/%f",
            "max_connections": "30",
            "full_page_writes": "on",
        }
    )
    server = postgres_servers.start(postgres_major, settings)
    yield server, archive
    postgres_servers.drop(server)


def test_a_copy_starts_alone_on_its_own_timeline_and_leaves_its_source_alone(
    archiving: tuple[ThrowawayPostgres, Path], server_folder: Path
) -> None:
    server, archive = archiving
    space = tablespace(server, server_folder / "space")
    with psycopg.connect(server.connection_string(), autocommit=True) as connection:
        # The first commit of a copy would wait for this standby for ever.
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        connection.execute("ALTER SYSTEM SET recovery_target_name = 'left over'")
        connection.execute("SELECT pg_create_physical_replication_slot('follower', true)")
    backup = take_backup(server, server_folder, (space,))
    server.stop()
    original = facts_of_tree(server_folder / "space")
    archived = facts_of_tree(archive)

    target = server_folder / "copies" / "restored"
    plan = backup.restore(FolderTarget(target))
    server_folder.joinpath("copies").chmod(0o711)
    run_program(server.programs, "pg_verifybackup", str(target))
    assert (target / f"pg_tblspc/{space.oid}").readlink() == target.with_name("restored.tablespaces") / str(space.oid)
    with started(server.programs, target, "-h ''") as address, psycopg.connect(address, autocommit=True) as connection:
        assert connection.execute("SELECT sum(id) FROM placed").fetchone() == (500500,)
        assert connection.execute("SELECT count(*) FROM fleeting").fetchone() == (0,)
        assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
        assert connection.execute("SELECT count(*) FROM pg_replication_slots").fetchone() == (0,)
        connection.execute("INSERT INTO placed VALUES (1001)")
        name = connection.execute("SELECT pg_walfile_name(pg_current_wal_lsn())").fetchone()
        assert name
        assert name[0].startswith("00000002")
        connection.execute("SELECT pg_switch_wal()")
        connection.execute("CHECKPOINT")
        failed = connection.execute("SELECT archived_count + failed_count FROM pg_stat_archiver").fetchone()
        assert failed == (0,)
    assert facts_of_tree(archive) == archived
    assert facts_of_tree(server_folder / "space") == original
    assert any("unlogged" in note for note in plan.notes)


@OLDEST_AND_NEWEST
def test_archiving_switched_on_again_sends_nothing_of_the_sources_log(
    archiving: tuple[ThrowawayPostgres, Path], server_folder: Path
) -> None:
    server, _ = archiving
    backup = take_backup(server, server_folder)
    target = server_folder / "restored"
    backup.restore(FolderTarget(target))
    with started(server.programs, target):
        pass
    fresh = server_folder / "fresh"
    make_private_folder(fresh, server_account())
    option = f"-c archive_mode=on -c 'archive_command=cp %p {fresh}/%f'"
    with started(server.programs, target, option) as address, psycopg.connect(address, autocommit=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS id")
        connection.execute("SELECT pg_switch_wal()")
        connection.execute("CHECKPOINT")
    # A clean stop would wait for the archiver; pg_ctl stopped at once, so only what it had begun is there.
    names = [path.name for path in fresh.iterdir()]
    assert not [name for name in names if name.startswith("00000001") and not name.endswith(".history")]


@OLDEST_AND_NEWEST
def test_what_was_logged_after_the_stop_position_is_not_in_the_copy(
    postgres_server: ThrowawayPostgres, server_folder: Path
) -> None:
    with psycopg.connect(postgres_server.connection_string(), autocommit=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS id")
        backup = take_backup(postgres_server, server_folder)
        connection.execute("INSERT INTO t VALUES (2)")
        connection.execute("CREATE TABLE later AS SELECT 1 AS id")
    names = sorted(path.name for path in (server_folder / "backup/pg_wal").iterdir() if len(path.name) == 24)
    for name in names:  # The same segments, read later: with the records of the insert behind the stop position.
        backup = backup.with_file(f"pg_wal/{name}", (postgres_server.data_folder / "pg_wal" / name).read_bytes())
    target = server_folder / "restored"
    backup.restore(FolderTarget(target))
    with started(postgres_server.programs, target) as address, psycopg.connect(address) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (1,)
        assert connection.execute("SELECT to_regclass('later')").fetchone() == (None,)


@OLDEST_AND_NEWEST
def test_a_copy_of_a_standby_is_a_primary(
    postgres_server: ThrowawayPostgres, postgres_servers: PostgresServers, server_folder: Path
) -> None:
    with psycopg.connect(postgres_server.connection_string(), autocommit=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id")
    run_program(
        postgres_server.programs, "pg_basebackup", f"--pgdata={_owned(server_folder) / 'standby'}", "--checkpoint=fast",
        "--no-sync", "--write-recovery-conf", f"--dbname={postgres_server.connection_string()}",
    )  # fmt: skip
    settings = PostgresSettings(parameters={"fsync": "off"}, standby=True)
    standby = postgres_servers.start(
        postgres_server.programs.major, settings, data_folder=server_folder / "owned" / "standby"
    )
    backup = take_backup(standby, server_folder)
    assert backup.details.in_recovery
    postgres_servers.drop(standby)
    target = server_folder / "restored"
    backup.restore(FolderTarget(target))
    run_program(postgres_server.programs, "pg_verifybackup", str(target))
    with started(postgres_server.programs, target) as address, psycopg.connect(address) as connection:
        assert connection.execute("SELECT count(*), pg_is_in_recovery() FROM t").fetchone() == (1000, False)
        assert connection.execute("SHOW primary_conninfo").fetchone() == ("",)


def _owned(folder: Path) -> Path:
    make_private_folder(folder / "owned", server_account())
    return folder / "owned"


@OLDEST_AND_NEWEST
def test_configuration_outside_the_folder_gives_one_that_starts(
    postgres_server: ThrowawayPostgres, server_folder: Path
) -> None:
    backup = take_backup(postgres_server, server_folder)
    made = ("pg_hba.conf", "pg_ident.conf", "postgresql.conf")
    backup = replace(backup, removed=frozenset(made), details=replace(backup.details, configuration_outside=True))
    target = server_folder / "restored"
    backup.restore(FolderTarget(target))
    run_program(postgres_server.programs, "pg_verifybackup", *(f"--ignore={name}" for name in made), str(target))
    with started(postgres_server.programs, target, may_connect=False):  # The made rules want a proof of the account.
        for _ in range(PROMOTION_LOOKS_MAX):
            if _timeline(postgres_server, target) == "2":
                break
            time.sleep(0.05)
        assert _timeline(postgres_server, target) == "2"


@OLDEST_AND_NEWEST
def test_configuration_that_points_to_the_sources_machine_does_not_stop_the_start(
    postgres_server: ThrowawayPostgres, server_folder: Path
) -> None:
    backup = take_backup(postgres_server, server_folder)
    lines = backup.content("postgresql.conf") + FOREIGN.replace(b"%d", os.fsencode(postgres_server.data_folder))
    target = server_folder / "restored copy's"
    plan = backup.with_file("postgresql.conf", lines).restore(FolderTarget(target))
    assert any("--ignore=postgresql.conf" in note for note in plan.notes)
    log = server_folder / "log"
    make_private_folder(log, server_account())
    port = free_port(random.SystemRandom())
    start_folder(postgres_server.programs, target, log / "log", f"-p {port}")
    try:
        address = f"host=127.0.0.1 port={port} user=postgres dbname=postgres"
        with psycopg.connect(address) as connection:
            assert connection.execute("SHOW data_directory").fetchone() == (str(target),)
            assert connection.execute("SHOW hba_file").fetchone() == (f"{target}/pg_hba.conf",)
        with pytest.raises(Conflict, match="runs on"):
            backup.restore(FolderTarget(target))
    finally:
        run_program(postgres_server.programs, "pg_ctl", "stop", "-w", "-D", str(target))
    assert not Path("/nonexistent").exists()


FOREIGN = b"""
data_directory = '%d'
hba_file = '/nonexistent/pg_hba.conf'
ident_file = '/nonexistent/pg_ident.conf'
external_pid_file = '/nonexistent/main.pid'
listen_addresses = '192.0.2.17'
unix_socket_directories = '/nonexistent/sockets'
logging_collector = on
log_directory = '/nonexistent/log'
ssl = on
ssl_cert_file = '/nonexistent/cert.pem'
ssl_key_file = '/nonexistent/key.pem'
huge_pages = on
recovery_target_time = '2020-01-01 00:00:00+00'
synchronous_standby_names = '*'
include '/nonexistent/extra.conf'
include_dir '/nonexistent/conf.d'
"""


def _timeline(server: ThrowawayPostgres, folder: Path) -> str:
    said = run_program(server.programs, "pg_controldata", str(folder))
    lines = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    return lines["Latest checkpoint's TimeLineID"].strip()


@OLDEST_AND_NEWEST
def test_a_running_server_is_never_a_target(postgres_server: ThrowawayPostgres, server_folder: Path) -> None:
    backup: PlainBackup = take_backup(postgres_server, server_folder)
    with pytest.raises(Conflict, match="runs on"):
        backup.restore(FolderTarget(postgres_server.data_folder))


@OLDEST_AND_NEWEST
def test_a_copy_whose_log_is_damaged_before_the_stop_position_does_not_start(
    postgres_server: ThrowawayPostgres, server_folder: Path
) -> None:
    backup = take_backup(postgres_server, server_folder)
    name = segment_name(1, parse_lsn(backup.details.start_lsn) // MIB_16, MIB_16)
    content = bytearray(backup.content(f"pg_wal/{name}"))
    position = parse_lsn(backup.details.stop_lsn) % MIB_16 - 8
    content[position] ^= 0xFF
    target = server_folder / "restored"
    backup.with_file(f"pg_wal/{name}", bytes(content)).restore(FolderTarget(target))
    with (
        pytest.raises(AssertionError, match="WAL ends before end of online backup"),
        started(postgres_server.programs, target),
    ):
        pytest.fail("it started without the last record of the backup")
