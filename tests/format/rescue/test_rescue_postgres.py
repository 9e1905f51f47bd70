"""The stand-alone reader makes of a physical backup a folder that the server's own pg_ctl starts."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import time
from pathlib import Path

import psycopg
import pytest
from miniature_writer import Run, Writer
from tests.servers import installed

from holdfast.sandbox import ThrowawayPostgres, server_account
from holdfast.sandbox.folders import hand_over

SEGMENT = 1 << 20
PROMOTION_LOOKS_MAX = 600
DETAILS = {"wal_segment_size": SEGMENT, "stop_lsn": "1/200300", "stop_timeline": 3, "settings": []}
LAST = "000000030000000100000002"
RECOVERY = ("restore_command = 'false'", "recovery_target_timeline = 'current'", "archive_mode = off")


def backup(writer: Writer, *more: dict, **details: object) -> str:
    items = [
        writer.file("global/pg_control", b"control"),
        writer.file(f"pg_wal/{LAST}", b"w" * SEGMENT, depth=2),
        *more,
    ]
    return writer.backup(items, kind="postgres", form="physical", details=DETAILS | details)


def test_rescue_ends_the_wal_where_the_backup_ends(writer: Writer, rescue: Run, target: Path) -> None:
    later = writer.file("pg_wal/000000030000000100000003", b"later")
    backup(writer, later, writer.file("pg_wal/00000003.history", b"history"))
    assert rescue("main", "latest", target).returncode == 0
    assert (target / "pg_wal" / LAST).read_bytes() == b"w" * 0x300 + bytes(SEGMENT - 0x300)
    assert sorted(path.name for path in (target / "pg_wal").iterdir()) == ["00000003.history", LAST]


def test_rescue_takes_the_segment_before_when_the_backup_ends_with_it(
    writer: Writer, rescue: Run, target: Path
) -> None:
    backup(writer, stop_lsn="1/300000")
    assert rescue("main", "latest", target).returncode == 0
    assert (target / "pg_wal" / LAST).read_bytes() == b"w" * SEGMENT


@pytest.mark.parametrize("stop", ["1/300001", "2/0", "nonsense"])
def test_rescue_refuses_wal_that_does_not_reach_the_end(writer: Writer, rescue: Run, target: Path, stop: str) -> None:
    backup(writer, stop_lsn=stop)
    assert rescue("main", "latest", target).returncode == 13
    assert not (target / "global/pg_control").exists()


def test_rescue_leaves_the_control_file_out_when_anything_is_damaged(writer: Writer, rescue: Run, target: Path) -> None:
    lost = writer.file("base/1/1259", b"table")
    (writer.folder / writer.last_pack).unlink()
    backup(writer, lost, writer.file("PG_VERSION", b"15\n"))
    assert rescue("main", "latest", target).returncode == 13
    assert (target / "PG_VERSION").exists()
    assert not (target / "global/pg_control").exists()


def test_rescue_gives_tablespaces_folders_of_their_own(writer: Writer, rescue: Run, target: Path) -> None:
    items = [
        {"path": "pg_tblspc/16400", "type": "link", "link": "/disk of the source"},
        writer.file("pg_tblspc/16400/PG_15/1/2", b"row"),
        writer.file("pg_tblspc/16500/PG_15/1/3", b"in place"),
        {"path": "pg_log", "type": "link", "link": "/var/log"},
    ]
    backup(writer, *items)
    assert rescue("main", "latest", target).returncode == 0
    spaces = target.parent / "target.tablespaces"
    assert (target / "pg_tblspc/16400").readlink() == spaces / "16400"
    assert (spaces / "16400/PG_15/1/2").read_bytes() == b"row"
    assert not (target / "pg_tblspc/16500").is_symlink()
    assert not os.path.lexists(target / "pg_log")
    assert stat.S_IMODE((spaces / "16400").stat().st_mode) == 0o700


def test_rescue_writes_the_settings_of_one_recovery(writer: Writer, rescue: Run, target: Path) -> None:
    left_out = ("standby.signal", "postmaster.pid", "tablespace_map", "pg_replslot/a/state")
    names = (*left_out, "postgresql.conf", "pg_hba.conf")
    auto = writer.file("postgresql.auto.conf", b"recovery_target_time = 'long ago'")
    backup(writer, auto, *(writer.file(name, b"# own\n") for name in names))
    done = rescue("main", "latest", target)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = (target / "postgresql.auto.conf").read_text().splitlines()
    assert lines[0] == "recovery_target_time = 'long ago'"
    assert {*RECOVERY, "recovery_target_time = ''", "primary_conninfo = ''"} <= {*lines[1:]}
    assert (target / "recovery.signal").read_bytes() == b""
    assert not any((target / name).exists() for name in left_out)
    assert (target / "postgresql.conf").read_text() == "# own\n"
    modes = {stat.S_IMODE(path.lstat().st_mode) for path in target.rglob("*")}
    assert modes == {0o600, 0o700}


def test_rescue_copies_configuration_kept_beside_without_what_points_elsewhere(
    writer: Writer, rescue: Run, target: Path
) -> None:
    conf = b"data_directory = '/live'\nwork_mem = '8MB'\ninclude_dir 'conf.d'\nSSL = on\n"
    backup(writer, writer.file("@settings/postgresql.conf", conf), settings=[["max_connections", "77"]])
    done = rescue("main", "latest", target)
    assert done.returncode == 0
    expected = "#data_directory = '/live'\nwork_mem = '8MB'\n#include_dir 'conf.d'\n#SSL = on\n"
    assert (target / "postgresql.conf").read_text() == expected
    assert "127.0.0.1/32" in (target / "pg_hba.conf").read_text()
    assert b"pg_hba.conf lay outside" in done.stderr


def test_rescue_makes_a_minimal_configuration_where_there_is_none(writer: Writer, rescue: Run, target: Path) -> None:
    backup(writer, settings=[["max_connections", "77"], ["shared_preload_libraries", "it's"], ["port", "1"]])
    assert rescue("main", "latest", target).returncode == 0
    expected = "max_connections = '77'\nshared_preload_libraries = 'it''s'\n"
    assert (target / "postgresql.conf").read_text() == expected


def capture(server: ThrowawayPostgres, folder: Path) -> dict:
    """Take a backup with the server's own program; return the details that matter to a reader."""
    command = [installed(15).path("pg_basebackup"), "-D", folder, "-d", server.connection_string(), "-X", "fetch"]
    command += ["-v", "-c", "fast", "--tablespace-mapping", f"{server.folder}/space={folder}.space"]
    shown = subprocess.run(command, env={"LC_ALL": "C"}, capture_output=True, text=True, check=True).stderr
    stop = re.search(r"end point: (\S+)", shown)
    assert stop
    return {"wal_segment_size": 16 << 20, "stop_lsn": stop[1], "stop_timeline": 1, "settings": []}


def items_of(writer: Writer, folder: Path, without: tuple[str, ...]) -> list[dict]:
    items: list[dict] = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        for name in folders + files:
            path = Path(parent, name)
            at = path.relative_to(folder).as_posix()
            if path.is_symlink():
                items.append({"path": at, "type": "link", "link": str(path.readlink())})
            elif path.is_dir():
                items.append({"path": at, "type": "folder", "mode": 0o700})
            elif at not in without:
                items.append(writer.file(at, path.read_bytes(), mtime=int(path.stat().st_mtime)))
    return items


def give(path: Path) -> None:
    account = server_account()
    if account:
        os.chown(path, account.user_id, account.group_id)


def as_server(*command: object) -> str:
    account = server_account()
    who = {"user": account.user_id, "group": account.group_id, "extra_groups": []} if account else {}
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True, cwd="/", **who)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("postgres_major", [15], indirect=True)
@pytest.mark.parametrize("without", [(), ("postgresql.conf", "pg_hba.conf")])
def test_rescue_restores_a_cluster_that_pg_ctl_starts(
    postgres_server: ThrowawayPostgres, server_folder: Path, writer: Writer, rescue: Run, without: tuple[str, ...]
) -> None:
    space = postgres_server.folder / "space"
    space.mkdir()
    give(space)
    with psycopg.connect(postgres_server.connection_string(), autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE apart LOCATION '{space}'")  # type: ignore[arg-type]
        connection.execute("CREATE TABLE numbers TABLESPACE apart AS SELECT generate_series(1, 1000) AS n")
    taken = writer.folder.parent / "taken"
    details = capture(postgres_server, taken)
    writer.backup(items_of(writer, taken, without), kind="postgres", form="physical", details=details)

    target = server_folder / "restored"
    done = rescue("main", "latest", target)
    assert done.returncode == 0, done.stderr
    as_found = [f"--ignore={name}" for name in without]
    subprocess.run([installed(15).path("pg_verifybackup"), "-n", *as_found, target], check=True, capture_output=True)

    hand_over(target, server_account())
    give(server_folder)
    pg_ctl = [installed(15).path("pg_ctl"), "-w", "-D", target]
    psql = [installed(15).path("psql"), "-XAt", "-h", server_folder, "-U", "postgres", "-d", "postgres", "-c"]
    as_server(*pg_ctl, "-o", f"-k {server_folder} -c listen_addresses=", "-l", server_folder / "log", "start")
    try:
        (target / "pg_hba.conf").write_text("local all all trust\n")
        as_server(*pg_ctl, "reload")
        for _ in range(PROMOTION_LOOKS_MAX):
            if as_server(*psql, "SELECT pg_is_in_recovery()") == "f":
                break
            time.sleep(0.1)
        assert as_server(*psql, "SELECT count(*), sum(n), pg_is_in_recovery() FROM numbers") == "1000|500500|f"
        as_server(*psql, "CHECKPOINT")
        assert as_server(*psql, "SELECT timeline_id FROM pg_control_checkpoint()") == "2"
    finally:
        as_server(*pg_ctl, "-m", "immediate", "stop")
