"""The helper of `wal push`: how far ahead it goes, when it ends, and that it notes only what is stored."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.unit.repository.repository_examples import area_of, in_folder

from holdfast.application import wal_push_ahead
from holdfast.application.wal import WalFiles
from holdfast.application.wal_notes import is_noted, is_segment, notes_folder, say_wanted
from holdfast.application.wal_push_ahead import PushAhead, Pusher, sweep
from holdfast.bootstrap import Tools
from holdfast.repository.remembered import Remembered

SEGMENT = 1 << 20


def name_of(number: int) -> str:
    return f"{1:08X}{0:08X}{number:08X}"


def segment(number: int) -> bytes:
    """Return the smallest segment of PostgreSQL 18 that is accepted."""
    header = struct.pack("<HHIQIxxxxQII", 0xD118, 2, 1, number * SEGMENT, 0, 7, SEGMENT, 8192)
    return header + bytes([number]) * (SEGMENT - len(header))


@dataclass
class Site:
    """A server's folder of segments, the helper for it, and the repository."""

    wal: Path
    order: PushAhead
    files: WalFiles

    def ready(self, *numbers: int) -> None:
        for number in numbers:
            (self.wal / name_of(number)).write_bytes(segment(number))
            (self.wal / "archive_status" / f"{name_of(number)}.ready").touch()

    def ask(self, number: int) -> None:
        say_wanted(self.order.folder, name_of(number))

    def run(self) -> None:
        pusher = Pusher(self.order, self.files, time.monotonic)
        pusher.run()

    def noted(self) -> list[int]:
        names = [path.name for path in Path(self.order.folder).iterdir()]
        return sorted(int(name[16:], 16) for name in names if is_segment(name))

    def counts(self, number: int) -> bool:
        return is_noted(self.order.folder, str(self.wal / name_of(number)))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("HOLDFAST_CONFIG", str(tmp_path / "holdfast.yaml"))
    monkeypatch.setenv("HOLDFAST_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(wal_push_ahead, "IDLE_SECONDS_MAX", 0.0)
    (tmp_path / "holdfast.yaml").write_text("a: 1")
    wal = tmp_path / "pg_wal"
    (wal / "archive_status").mkdir(parents=True)
    folder = notes_folder(os.environ, str(wal), "", "", "")
    area = area_of(in_folder(tmp_path / "kept"))
    with ThreadPoolExecutor(2) as threads:
        files = WalFiles(area, Tools(threads, Remembered(tmp_path / "seen")))
        yield Site(wal, PushAhead(folder, str(wal)), files)


def test_what_is_ready_is_stored_and_noted_the_one_asked_for_first(site: Site) -> None:
    site.ready(1, 2, 3)
    site.ask(3)
    site.run()
    assert site.noted() == [1, 2, 3]
    assert all(site.counts(number) for number in (1, 2, 3))
    [generation] = site.files.log.generations()
    [stretch] = site.files.log.stretches(generation.id)
    assert (stretch.start, stretch.end) == (SEGMENT, 4 * SEGMENT)


@pytest.mark.parametrize("limit", [("AHEAD_FILES_MAX", 2), ("AHEAD_BYTES_MAX", 2 * SEGMENT)], ids=["files", "bytes"])
def test_the_helper_goes_no_further_ahead_than_its_bound(
    site: Site, limit: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.ready(1)
    site.ask(1)
    pusher = Pusher(site.order, site.files, time.monotonic)
    monkeypatch.setattr(wal_push_ahead, *limit)
    pusher.run()
    site.ready(2, 3, 4, 5)
    pusher.run()
    assert site.noted() == [1, 2]
    for number in (1, 2):
        (site.wal / "archive_status" / f"{name_of(number)}.ready").unlink()
    site.ask(3)
    pusher.run()
    assert site.noted() == [3, 4]


def test_the_helper_stops_when_nobody_asks_and_after_its_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.ready(1, 2)
    site.ask(1)
    long_ago = time.time() - 1000
    os.utime(Path(site.order.folder) / "wanted", (long_ago, long_ago))
    site.run()
    assert site.noted() == []
    site.ask(1)
    monkeypatch.setattr(wal_push_ahead, "RUN_SECONDS_MAX", 0.0)
    site.run()
    assert site.noted() == []


def test_nothing_is_noted_once_the_configuration_is_another_one(site: Site, tmp_path: Path) -> None:
    site.ready(1, 2)
    site.ask(1)
    (tmp_path / "holdfast.yaml").write_text("a: 2")
    site.run()
    assert site.noted() == []


def test_a_segment_that_cannot_be_stored_ends_the_helper_without_a_note_of_it(site: Site) -> None:
    site.ready(1, 2, 3)
    (site.wal / name_of(2)).write_bytes(segment(1))
    site.ask(1)
    site.run()
    assert site.noted() == [1]
    assert (Path(site.order.folder) / f"{name_of(2)}.not").exists()


def test_notes_of_segments_that_are_archived_are_removed(site: Site) -> None:
    site.ready(1, 2)
    site.ask(1)
    site.run()
    (site.wal / "archive_status" / f"{name_of(1)}.ready").unlink()
    Pusher(site.order, site.files, time.monotonic).drop()
    assert site.noted() == [2]


def test_folders_of_notes_that_nobody_has_asked_for_a_day_are_removed(tmp_path: Path) -> None:
    for name, age in (("own", 200_000), ("old", 200_000), ("young", 10)):
        say_wanted(str(tmp_path / name), "x")
        (tmp_path / name / "lock").touch()
        at = 1_000_000 - age
        os.utime(tmp_path / name / "wanted", (at, at))
    (tmp_path / "strange").mkdir()
    sweep(tmp_path, "own", 1_000_000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own", "strange", "young"]
