"""A restore writes exactly what was backed up, into places it may write to, and is usable only when all of it is."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.unit.repository.repository_examples import File, area_of, flipped, object_names, replace_object, take

from holdfast.model.documents import JsonObject
from holdfast.model.errors import Conflict, HoldfastError, IntegrityBroken, Interrupted, OutOfSpace, SourceFailed
from holdfast.repository.area import Area
from holdfast.repository.format import names
from holdfast.repository.format.record import BackupRecord
from holdfast.repository.index.lookup import open_index
from holdfast.repository.reading import ChunkReader, read_tree
from holdfast.restore import files as restore_files
from holdfast.restore.files import FileContent, FileWriter
from holdfast.restore.folder import UNFINISHED, Hands, Restored, RestoreOrder, restore_folder
from holdfast.sources.port import EntryType, FileStep, FolderPlan, FolderTarget, Layout, StoredEntry

PAGES = 131072
LAST = "global/control"


def noise(size: int, seed: int) -> bytes:
    import random

    return random.Random(seed).randbytes(size)


FILES: dict[str, File | bytes] = {
    "base/1": File(noise(5 * PAGES + 777, 1), Layout.PAGES),
    "base/2": File(noise(3 * PAGES, 2), Layout.PAGES),
    "base/zeros": File(bytes(20 * PAGES), Layout.PAGES),
    "base/empty": b"",
    "base/text": noise(3 << 20, 3),
    "wal/cut": File(b"\x01" * 3 * PAGES, Layout.PAGES),
    LAST: b"the file without which nothing starts",
    "@settings/pg_hba.conf": b"beside",
}
ZERO_FROM = {"wal/cut": PAGES + 5}


@dataclass(slots=True)
class Refill:
    """A kind whose server needs one file to start, has a link, and writes one file of its own."""

    root: Path
    refusal: HoldfastError | None = None
    outside: Path | None = None
    notes: list[str] = field(default_factory=list)

    def refuse_target(self, target: FolderTarget) -> None:
        if self.refusal is not None:
            raise self.refusal

    def plan_folder(
        self, target: FolderTarget, details: JsonObject, entries: Sequence[StoredEntry], read: Callable[[int], bytes]
    ) -> FolderPlan:
        root = target.folder
        steps, last = [], []
        folders = {root: 0o700}
        for index, stored in enumerate(entries):
            path = stored.entry.path
            if stored.entry.type is not EntryType.FILE or path.startswith("@"):
                continue
            folders |= {root / parent: 0o750 for parent in Path(path).parents}
            step = FileStep(index, root / path, 0o640, ZERO_FROM.get(path))
            (last if path == LAST else steps).append(step)
        beside = read(next(number for number, stored in enumerate(entries) if stored.entry.path.startswith("@")))
        folders[root] = 0o700
        return FolderPlan(
            roots=(root,),
            folders=tuple(sorted(folders.items())),
            files=tuple(steps),
            generated=((root / "generated", beside, 0o600),),
            links=((root / "link", "/nowhere/at/all"),),
            last=tuple(last),
        )


@pytest.fixture
def area() -> Area:
    return area_of()


@pytest.fixture
def record(area: Area, executor: Executor) -> BackupRecord:
    return take(area, FILES, executor).record


def hands(executor: Executor, stop: Callable[[], bool] = lambda: False) -> Hands:
    return Hands(executor, lambda _: None, stop)


def restore(
    area: Area, record: BackupRecord, root: Path, executor: Executor, *, delta: bool = False, **more: object
) -> Restored:
    order = RestoreOrder(FolderTarget(root), delta)
    refill = more.pop("refill", None) or Refill(root)
    return restore_folder(area, record, refill, order, hands(executor, **more))  # type: ignore[arg-type]


def expected() -> dict[str, bytes]:
    found = {"generated": b"beside"}
    for path, given in FILES.items():
        content = given.content if isinstance(given, File) else given
        if path in ZERO_FROM:
            content = content[: ZERO_FROM[path]] + bytes(len(content) - ZERO_FROM[path])
        if not path.startswith("@"):
            found[path] = content
    return found


def held(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def require_right(root: Path) -> None:
    assert held(root) == expected()
    assert (root / "link").readlink() == Path("/nowhere/at/all")
    assert {stat.S_IMODE((root / path).stat().st_mode) for path in expected() if path != "generated"} == {0o640}
    assert stat.S_IMODE((root / "generated").stat().st_mode) == 0o600
    assert stat.S_IMODE((root / "base").stat().st_mode) == 0o750
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


def test_everything_is_restored_exactly(area: Area, record: BackupRecord, executor: Executor, tmp_path: Path) -> None:
    done = restore(area, record, tmp_path / "new" / "place", executor)
    require_right(tmp_path / "new" / "place")
    assert (
        done.written.size_bytes
        == done.written.written_bytes
        == sum(len(content) for path, content in expected().items() if path != "generated")
    )
    assert (done.removed, done.written.kept_bytes) == (0, 0)


def test_small_windows_restore_the_same(
    area: Area, record: BackupRecord, executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore_files, "WINDOW_BYTES", PAGES)
    monkeypatch.setattr(restore_files, "WINDOW_FILES_MAX", 2)
    monkeypatch.setattr(restore_files, "WRITE_PARTS_MAX", 2)
    restore(area, record, tmp_path / "place", executor)
    require_right(tmp_path / "place")


def test_a_target_that_holds_something_is_refused(
    area: Area, record: BackupRecord, executor: Executor, tmp_path: Path
) -> None:
    (tmp_path / "something").write_bytes(b"precious")
    with pytest.raises(Conflict, match="is not empty"):
        restore(area, record, tmp_path, executor)
    assert held(tmp_path) == {"something": b"precious"}
    with pytest.raises(Conflict, match="is not a folder"):
        restore(area, record, tmp_path / "something", executor)


def test_an_empty_folder_and_one_with_only_lost_and_found_are_taken(
    area: Area, record: BackupRecord, executor: Executor, tmp_path: Path
) -> None:
    (tmp_path / "lost+found").mkdir()
    restore(area, record, tmp_path, executor)
    (tmp_path / "lost+found").rmdir()
    require_right(tmp_path)


def test_a_target_that_its_kind_refuses_is_left_alone(
    area: Area, record: BackupRecord, executor: Executor, tmp_path: Path
) -> None:
    refill = Refill(tmp_path, refusal=Conflict("a server runs there"))
    for delta in (False, True):
        with pytest.raises(Conflict, match="a server runs there"):
            restore(area, record, tmp_path / "place", executor, delta=delta, refill=refill)
    assert not (tmp_path / "place").exists()


def test_a_delta_rewrites_only_what_differs_and_removes_what_is_strange(
    area: Area, record: BackupRecord, executor: Executor, tmp_path: Path
) -> None:
    root = tmp_path / "place"
    restore(area, record, root, executor)
    with (root / "base/1").open("r+b") as file:
        file.seek(2 * PAGES + 5)
        file.write(b"damage")
    with (root / "base/2").open("ab") as file:
        file.write(b"longer than it was")
    os.truncate(root / "base/text", 5)
    (root / "base/zeros").unlink()
    (root / LAST).write_bytes(b"of another time")
    (root / "strange").mkdir()
    (root / "strange/deep").mkdir()
    (root / "strange/deep/file").write_bytes(b"x")
    (root / "base/strange").write_bytes(b"x")
    (root / "generated").chmod(0o644)
    done = restore(area, record, root, executor, delta=True)
    require_right(root)
    assert not (root / "strange").exists()
    text = expected()["base/text"]
    # The cut-off file is written again; of the zeroed tail only what no longer matches; nothing of what was right.
    assert done.written.written_bytes <= PAGES + len(text) + 20 * PAGES + len(expected()[LAST]) + 2 * PAGES
    assert done.written.kept_bytes >= 4 * PAGES + 777 + 3 * PAGES
    assert done.removed == 5  # and the link, which is made anew
    again = restore(area, record, root, executor, delta=True)
    assert again.written.written_bytes <= 2 * PAGES  # zeros stand where the backup has something else
    assert again.removed == 1  # the link is made anew


def test_a_delta_into_an_empty_or_absent_folder_is_a_restore(
    area: Area, record: BackupRecord, executor: Executor, tmp_path: Path
) -> None:
    restore(area, record, tmp_path / "place", executor, delta=True)
    require_right(tmp_path / "place")


def outside_of(tmp_path: Path) -> tuple[Path, dict[str, bytes]]:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "precious").write_bytes(b"precious")
    (outside / "1").write_bytes(b"not base/1")
    (outside / "control").write_bytes(b"another server's")
    (outside / "deep/file").write_bytes(b"x")
    outside.chmod(0o705)
    return outside, held(outside)


def require_untouched(outside: Path, before: dict[str, bytes]) -> None:
    assert held(outside) == before
    assert stat.S_IMODE(outside.stat().st_mode) == 0o705


@pytest.mark.parametrize("replaced", ["base/1", "base", "global", LAST, "strange", "generated", "link", "base/strange"])
@pytest.mark.parametrize("kind", ["folder", "file", "dangling"])
def test_a_delta_never_follows_a_link(
    replaced: str, kind: str, area: Area, record: BackupRecord, executor: Executor, tmp_path: Path
) -> None:
    outside, before = outside_of(tmp_path)
    root = tmp_path / "place"
    restore(area, record, root, executor)
    path = root / replaced
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.symlink_to({"folder": outside, "file": outside / "precious", "dangling": outside / "none"}[kind])
    restore(area, record, root, executor, delta=True)
    require_untouched(outside, before)
    require_right(root)


@pytest.mark.parametrize("replaced", ["base/1", LAST, "generated", "link"])
def test_a_delta_replaces_a_folder_that_stands_where_a_file_belongs(
    replaced: str, area: Area, record: BackupRecord, executor: Executor, tmp_path: Path
) -> None:
    root = tmp_path / "place"
    restore(area, record, root, executor)
    (root / replaced).unlink()
    (root / replaced).mkdir()
    (root / replaced / "strange").write_bytes(b"x")
    restore(area, record, root, executor, delta=True)
    require_right(root)


@pytest.mark.parametrize("replaced", ["base", "global"])
def test_a_delta_replaces_a_file_that_stands_where_a_folder_belongs(
    replaced: str, area: Area, record: BackupRecord, executor: Executor, tmp_path: Path
) -> None:
    root = tmp_path / "place"
    restore(area, record, root, executor)
    shutil.rmtree(root / replaced)
    (root / replaced).write_bytes(b"x")
    restore(area, record, root, executor, delta=True)
    require_right(root)


def test_a_plain_restore_never_writes_to_a_file_that_came_meanwhile(
    area: Area, record: BackupRecord, executor: Executor, tmp_path: Path
) -> None:
    ref = next(entry.ref for entry in tree_of(area, record, executor) if entry.path == "base/1")
    assert ref is not None
    for make in (lambda path: path.write_bytes(b"there"), lambda path: path.symlink_to(tmp_path / "else")):
        path = tmp_path / "file"
        path.unlink(missing_ok=True)
        make(path)
        with pytest.raises(SourceFailed, match="cannot write"):
            written(area, executor, [FileContent(path, 0o600, ref)], delta=False)
    assert not (tmp_path / "else").exists()
    with pytest.raises(SourceFailed, match="cannot write"):
        written(area, executor, [FileContent(tmp_path / "file", 0o600, ref)], delta=True)
    assert not (tmp_path / "else").exists()


def tree_of(area: Area, record: BackupRecord, executor: Executor) -> list[object]:
    index = open_index(area, frozenset(), executor)
    try:
        return list(read_tree(ChunkReader(area, index), record, executor))
    finally:
        index.close()


def written(area: Area, executor: Executor, files: Sequence[FileContent], *, delta: bool) -> None:
    index = open_index(area, frozenset(), executor)
    try:
        writer = FileWriter(ChunkReader(area, index), area.keys, executor, lambda _: None, lambda: False)
        writer.write(files, delta=delta)
    finally:
        index.close()


def test_a_disk_without_room_is_refused_before_the_first_byte(
    area: Area, record: BackupRecord, executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.disk_usage(tmp_path)
    small = real._replace(free=record.size_bytes // 2)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: small)
    with pytest.raises(OutOfSpace, match="needs"):
        restore(area, record, tmp_path / "place", executor)
    assert not (tmp_path / "place").exists()


def test_a_disk_that_fills_up_ends_the_restore_with_an_unusable_target(
    area: Area, record: BackupRecord, executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwritev", full)
    with pytest.raises(OutOfSpace, match="no space left"):
        restore(area, record, tmp_path / "place", executor)
    assert not (tmp_path / "place" / LAST).exists()


@pytest.mark.parametrize("delta", [False, True])
def test_an_interrupted_restore_lacks_the_last_file_and_a_delta_finishes_it(
    delta: bool, area: Area, record: BackupRecord, executor: Executor, tmp_path: Path
) -> None:
    root = tmp_path / "place"
    if delta:
        restore(area, record, root, executor)
        (root / "base/1").write_bytes(b"")
    with pytest.raises(Interrupted):
        restore(area, record, root, executor, delta=delta, stop=lambda: True)
    assert not (root / LAST).exists()
    restore(area, record, root, executor, delta=True)
    require_right(root)
    assert not list(root.rglob(f"*{UNFINISHED}"))


def test_a_restore_may_fail_at_every_write_and_the_last_file_is_missing_each_time(
    area: Area, record: BackupRecord, executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = os.pwritev, [0]

    def failing(fd: int, parts: list[bytes], offset: int) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(5, "Input/output error")
        return real(fd, parts, offset)

    monkeypatch.setattr(os, "pwritev", failing)
    for allowed in range(100):
        left[0] = allowed
        root = tmp_path / str(allowed)
        try:
            restore(area, record, root, executor)
        except SourceFailed:
            assert not (root / LAST).exists()
        else:
            require_right(root)
            assert allowed > 3
            return
    pytest.fail("the restore never came to its end")


def test_broken_bytes_are_never_restored(area: Area, record: BackupRecord, executor: Executor, tmp_path: Path) -> None:
    packs = object_names(area.store, names.packs(area.keys.area))
    name = max(packs, key=lambda each: area.store.head(each).size_bytes)
    sound = bytes(area.store.get(name))
    toc = int.from_bytes(sound[-64:-56], "little")
    for number, offset in enumerate((70, toc // 2, toc - 20)):
        replace_object(area.store, name, flipped(sound, 8 * offset))
        root = tmp_path / str(number)
        with pytest.raises(IntegrityBroken):
            restore(area, record, root, executor)
        assert not (root / LAST).exists()
    replace_object(area.store, name, sound)
    restore(area, record, tmp_path / "sound", executor)
    require_right(tmp_path / "sound")


def test_a_chunk_that_is_broken_in_one_pack_is_read_from_another(
    area: Area, record: BackupRecord, executor: Executor, tmp_path: Path
) -> None:
    data = names.packs(area.keys.area)
    before = object_names(area.store, data)
    saved = {name: bytes(area.store.get(name)) for name in before}
    # The same content once more in other packs, then damage to the first ones: a bit here, a whole pack there.
    for name in (*before, *object_names(area.store, "volatile/")):
        area.store.delete(name)
    take(area, FILES, executor)
    for number, (name, content) in enumerate(saved.items()):
        area.store.create(name, flipped(content, 8 * 80) if number % 2 else content)
    restore(area, record, tmp_path / "place", executor)
    require_right(tmp_path / "place")


def test_a_record_whose_tree_lies_about_its_number_of_entries_is_refused(
    area: Area, record: BackupRecord, executor: Executor, tmp_path: Path
) -> None:
    with pytest.raises(IntegrityBroken, match="entries and not"):
        restore(area, replace(record, entries=record.entries + 1), tmp_path / "place", executor)
    assert not (tmp_path / "place").exists()
