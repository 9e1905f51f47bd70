"""Backup, look, check and restore as processes, against a real server."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.acceptance.cli.cli_program import Program
from tests.integration.postgres_capture.servers import execute, value
from tests.servers import PostgresServers, quick_settings

from holdfast.sandbox import ThrowawayPostgres

MAJOR = 17
BACKUP_KEYS = {
    "id",
    "source",
    "kind",
    "tier",
    "form",
    "started_at",
    "ended_at",
    "size_bytes",
    "stored_bytes",
    "verified",
    "held",
    "expires_at",
}
PROGRESS_KEYS = {"event", "source", "done_bytes", "expected_bytes", "stored_bytes", "percent", "bytes_per_second"}
PAGE = 8192
WAIT_SECONDS_MAX = 60


@dataclass(frozen=True)
class Backed:
    """An application with two backups of one server."""

    program: Program
    server: ThrowawayPostgres
    full: str
    incremental: str


def source_of(server: ThrowawayPostgres, name: str = "orders") -> str:
    return f"{name}=postgresql://postgres@127.0.0.1:{server.port}/postgres"


@pytest.fixture(scope="module")
def backed(postgres_servers: PostgresServers) -> Iterator[Backed]:
    server = postgres_servers.start_copy(MAJOR)
    execute(server, "CREATE TABLE orders AS SELECT n AS id, repeat('x', 200) AS word FROM generate_series(1, 5000) n")
    program = Program(postgres_servers.new_folder("cli"))
    program.init(source=source_of(server))
    full = program.done("backup", "--tier", "full", "--json").events[-1]["id"]
    incremental = program.done("backup", "--json").events[-1]["id"]
    yield Backed(program, server, full, incremental)
    postgres_servers.drop(server)


def test_backup_prints_progress_and_last_the_backup(backed: Backed) -> None:
    events = backed.program.done("backup", "orders", "--json").events
    assert {event["event"] for event in events} == {"progress", "backup"}
    assert events[0].keys() >= PROGRESS_KEYS
    assert events[-1].keys() >= BACKUP_KEYS | {"event", "notices", "damage", "duration_seconds", "error"}
    assert events[-1]["error"] is None
    assert len(events[-1]["id"]) == 32


def test_backups_are_listed_newest_last_with_the_promised_keys(backed: Backed) -> None:
    listed = backed.program.done("backups", "--json").document
    assert all(row.keys() >= BACKUP_KEYS for row in listed)
    assert [row["id"] for row in listed][:2] == [backed.full, backed.incremental]
    assert [row["tier"] for row in listed][:2] == ["full", "incremental"]
    assert {row["form"] for row in listed} == {"physical"}
    assert all(row["ended_at"].endswith("Z") for row in listed)
    assert backed.program.done("backups", "orders").out.count("\n") == len(listed) + 1


def test_quiet_prints_nothing_where_all_is_well(backed: Backed) -> None:
    for words in (("backup", "--quiet"), ("check", "--quiet")):
        ended = backed.program.done(*words)
        assert (ended.out, ended.err) == ("", "")


def test_a_backup_without_a_terminal_says_its_full_id(backed: Backed) -> None:
    ended = backed.program.done("backup")
    newest = backed.program.done("backups", "--json").document[-1]["id"]
    assert newest in ended.out


def test_cat_gives_the_manifest_and_ls_the_paths(backed: Backed) -> None:
    program = backed.program
    manifest = program.done("cat", f"{backed.full[:8]}:backup_manifest").document
    assert manifest["PostgreSQL-Backup-Manifest-Version"]
    listed = program.done("ls", f"{backed.full}:global", "--json").document
    assert listed["backup"]["id"] == backed.full
    paths = {entry["path"] for entry in listed["entries"]}
    assert "global/pg_control" in paths
    assert all(path.startswith("global") for path in paths)
    assert "global/pg_control" in program.done("ls", "latest:global").out
    assert program.run("cat", f"{backed.full}:absent").code == 2
    assert program.run("ls", f"{backed.full}:absent").code == 2


def test_a_reader_that_goes_away_ends_cat_without_a_word(backed: Backed) -> None:
    with backed.program.start("cat", f"{backed.full}:backup_manifest") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        said = process.stderr.read()
    assert said == b""
    assert process.returncode == 141


def test_restore_plans_first_and_the_folder_then_starts(
    backed: Backed, new_postgres: Callable[..., ThrowawayPostgres]
) -> None:
    target = backed.program.folder / "restored"
    words = ("restore", "orders", "--backup", backed.full[:10], "--into", target)
    planned = backed.program.done(*words, "--plan", "--json").events
    assert [event["event"] for event in planned] == ["plan"]
    assert (planned[0]["target"], planned[0]["backup"]["id"]) == (str(target), backed.full)
    assert not target.exists()
    ended = backed.program.done(*words)
    assert f"pg_ctl -D {target} start" in ended.out
    assert ended.out.index("restore orders of shop") < ended.out.index("orders: restored")
    assert (target / "backup_manifest").exists()
    restored = new_postgres(MAJOR, data_folder=target)
    assert value(restored, "SELECT count(*) FROM orders") == 5000


def test_restore_of_the_latest_goes_beside_under_a_dated_name(backed: Backed) -> None:
    events = backed.program.done("restore", "--json").events
    assert events[0]["event"] == "plan"
    assert events[-1]["event"] == "restore"
    target = Path(events[-1]["target"])
    assert target.parent == backed.program.folder
    assert target.name.startswith("orders_restored_")
    assert (target / "PG_VERSION").read_text().strip() == str(MAJOR)
    shutil.rmtree(target)


def test_a_target_that_is_not_empty_is_2_unless_delta_is_agreed_to(backed: Backed) -> None:
    program, target = backed.program, backed.program.folder / "again"
    program.done("restore", "--backup", backed.full, "--into", target)
    (target / "PG_VERSION").write_text("nonsense")
    (target / "stranger").write_text("x")
    words = ("restore", "--backup", backed.full, "--into", target)
    assert "not empty" in program.run(*words).err
    assert program.run(*words).code == 2
    refused = program.run(*words, "--delta")
    assert refused.code == 2
    assert "--yes" in refused.err
    assert (target / "stranger").exists()
    mended = program.done(*words, "--delta", "--yes", "--json").events[-1]
    assert (mended["removed"], mended["written_bytes"]) == (1, mended["size_bytes"] - mended["kept_bytes"])
    assert (target / "PG_VERSION").read_text().strip() == str(MAJOR)
    assert not (target / "stranger").exists()


def test_restoring_over_a_running_server_is_refused(backed: Backed) -> None:
    words = ("restore", "--into", backed.server.data_folder, "--delta", "--yes")
    ended = backed.program.run(*words)
    assert ended.code == 1
    assert "runs on" in ended.err


def test_runs_are_listed_and_one_is_shown_in_full(backed: Backed) -> None:
    runs = backed.program.done("runs", "--json").document
    assert runs[0]["figures"]["backup"] == backed.full
    assert {run["outcome"] for run in runs} <= {"done", "interrupted", "failed"}
    one = backed.program.done("runs", runs[0]["id"][:12], "--json").document
    assert one == runs[0]
    assert backed.full in backed.program.done("runs", runs[0]["id"]).out


@pytest.mark.parametrize("words", [(), ("--read-data",), ("--read-data=30",), ("--read-data", "30")])
def test_a_sound_repository_checks_as_sound(backed: Backed, words: tuple[str, ...]) -> None:
    report = backed.program.done("check", *words, "--json").events[-1]
    assert report["sound"] is True
    assert report["touched"] == []
    assert report["areas"][0]["backups"] >= 2
    assert report["read_percent"] == ({0: None, 1: 100.0 if words == ("--read-data",) else 30.0, 2: 30.0}[len(words)])


def test_damage_is_13_and_names_the_backups_it_touches_in_full(backed: Backed, tmp_path: Path) -> None:
    program = Program(tmp_path)
    shutil.copytree(backed.program.folder / "repository", tmp_path / "repository")
    program.init(source=source_of(backed.server))
    pack = max(
        (tmp_path / "repository").rglob("packs/**/*"), key=lambda path: path.stat().st_size if path.is_file() else 0
    )
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)
    ended = program.run("check", "--read-data", "--json")
    assert ended.code == 13
    assert ended.error["kind"] == "integrity_broken"
    report = ended.events[-1]
    assert report["sound"] is False
    assert backed.full in report["touched"]
    assert backed.full in program.run("check", "--read-data").out
    assert program.run("restore", "--backup", backed.full, "--into", tmp_path / "restored").code == 13


def test_some_sources_failing_is_3_and_all_of_them_the_first_ones_code(backed: Backed, tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.init("--source", "ledger=postgresql://postgres@127.0.0.1:1/postgres", source=source_of(backed.server))
    ended = program.run("backup", "--json")
    assert ended.code == 3
    assert ended.error["kind"] == "partly_done"
    told = {event["source"]: event for event in ended.events if event["event"] == "backup"}
    assert told["orders"]["error"] is None
    assert told["ledger"]["error"]["kind"] in {"unavailable", "source_failed"}
    assert told["ledger"]["id"] is None
    alone = program.run("backup", "ledger")
    assert alone.code == 1
    assert alone.err.startswith("error: ledger: ")
    assert program.run("restore", "--into", tmp_path / "one").code == 2
    assert [row["source"] for row in program.done("backups", "--json").document] == ["orders"]
    failed = [run for run in program.done("runs", "--json").document if run["outcome"] == "failed"]
    assert {run["source"] for run in failed} == {"ledger"}


def test_doctor_ends_with_0_on_a_sound_set_up(backed: Backed) -> None:
    ended = backed.program.done("doctor", "--json")
    assert ended.document["broken"] == 0
    subjects = {row["subject"] for row in ended.document["subjects"]}
    assert subjects == {"configuration", "repository primary", "source orders"}
    assert "nothing is broken" in backed.program.done("doctor").out


def test_a_damaged_page_is_3_and_the_backup_is_kept_and_told(
    new_postgres: Callable[..., ThrowawayPostgres], postgres_servers: PostgresServers
) -> None:
    server = new_postgres(MAJOR, quick_settings())
    execute(server, "CREATE TABLE bad AS SELECT n, repeat('x', 500) FROM generate_series(1, 200) n", "CHECKPOINT")
    path = server.data_folder / value(server, "SELECT pg_relation_filepath('bad')")
    server.stop()
    with path.open("r+b") as file:
        file.seek(2 * PAGE + 5000)
        file.write(b"\xff\x00\xff\x01")
    server.start()
    program = Program(postgres_servers.new_folder("cli"))
    program.init(source=source_of(server))
    ended = program.run("backup", "--json")
    assert ended.code == 3
    assert ended.error["kind"] == "partly_done"
    assert [row["count"] for row in ended.events[-1]["damage"]] == [1]
    assert program.done("backups", "--json").document[0]["damaged"] == 1
    told = program.run("backup")
    assert told.code == 3
    assert str(path.relative_to(server.data_folder)) in told.err


def wait_for_progress(process: subprocess.Popen[bytes]) -> None:
    """Wait until a backup with --json moves bytes."""
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "progress":
            return
    pytest.fail("the backup ended before it could be stopped")


def test_a_live_backup_keeps_another_out_and_a_signal_stops_it_with_130(
    new_postgres: Callable[..., ThrowawayPostgres], postgres_servers: PostgresServers
) -> None:
    server = new_postgres(MAJOR, quick_settings())
    program = Program(postgres_servers.new_folder("cli"))
    program.init(source=source_of(server))
    config = program.folder / "holdfast.yaml"
    config.write_text(config.read_text().replace("kind: postgres,", "kind: postgres, max_rate: 256KiB/s,"))
    with program.start("backup", "--json") as process:
        wait_for_progress(process)
        assert program.run("backup", "--json").error["kind"] == "lease_held"
        assert program.run("backup").code == 11
        process.send_signal(signal.SIGTERM)
        until = time.monotonic() + WAIT_SECONDS_MAX
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        assert process.returncode == 130
        assert process.stderr is not None
        said = process.stderr.read().decode()
    assert json.loads(said.splitlines()[-1])["error"]["kind"] == "interrupted"
    assert program.done("backups", "--json").document == []


def test_a_signal_while_a_command_only_looks_is_130(backed: Backed) -> None:
    # The passphrase comes from a command that waits: a place that no stop request is looked at.
    program = backed.program
    text = (program.folder / "holdfast.yaml").read_text()
    slow = program.folder / "slow.yaml"
    slow.write_text(text.replace("{env: HOLDFAST_PASSPHRASE}", f'{{command: ["{sys.executable}", "slow.py"]}}'))
    ready = program.folder / "waiting"
    (program.folder / "slow.py").write_text(f"import time\nopen({str(ready)!r}, 'w').close()\ntime.sleep(20)\n")
    with program.start("backups", "--config", slow) as process:
        until = time.monotonic() + WAIT_SECONDS_MAX
        while not ready.exists() and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=WAIT_SECONDS_MAX)
    assert process.returncode == 130
    assert err.decode().startswith("error: stopped by the operator")
