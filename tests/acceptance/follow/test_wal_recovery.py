"""W11: a real PostgreSQL recovers through ``wal fetch``, and an outage is never the end of its log."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
from tests.acceptance.follow.test_wal_commands import Archive, archive_of, newest, relative
from tests.conftest import StartPostgres
from tests.servers import PostgresServers, installed

from holdfast.model.errors import SourceFailed
from holdfast.sandbox import ThrowawayPostgres, server_account

COMMAND_SECONDS_MAX = 60


@pytest.fixture
def place(postgres_servers: PostgresServers) -> Iterator[Path]:
    """A folder that the server's own account works in."""
    folder = postgres_servers.new_folder("recovery")
    yield folder
    postgres_servers.drop_folder(folder)


def own(folder: Path) -> None:
    account = server_account()
    if account is not None:
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, account.user_id, account.group_id)


def base_backup(archive: Archive, folder: Path) -> None:
    program = installed(18).path("pg_basebackup")
    address = ["-h", "127.0.0.1", "-p", str(archive.server.port), "-U", "postgres"]
    command = [str(program), *address, "-D", str(folder), "-X", "none", "-c", "fast", "--no-manifest"]
    subprocess.run(command, check=True, capture_output=True, timeout=COMMAND_SECONDS_MAX)


SCRIPT = """#!/bin/sh
echo "$1 $2" > "$(dirname "$0")/$$.asking" && mv "$(dirname "$0")/$$.asking" "$(dirname "$0")/$$.asked"
while [ ! -e "$(dirname "$0")/$$.code" ]; do sleep 0.02; done
exit "$(cat "$(dirname "$0")/$$.code")"
"""


class Answering:
    """Runs holdfast for a server whose account may not run it: what restore_command asks, a thread here does.

    When the segment ``trip`` is asked for, the repository goes away first.
    """

    def __init__(self, archive: Archive, place: Path, data_folder: Path) -> None:
        self.script = place / "fetch.sh"
        self.script.write_text(SCRIPT)
        self.script.chmod(0o755)
        self.trip = ""
        self.codes: list[tuple[str, int]] = []
        self._archive = archive
        self._place = place
        self._data = data_folder
        self._ended = Event()
        self._thread = Thread(target=self._run)

    def __enter__(self) -> Answering:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.01):
            for asked in self._place.glob("*.asked"):
                name, target = asked.read_text().split()
                asked.unlink()
                self._answer(asked, name, target)

    def _answer(self, asked: Path, name: str, target: str) -> None:
        if name == self.trip:
            kept = self._archive.program.folder / "kept"
            kept.rename(kept.with_name("away"))
        code = self._archive.run("fetch", name, target, cwd=self._data).code
        path, account = self._data / target, server_account()
        if code == 0 and account is not None:
            shutil.chown(path, account.user_id, account.group_id)
        self.codes.append((name, code))
        answer = asked.with_suffix(".answer")
        answer.write_text(str(code))
        answer.chmod(0o644)
        answer.rename(asked.with_suffix(".code"))


@newest
def test_w11_an_outage_during_a_recovery_without_a_target_ends_no_recovery(
    postgres_server: ThrowawayPostgres, place: Path, new_postgres: StartPostgres
) -> None:
    (place / "program").mkdir()
    archive = archive_of(postgres_server, place / "program")
    restored = place / "data"
    base_backup(archive, restored)
    segments = archive.full_segments(8)
    known = sorted((postgres_server.data_folder / "pg_wal").glob("0000000?????????????????"))
    for segment in known:
        if segment.name <= segments[-1].name:
            assert archive.run("push", relative(segment)).code == 0
    (restored / "recovery.signal").touch()
    with Answering(archive, place, restored) as answering:
        with (restored / "postgresql.auto.conf").open("a") as conf:
            conf.write(f"restore_command = '{answering.script} %f %p'\n")
        own(restored)
        own(place)
        answering.trip = segments[2].name
        with pytest.raises(SourceFailed) as caught:
            new_postgres(18, data_folder=restored)
        answering.trip = ""
        assert f'could not restore file "{answering.codes[-1][0]}"' in caught.value.message
        assert answering.codes[-1][1] == 255
        assert (segments[1].name, 0) in answering.codes
        assert "archive recovery complete" not in caught.value.message
        (place / "program" / "away").rename(place / "program" / "kept")
        again = Archive(new_postgres(18, data_folder=restored), archive.program)
        assert again.sql("SELECT count(*) FROM t") == [(5000 * len(segments),)]
        assert again.sql("SELECT pg_is_in_recovery()") == [(False,)]
