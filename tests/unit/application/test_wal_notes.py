"""Notes of `wal push`: what counts as one, and for which file, configuration and time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from holdfast.application.wal_notes import (
    NOTE_SECONDS_MAX,
    forget_old,
    is_helped,
    is_noted,
    lock,
    notes_folder,
    ready_segments,
    write_note,
)

NAME = "00000001000000000000000A"
CONTENT = bytes(range(256)) * 9000


@pytest.fixture
def noted(tmp_path: Path) -> Path:
    """A segment that is noted in the folder beside it, with an object that holds it."""
    (tmp_path / "object").write_bytes(b"sealed")
    (tmp_path / "notes").mkdir()
    segment = tmp_path / NAME
    segment.write_bytes(CONTENT)
    write_note(str(tmp_path / "notes"), NAME, CONTENT, "id url", [str(tmp_path / "object")])
    return segment


def counts(segment: Path) -> bool:
    return is_noted(str(segment.parent / "notes"), str(segment))


def test_a_note_counts_for_the_very_content_under_the_very_name(noted: Path) -> None:
    assert counts(noted)
    for other in (CONTENT + b"x", CONTENT[:-1], b"x" + CONTENT[1:], CONTENT[:-1] + b"x", b""):
        noted.write_bytes(other)
        assert not counts(noted)
    renamed = noted.with_name(f"{NAME[:-1]}B")
    renamed.write_bytes(CONTENT)
    (noted.parent / "notes" / NAME).rename(noted.parent / "notes" / renamed.name)
    assert not counts(renamed)


def test_a_note_cut_short_anywhere_counts_for_nothing(noted: Path) -> None:
    note = noted.parent / "notes" / NAME
    whole = note.read_bytes()
    for length in range(len(whole)):
        note.write_bytes(whole[:length])
        assert not counts(noted)
    note.write_bytes(whole)
    assert counts(noted)


@pytest.mark.parametrize("seconds", [NOTE_SECONDS_MAX + 2, -30.0], ids=["old", "of the future"])
def test_a_note_counts_for_a_while_only(noted: Path, seconds: float) -> None:
    at = time.time() - seconds
    os.utime(noted.parent / "notes" / NAME, (at, at))
    assert not counts(noted)


def test_a_note_counts_only_while_the_object_is_the_one_it_was(noted: Path) -> None:
    stored = noted.parent / "object"
    stored.rename(noted.parent / "away")
    assert not counts(noted)
    stored.write_bytes(b"sealed")
    assert not counts(noted)
    stored.unlink()
    (noted.parent / "away").rename(stored)
    assert counts(noted)


def test_nothing_is_noted_for_an_object_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_note(str(tmp_path), NAME, CONTENT, "id url", [str(tmp_path / "object")])
    assert not list(tmp_path.iterdir())


def test_the_folder_of_notes_is_another_one_for_whatever_says_which_repository_it_is(tmp_path: Path) -> None:
    config, profiles = tmp_path / "holdfast.yaml", tmp_path / "profiles"
    config.write_text("a: 1")
    home = {"HOME": str(tmp_path), "HOLDFAST_CONFIG": str(config), "AWS_CONFIG_FILE": str(profiles)}
    (tmp_path / "copy.yaml").write_text("a: 1")

    def folder(
        environment: dict[str, str] = home, wal: str = "pg_wal", config: str = "", source: str = "", there: str = ""
    ) -> str:
        return notes_folder(environment, wal, config, source, there)

    first = folder()
    assert first == folder() == folder({**home, "HOLDFAST_PASSPHRASE": "x", "AWS_SECRET_ACCESS_KEY": "y"})
    found = {
        first,
        folder(wal="other"),
        folder(config=str(tmp_path / "copy.yaml")),
        folder(source="orders"),
        folder(there="orders"),
        folder({**home, "AWS_ENDPOINT_URL": "http://here"}),
        folder({**home, "AWS_PROFILE": "other"}),
    }
    profiles.write_text("")
    found.add(folder())
    config.write_text("a: 2")
    found.add(folder())
    assert len(found) == 9  # as many as there are ways
    config.unlink()
    with pytest.raises(FileNotFoundError):
        folder()


def test_a_helper_lives_as_long_as_anybody_has_its_lock(tmp_path: Path) -> None:
    held = lock(str(tmp_path))
    assert held is not None
    assert is_helped(str(tmp_path))
    assert lock(str(tmp_path)) is None
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(held,))
    os.close(held)
    assert is_helped(str(tmp_path))
    child.communicate(b"\n")
    assert not is_helped(str(tmp_path))


def test_only_whole_segments_that_are_ready_are_taken_ahead(tmp_path: Path) -> None:
    status = tmp_path / "archive_status"
    assert list(ready_segments(str(tmp_path))) == []
    status.mkdir()
    for name in (f"{NAME}.ready", "00000001000000000000000B.done", "00000002.history.ready", f"{NAME}.partial.ready"):
        (status / name).touch()
    assert list(ready_segments(str(tmp_path))) == [NAME]


def test_the_quick_path_of_wal_push_imports_the_standard_library_only() -> None:
    code = (
        "import sys; import holdfast.__main__, holdfast.interfaces.cli.wal_push\n"
        "print(*{name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names))"
    )
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(asked.stdout.split()) <= {"holdfast", "__main__", "_distutils_hack", "_virtualenv"}, asked.stdout


def test_only_a_note_that_is_too_old_is_forgotten_to_be_made_anew(noted: Path) -> None:
    note = noted.parent / "notes" / NAME
    forget_old(str(note.parent), NAME)
    assert note.exists()
    at = time.time() - NOTE_SECONDS_MAX - 2
    os.utime(note, (at, at))
    forget_old(str(note.parent), NAME)
    forget_old(str(note.parent), NAME)
    assert not note.exists()
