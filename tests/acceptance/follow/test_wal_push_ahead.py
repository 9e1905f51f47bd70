"""``wal push`` stores what else is ready in one run, and answers from its notes only what is durable for certain."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
from tests.acceptance.follow.test_wal_commands import FILL, Archive, archive_of, newest, relative
from tests.acceptance.follow.test_wal_recovery import SCRIPT
from tests.conftest import StartPostgres
from tests.servers import PostgresServers

from holdfast.application.wal_notes import NOTE_SECONDS_MAX, is_helped, is_segment
from holdfast.sandbox import PostgresSettings, ThrowawayPostgres

SECONDS_MAX = 60.0
WRONG = {"HOLDFAST_PASSPHRASE": "not these four words"}
"""With it no repository opens: what is answered with 0 nonetheless was answered from a note."""


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def folders(archive: Archive) -> list[Path]:
    place = archive.program.folder / "state" / "wal-push"
    return sorted(place.iterdir()) if place.exists() else []


def notes(archive: Archive) -> list[Path]:
    return sorted(path for folder in folders(archive) for path in folder.iterdir() if is_segment(path.name))


def helper_of(archive: Archive) -> int | None:
    """Return the process id of the helper that works for the archive."""
    mark = str(archive.program.folder / "state" / "wal-push").encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.startswith(mark) for word in words):
            return int(process.name)
    return None


@pytest.fixture
def archive(postgres_server: ThrowawayPostgres, tmp_path: Path) -> Iterator[Archive]:
    made = archive_of(postgres_server, tmp_path)
    yield made
    until(lambda: not any(is_helped(str(folder)) for folder in folders(made)))


def made_ready(archive: Archive, count: int) -> list[Path]:
    """Return complete segments that PostgreSQL would say are ready."""
    segments = archive.full_segments(count)
    for segment in segments:
        (segment.parent / "archive_status" / f"{segment.name}.ready").touch()
    return segments


def all_noted(archive: Archive, count: int) -> list[Path]:
    """Push the first of some segments, and return the others once each is noted."""
    segments = made_ready(archive, count)
    assert archive.run("push", relative(segments[0])).code == 0
    until(lambda: [note.name for note in notes(archive)] == [segment.name for segment in segments])
    return segments[1:]


def changed(segment: Path) -> bytes:
    content = bytearray(segment.read_bytes())
    content[100_000] ^= 1
    return bytes(content)


@newest
def test_segments_ready_beside_the_one_asked_for_are_stored_and_answered_without_the_repository(
    archive: Archive, tmp_path: Path
) -> None:
    others = all_noted(archive, 5)
    got = tmp_path / "got"
    for segment in others:
        assert archive.run("push", relative(segment), variables=WRONG).code == 0
        assert archive.run("fetch", segment.name, got).code == 0
        assert got.read_bytes() == segment.read_bytes()
    until(lambda: helper_of(archive) is None)


@newest
def test_w2_a_file_that_differs_from_its_note_is_refused_by_the_repository(archive: Archive, tmp_path: Path) -> None:
    [segment] = all_noted(archive, 2)
    kept = segment.read_bytes()
    segment.write_bytes(changed(segment))
    refused = archive.run("push", relative(segment))
    assert 1 <= refused.code <= 125
    assert "other content" in refused.err
    segment.write_bytes(kept[: len(kept) // 2])  # W1
    assert 1 <= archive.run("push", relative(segment)).code <= 125
    segment.write_bytes(kept)
    assert archive.run("push", relative(segment), variables=WRONG).code == 0


@newest
def test_a_note_counts_for_no_other_configuration_source_repository_or_folder(archive: Archive, tmp_path: Path) -> None:
    [segment] = all_noted(archive, 2)
    until(lambda: helper_of(archive) is None)
    config = tmp_path / "holdfast.yaml"
    copy = tmp_path / "copy.yaml"
    shutil.copy(config, copy)
    for words in (["--config", copy], ["--source", "orders"], ["--repository", "main"]):
        assert 1 <= archive.run("push", relative(segment), *words, variables=WRONG).code <= 125
    elsewhere = tmp_path / "elsewhere" / "pg_wal"
    (elsewhere / "archive_status").mkdir(parents=True)
    shutil.copy(segment, elsewhere)
    (elsewhere / "archive_status" / f"{segment.name}.ready").touch()
    assert 1 <= archive.run("push", elsewhere / segment.name, variables=WRONG).code <= 125
    store = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    assert 1 <= archive.run("push", relative(segment), variables={**WRONG, **store}).code <= 125
    config.write_text(config.read_text())
    assert 1 <= archive.run("push", relative(segment), variables=WRONG).code <= 125
    assert archive.run("push", relative(segment)).code == 0


@newest
def test_a_note_counts_only_while_the_repository_is_there_and_the_note_is_young(
    archive: Archive, tmp_path: Path
) -> None:
    segments = all_noted(archive, 4)
    until(lambda: helper_of(archive) is None)
    kept = tmp_path / "kept"
    kept.rename(tmp_path / "away")
    assert 1 <= archive.run("push", relative(segments[0])).code <= 125
    (tmp_path / "away").rename(kept)
    old = time.time() - NOTE_SECONDS_MAX - 5
    os.utime(notes(archive)[2], (old, old))
    assert 1 <= archive.run("push", relative(segments[1]), variables=WRONG).code <= 125
    notes(archive)[-1].write_bytes(notes(archive)[-1].read_bytes()[:-40])
    assert 1 <= archive.run("push", relative(segments[2]), variables=WRONG).code <= 125
    assert archive.run("push", relative(segments[0]), variables=WRONG).code == 0


@newest
def test_what_the_helper_cannot_do_is_told_by_the_push_itself_and_done_once_it_can_be(archive: Archive) -> None:
    first, second = made_ready(archive, 2)
    refused = archive.run("push", relative(first), variables=WRONG)
    assert 1 <= refused.code <= 125
    assert "no key slot" in refused.err
    assert archive.run("push", relative(first)).code == 0
    second.write_bytes(changed(first))  # a segment under another one's name
    (first.parent / "archive_status" / f"{first.name}.ready").touch()
    refused = archive.run("push", relative(second))
    assert 1 <= refused.code <= 125
    assert "not accepted" in refused.err
    assert not notes(archive) or notes(archive)[0].name == first.name


@newest
def test_a_helper_killed_at_any_moment_leaves_every_acknowledged_segment_stored(
    archive: Archive, tmp_path: Path
) -> None:
    segments = made_ready(archive, 8)
    for number, segment in enumerate(segments):
        assert archive.run("push", relative(segment)).code == 0
        (segment.parent / "archive_status" / f"{segment.name}.ready").unlink()
        helper = helper_of(archive)
        if helper is not None and number % 2 == 0:
            time.sleep(0.03 * number)
            os.kill(helper, signal.SIGKILL)
    got = tmp_path / "got"
    for segment in segments:
        assert archive.run("fetch", segment.name, got).code == 0
        assert got.read_bytes() == segment.read_bytes()


@newest
def test_a_state_folder_that_cannot_be_written_keeps_nothing_from_being_archived(
    archive: Archive, tmp_path: Path
) -> None:
    for segment in made_ready(archive, 3):
        (tmp_path / "file").touch()
        state = {"HOLDFAST_STATE_DIR": str(tmp_path / "file" / "state")}
        assert archive.run("push", relative(segment), variables=state).code == 0


class Archiving:
    """Runs ``wal push`` for a server whose account may not run it: what archive_command asks, a thread here does."""

    def __init__(self, place: Path) -> None:
        self.script = place / "push.sh"
        self.script.write_text(SCRIPT)
        self.script.chmod(0o755)
        self.asked: list[str] = []
        self.ended = Event()

    def run(self, archive: Archive) -> None:
        while not self.ended.wait(0.005):
            for asked in self.script.parent.glob("*.asked"):
                path, _ = asked.read_text().split()
                asked.unlink()
                self.asked.append(path)
                code = asked.with_suffix(".part")
                code.write_text(str(archive.run("push", path).code))
                code.rename(asked.with_suffix(".code"))


@newest
def test_everything_a_real_archiver_hands_over_in_a_burst_is_stored_and_nothing_fails(
    new_postgres: StartPostgres, postgres_servers: PostgresServers, tmp_path: Path, postgres_major: int
) -> None:
    place = postgres_servers.new_folder("archiving")
    place.chmod(0o777)
    archiving = Archiving(place)
    command = f"{archiving.script} %p %f"
    settings = PostgresSettings(
        parameters={"archive_mode": "on", "archive_command": command, "wal_keep_size": "1GB", "max_wal_size": "2GB"}
    )
    archive = archive_of(new_postgres(postgres_major, settings), tmp_path)
    thread = Thread(target=archiving.run, args=(archive,))
    thread.start()
    try:
        for _ in range(12):
            archive.sql(FILL, "SELECT pg_switch_wal()")
        last = str(archive.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")[0][0])
        status = "SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver"
        before = f"{int(last, 16) - 1:024X}"
        until(lambda: str(archive.sql(status)[0][0]) >= before)
        assert archive.sql("SELECT failed_count FROM pg_stat_archiver") == [(0,)]
    finally:
        archiving.ended.set()
        thread.join()
        until(lambda: helper_of(archive) is None)
    assert not notes(archive)
    got = tmp_path / "got"
    for path in archiving.asked:
        segment = archive.server.data_folder / path
        assert archive.run("fetch", segment.name, got).code == 0
        assert got.read_bytes() == segment.read_bytes()
    postgres_servers.drop_folder(place)
