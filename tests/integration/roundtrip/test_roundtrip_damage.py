"""Pages that are broken on the server make a damaged backup: kept, told, listed as such, and restorable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
from tests.integration.postgres_capture.servers import execute, value
from tests.integration.roundtrip.cluster import verify_backup
from tests.integration.roundtrip.engine import backup_id, engine_of
from tests.integration.roundtrip.small import start_copy_of
from tests.servers import PostgresServers, quick_settings

from holdfast.sandbox import PostgresSettings, ThrowawayPostgres, server_account
from holdfast.sandbox.folders import make_private_folder
from holdfast.sources.port import Tier

PAGE = 8192
BLOCK = 2


def flip_bytes(file: BinaryIO) -> None:
    """A checksum that is wrong under an old position: the server finds it, and so do we."""
    file.seek(BLOCK * PAGE + 5000)
    file.write(b"\xff\x00\xff\x01")


def change_in_the_future(file: BinaryIO) -> None:
    """A position that the log has not reached: the server passes it over, for it might be torn."""
    file.seek(BLOCK * PAGE)
    file.write((0x7FFF_0000).to_bytes(4, "little") + b"\0" * 4)


def mark_unused(file: BinaryIO) -> None:
    """pd_upper zero, as in a page never used: the server passes it over."""
    file.seek(BLOCK * PAGE + 14)
    file.write(b"\0\0")


WAYS: dict[str, tuple[Callable[[BinaryIO], None], str]] = {
    "flipped": (flip_bytes, "wrong checksum"),
    "in_the_future": (change_in_the_future, "changed after the end of the backup"),
    "unused": (mark_unused, "marked unused but not zero"),
}


def plant(server: ThrowawayPostgres, place: Path) -> dict[str, str]:
    """Damage one table in each way, and one in a tablespace; return the paths of their files by the way."""
    make_private_folder(place, server_account())
    rows = "AS SELECT n AS id, repeat('x', 500) AS word FROM generate_series(1, 200) n"
    execute(
        server,
        f"CREATE TABLESPACE beside LOCATION '{place}'",
        *(f"CREATE TABLE {way} {rows}" for way in WAYS),
        f"CREATE TABLE placed TABLESPACE beside {rows}",
        f"CREATE TABLE sound {rows}",
        "CHECKPOINT",
    )
    tables = {**{way: change for way, (change, _) in WAYS.items()}, "placed": flip_bytes}
    paths = {table: str(value(server, f"SELECT pg_relation_filepath('{table}')")) for table in tables}
    server.stop()
    for table, change in tables.items():
        with (server.data_folder / paths[table]).open("r+b") as file:
            change(file)
    server.start()
    return paths


def test_broken_pages_make_a_damaged_backup_that_is_kept_and_restores(
    postgres_servers: PostgresServers, postgres_major: int, server_folder: Path
) -> None:
    server = postgres_servers.start_copy(postgres_major, quick_settings({"autovacuum": "off"}))
    paths = plant(server, server_folder / "placed")
    engine = engine_of(server, postgres_servers.new_folder)

    outcome = engine.backup()

    backup = backup_id(outcome)
    assert outcome.summary is not None
    assert outcome.summary.damaged == 4
    told = {path: (count, detail) for path, count, detail in outcome.damage}
    assert sorted(told) == sorted(paths.values())
    for way, (_, words) in WAYS.items():
        assert told[paths[way]] == (1, f"1 page {words} (block {BLOCK})")
    assert paths["placed"].startswith("pg_tblspc/")
    assert told[paths["placed"]][0] == 1

    [listed] = engine.application().backups()
    assert (listed.id, listed.damaged, listed.verified) == (backup, 4, False)
    [run] = engine.application().runs()
    assert (run["outcome"], run["exit_code"]) == ("partly", 3)
    target = server_folder / "data"
    engine.restore(backup, target)
    verified = verify_backup(server, target)
    assert verified.returncode == 0, verified.stderr  # the bytes are those of the server, with their damage
    copy = start_copy_of(postgres_servers, postgres_major, target)
    assert value(copy, "SELECT count(*) FROM sound") == 200
    postgres_servers.drop(copy)

    later = engine.backup(Tier.INCREMENTAL)
    assert later.summary is not None
    assert later.summary.damaged == 4
    postgres_servers.drop(server)


@pytest.mark.parametrize("postgres_major", [15, 18], indirect=True, ids=["pg15", "pg18"])
def test_without_checksums_two_kinds_are_still_found_and_it_is_said_that_others_are_not(
    postgres_servers: PostgresServers, postgres_major: int, server_folder: Path
) -> None:
    parameters = quick_settings({"autovacuum": "off"}).parameters
    server = postgres_servers.start(postgres_major, PostgresSettings(data_checksums=False, parameters=parameters))
    paths = plant(server, server_folder / "placed")

    outcome = engine_of(server, postgres_servers.new_folder).backup()

    backup_id(outcome)
    assert sorted(path for path, _, _ in outcome.damage) == sorted([paths["in_the_future"], paths["unused"]])
    assert any("checksums are off" in notice for notice in outcome.notices)
    postgres_servers.drop(server)
