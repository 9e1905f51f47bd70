"""Backups that are stopped, cut off or met by another: the right exit code, no backup, and the next one works."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator

import pytest
from tests.acceptance.crash.holdfast_site import Site, error_of, finish, read_until
from tests.faults.backup.tcp_proxy import proxy_to

SLOW = "4MiB/s"
"""A rate at which a backup of the test's server takes some ten seconds."""
MIDDLE_BYTES = 4_000_000


@pytest.fixture
def slow_backup(site: Site) -> Iterator[subprocess.Popen[str]]:
    """A backup in its middle, after one that is done."""
    site.run("backup")
    site.configure(max_rate=SLOW)
    process = site.start("backup", "--json")
    try:
        read_until(process, MIDDLE_BYTES)
        yield process
    finally:
        process.kill()
        process.communicate()


def require_one_backup_and_the_next_works(site: Site) -> None:
    assert len(site.backups()) == 1
    site.require_no_slots()
    site.configure()
    site.run("backup")
    assert len(site.backups()) == 2
    assert site.checked()["sound"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_backup_with_130_and_gives_its_lease_back(
    site: Site, slow_backup: subprocess.Popen[str], number: signal.Signals
) -> None:
    slow_backup.send_signal(number)
    done = finish(slow_backup)
    assert done.returncode == 130, done.stderr
    assert error_of(done)["kind"] == "interrupted"
    assert [run["outcome"] for run in site.json("runs")][-1] == "interrupted"
    require_one_backup_and_the_next_works(site)


def test_a_second_backup_of_the_source_is_told_that_the_first_lives(
    site: Site, slow_backup: subprocess.Popen[str]
) -> None:
    refused = site.run("backup", "--json", expect=11)
    assert error_of(refused)["kind"] == "lease_held"
    assert str(slow_backup.pid) in error_of(refused)["message"]
    done = finish(slow_backup)
    assert done.returncode == 0, done.stderr
    assert len(site.backups()) == 2
    assert site.checked()["sound"]


def test_a_server_stopped_immediately_ends_a_backup_with_1(site: Site, slow_backup: subprocess.Popen[str]) -> None:
    assert site.server.pid is not None
    pid = site.server.pid
    subprocess.run(["kill", "-QUIT", str(pid)], check=True)
    done = finish(slow_backup)
    assert done.returncode == 1, done.stderr
    assert error_of(done)["kind"] in {"unavailable", "source_failed"}
    assert error_of(done)["hint"]
    site.server.restart()
    require_one_backup_and_the_next_works(site)


def test_a_connection_that_is_cut_ends_a_backup_with_1(site: Site) -> None:
    site.run("backup")
    with proxy_to(site.server.port) as proxy:
        site.configure(max_rate=SLOW, port=proxy.port)
        process = site.start("backup", "--json")
        read_until(process, MIDDLE_BYTES)
        proxy.cut()
        done = finish(process)
    assert done.returncode == 1, done.stderr
    assert error_of(done)["kind"] == "unavailable"
    assert error_of(done)["hint"]
    require_one_backup_and_the_next_works(site)


def test_damage_is_13_with_the_backups_in_full_and_a_wrong_passphrase_is_12(site: Site) -> None:
    site.run("backup")
    ids = site.backups()
    wrong = site.run("check", "--json", expect=12, HOLDFAST_PASSPHRASE="not the one")
    assert error_of(wrong)["kind"] == "key_invalid"
    pack = max(site.repository.glob("areas/*/packs/*/*"), key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 4
    pack.write_bytes(data)
    report = site.checked(expect=13)
    assert report["touched"] == ids
    refused = site.run("restore", "orders", "--into", str(site.folder / "target"), "--yes", "--json", expect=13)
    assert error_of(refused)["kind"] == "integrity_broken"
    assert not (site.folder / "target" / "global" / "pg_control").exists()


def test_a_repository_shows_no_names_and_no_rows_without_the_key(site: Site) -> None:
    site.run("backup")
    needles = [b"shop", b"orders", b"pgbench_accounts", b"pgbench", b"bbalance", b"pg_class", b"postgres"]
    for path in sorted(site.repository.rglob("*")):
        name = str(path.relative_to(site.repository)).encode()
        held = path.read_bytes() if path.is_file() else b""
        for needle in needles:
            assert needle not in name
            # Three or four letters in a row come by chance in so many random bytes.
            assert len(needle) < 6 or needle not in held, f"{needle!r} in {name!r}"
