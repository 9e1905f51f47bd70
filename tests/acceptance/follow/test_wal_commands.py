"""``holdfast wal push`` and ``wal fetch`` as the processes that PostgreSQL runs, and what their exit codes do to it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from tests.acceptance.cli.cli_program import Ended, Program
from tests.conftest import StartPostgres
from tests.integration.postgres_capture.servers import start_standby
from tests.servers import PostgresServers

from holdfast.sandbox import ThrowawayPostgres

SEGMENT = 16 << 20
newest = pytest.mark.parametrize("postgres_major", [18], indirect=True)
FILL = "INSERT INTO t SELECT g, repeat('x', 200) FROM generate_series(1, 5000) g"


@dataclass(frozen=True)
class Archive:
    """A server's data folder, and holdfast run in it."""

    server: ThrowawayPostgres
    program: Program

    def run(self, *words: str | Path, variables: Mapping[str, str] | None = None, cwd: Path | None = None) -> Ended:
        command = [sys.executable, "-m", "holdfast", "wal", *(str(word) for word in words)]
        config = {"HOLDFAST_CONFIG": str(self.program.folder / "holdfast.yaml")}
        environment = {**self.program.environment, **config, **(variables or {})}
        where = cwd or self.server.data_folder
        ended = subprocess.run(
            command, cwd=where, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert "Traceback" not in ended.stderr, ended.stderr
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def sql(self, *statements: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.server.connection_string(), autocommit=True) as connection:
            rows: list[tuple[object, ...]] = []
            for statement in statements:
                cursor = connection.execute(statement.encode())
                rows = cursor.fetchall() if cursor.description else []
            return rows

    def full_segments(self, count: int) -> list[Path]:
        """Fill and switch segments; return those that are complete, the oldest first."""
        for _ in range(count):
            self.sql(FILL, "SELECT pg_switch_wal()")
        current = str(self.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")[0][0])
        found = sorted((self.server.data_folder / "pg_wal").glob("0000000?????????????????"))
        return [path for path in found if path.name < current][-count:]


def archive_of(server: ThrowawayPostgres, folder: Path) -> Archive:
    program = Program(folder)
    url = f"postgresql://postgres@127.0.0.1:{server.port}/postgres"
    program.done(
        "init", "--application", "shop", "--repository", f"file://{folder / 'kept'}", "--source", f"orders={url}"
    )
    archive = Archive(server, program)
    archive.sql("CREATE TABLE IF NOT EXISTS t (a int, b text)")
    return archive


@pytest.fixture
def archive(postgres_server: ThrowawayPostgres, tmp_path: Path) -> Archive:
    return archive_of(postgres_server, tmp_path)


def relative(path: Path) -> str:
    return f"pg_wal/{path.name}"


@newest
def test_w2_identical_content_is_accepted_again_and_different_content_refused(archive: Archive, tmp_path: Path) -> None:
    [segment] = archive.full_segments(1)
    assert archive.run("push", relative(segment)).code == 0
    assert archive.run("push", relative(segment)).code == 0
    other = tmp_path / "other" / "pg_wal" / segment.name
    other.parent.mkdir(parents=True)
    content = bytearray(segment.read_bytes())
    content[100_000] ^= 1
    other.write_bytes(content)
    refused = archive.run("push", other)
    assert 1 <= refused.code <= 125
    assert "other content" in refused.err
    target = tmp_path / "RECOVERYXLOG"
    assert archive.run("fetch", segment.name, target).code == 0
    assert target.read_bytes() == segment.read_bytes()


@newest
def test_w1_half_a_segment_and_one_under_another_name_are_refused(archive: Archive, tmp_path: Path) -> None:
    first, second = archive.full_segments(2)
    half = tmp_path / first.name
    half.write_bytes(first.read_bytes()[: SEGMENT // 2])
    refused = archive.run("push", half)
    assert 1 <= refused.code <= 125
    assert "not accepted" in refused.err
    renamed = tmp_path / "renamed" / second.name
    renamed.parent.mkdir()
    shutil.copy(first, renamed)
    assert 1 <= archive.run("push", renamed).code <= 125
    assert 1 <= archive.run("push", tmp_path / "000000010000000000000099").code <= 125
    assert archive.run("push", tmp_path / "holdfast.yaml").code == 2
    assert archive.run("fetch", first.name, tmp_path / "got").code == 1


@newest
def test_w3_a_segment_of_another_system_is_refused(
    archive: Archive, new_postgres: StartPostgres, tmp_path: Path
) -> None:
    [segment] = archive.full_segments(1)
    assert archive.run("push", relative(segment)).code == 0
    other = Archive(new_postgres(18), archive.program)
    other.sql("CREATE TABLE t (a int, b text)")
    [foreign] = other.full_segments(1)
    refused = other.run("push", relative(foreign))
    assert 1 <= refused.code <= 125
    assert "adopt" in refused.err


@newest
def test_w7_a_partial_segment_is_stored_up_to_the_switch_with_the_history_before_it(
    archive: Archive, postgres_servers: PostgresServers, new_postgres: StartPostgres, tmp_path: Path
) -> None:
    standby = start_standby(archive.server, postgres_servers, 18, new_postgres)
    archive.sql(FILL)
    flushed = str(archive.sql("SELECT pg_current_wal_flush_lsn()")[0][0])
    on_standby = Archive(standby, archive.program)
    deadline = time.monotonic() + 30
    while not on_standby.sql(f"SELECT pg_last_wal_replay_lsn() >= '{flushed}'")[0][0]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    on_standby.sql("SELECT pg_promote()", "SELECT pg_switch_wal()")
    wal = standby.data_folder / "pg_wal"
    [history] = wal.glob("00000002.history")
    fork = history.read_text().split()[1]
    name = str(on_standby.sql(f"SELECT right(pg_walfile_name('{fork}'), 16)")[0][0])
    partial = tmp_path / "at" / "pg_wal" / f"00000001{name}.partial"
    partial.parent.mkdir(parents=True)
    shutil.copy(archive.server.data_folder / "pg_wal" / f"00000001{name}", partial)
    early = on_standby.run("push", partial)
    assert 1 <= early.code <= 125
    assert "history" in early.err
    assert on_standby.run("push", relative(history)).code == 0
    assert on_standby.run("push", partial).code == 0
    assert on_standby.run("push", partial).code == 0
    second = wal / f"00000002{name}"
    assert on_standby.run("push", relative(second)).code == 0
    got = tmp_path / "got"
    assert on_standby.run("fetch", "00000002.history", got).code == 0
    assert got.read_bytes() == history.read_bytes()
    assert on_standby.run("fetch", second.name, got).code == 0
    assert got.read_bytes() == second.read_bytes()
    assert on_standby.run("fetch", f"00000001{name}", got).code == 0
    offset = int(fork.split("/")[1], 16) % SEGMENT
    assert got.read_bytes()[:offset] == partial.read_bytes()[:offset]
    assert got.read_bytes()[offset:] == bytes(SEGMENT - offset)
    assert on_standby.run("fetch", "00000003.history", got).code == 1
    backup_label = tmp_path / "at" / "pg_wal" / f"00000001{name}.00000028.backup"
    backup_label.write_text("START WAL LOCATION: ...\n")
    assert on_standby.run("push", backup_label).code == 0


@newest
def test_w11_only_what_certainly_is_not_stored_is_1_and_everything_else_255(archive: Archive, tmp_path: Path) -> None:
    segments = archive.full_segments(3)
    assert archive.run("push", relative(segments[0])).code == 0
    assert archive.run("push", relative(segments[2])).code == 0
    target = tmp_path / "got"
    beyond = f"{segments[0].name[:16]}000000F0"
    assert archive.run("fetch", beyond, target).code == 1
    assert archive.run("fetch", f"0000000A{segments[0].name[8:]}", target).code == 1
    assert archive.run("fetch", segments[1].name, target).code == 255
    assert archive.run("fetch", segments[0].name, target, "--bogus").code == 255
    assert archive.run("fetch", segments[0].name).code == 255
    assert archive.run("fetch", "what", target).code == 255
    assert archive.run("fetch", segments[0].name, target, "--source", "nobody").code == 255
    assert archive.run("fetch", segments[0].name, target, "--config", tmp_path / "absent.yaml").code == 255
    wrong = {"HOLDFAST_PASSPHRASE": "not these four words"}
    assert archive.run("fetch", beyond, target, variables=wrong).code == 255
    (tmp_path / "kept").rename(tmp_path / "away")
    assert archive.run("fetch", beyond, target).code == 255
    assert 1 <= archive.run("push", relative(segments[1])).code <= 125
    assert not target.exists()


@newest
def test_w10_segments_are_fetched_ahead_whole_and_the_helper_ends(archive: Archive, tmp_path: Path) -> None:
    segments = archive.full_segments(6)
    for segment in segments:
        assert archive.run("push", relative(segment)).code == 0
    got = tmp_path / "got"
    slow: list[float] = []
    quick: list[float] = []
    for segment in segments:
        begun = time.monotonic()
        assert archive.run("fetch", segment.name, got).code == 0
        (slow if segment is segments[0] else quick).append(time.monotonic() - begun)
        assert got.read_bytes() == segment.read_bytes()
        time.sleep(0 if segment is not segments[0] else 3.0)
    ahead = list((tmp_path / "state" / "wal-ahead").iterdir())
    assert len(ahead) == 1
    assert archive.run("fetch", f"{segments[0].name[:16]}000000F0", got).code == 1
    assert min(quick) < slow[0]
