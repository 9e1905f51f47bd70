"""Disks that are full, of the repository, the target and the state: a clear error, no backup, then all is well."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.faults.backup.whole_backups import World, area_of, content, ignore, make, require_right

from holdfast.model.documents import JsonObject
from holdfast.model.errors import HoldfastError, OutOfSpace
from holdfast.repository.repository import read_identity
from holdfast.restore.folder import Hands, RestoreOrder, restore_folder
from holdfast.sources.port import EntryType, FileStep, FolderPlan, FolderTarget, StoredEntry, Tier
from holdfast.storage.folder import FolderStore

LAST = "note"


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of a fixed size in memory. Needs root, as every test of a full disk does."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def grow(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


class PlainRefill:
    """Puts every file of a backup into the target under its own name."""

    def refuse_target(self, target: FolderTarget) -> None:
        """Take any."""

    def plan_folder(
        self, target: FolderTarget, details: JsonObject, entries: Sequence[StoredEntry], read: Callable[[int], bytes]
    ) -> FolderPlan:
        steps = {
            stored.entry.path: FileStep(number, target.folder / stored.entry.path, 0o600)
            for number, stored in enumerate(entries)
            if stored.entry.type is EntryType.FILE
        }
        return FolderPlan(
            roots=(target.folder,),
            folders=((target.folder / "data", 0o700),),
            files=tuple(step for path, step in steps.items() if path != LAST),
            generated=(),
            links=(),
            last=(steps[LAST],),
        )


def restore(world: World, store: FolderStore, target: Path, *, delta: bool = False) -> None:
    area, record = area_of(store), world.listed(store)[-1]
    order = RestoreOrder(FolderTarget(target), delta)
    restore_folder(area, record, PlainRefill(), order, Hands(world.executor, ignore, lambda: False))


def restored(target: Path) -> dict[str, bytes]:
    return {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}


@pytest.mark.parametrize("size", ["800k", "1500k", "2000k"])
def test_a_full_repository_is_told_and_the_backup_works_once_there_is_room(
    world: World, tmp_path: Path, size: str
) -> None:
    with small_disk(tmp_path / "disk", size) as disk:
        store = FolderStore(disk / "repository")
        make(store)
        with pytest.raises(OutOfSpace) as caught:
            world.backup(store, 1)
        assert caught.value.exit_code == 1
        assert "space" in caught.value.hint.lower()
        assert world.require_sound(store) == []
        grow(disk, "64m")
        world.backup(store, 1)
        assert len(world.require_sound(store)) == 1
        assert world.check(store).findings == ()


def test_a_repository_that_fills_up_keeps_the_backups_it_has(world: World, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "6m") as disk:
        store = FolderStore(disk / "repository")
        make(store)
        taken: list[str] = []
        with pytest.raises(OutOfSpace):
            for version in range(1, 20):
                taken.append(world.backup(store, version, Tier.INCREMENTAL).record.id)
        assert taken
        # Looking, checking and restoring need no room.
        assert [record.id for record in world.require_sound(store)] == taken
        assert world.check(store).findings == ()
        restore(world, store, tmp_path / "target")
        require_right(restored(tmp_path / "target"))


def test_a_disk_too_small_for_the_keys_makes_no_repository(world: World, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "8k") as disk:
        store = FolderStore(disk / "repository")
        with pytest.raises(OutOfSpace):
            make(store)
        with pytest.raises(HoldfastError):
            read_identity(store)
        grow(disk, "64m")
        make(store)
        world.backup(store, 1)
        assert len(world.require_sound(store)) == 1


def test_a_target_that_is_too_small_is_refused_before_the_first_byte(world: World, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "repository")
    make(store)
    world.backup(store, 1)
    with small_disk(tmp_path / "disk", "1m") as disk:
        with pytest.raises(OutOfSpace, match="free") as caught:
            restore(world, store, disk / "target")
        assert "nothing was written" in caught.value.hint
        assert not (disk / "target").exists()


def test_a_target_that_fills_up_does_not_start_and_is_finished_once_there_is_room(world: World, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "repository")
    make(store)
    world.backup(store, 1)
    with small_disk(tmp_path / "disk", "1m") as disk:
        with pytest.raises(OutOfSpace) as caught:
            restore(world, store, disk / "target", delta=True)
        assert "room" in caught.value.hint
        assert not (disk / "target" / LAST).exists()
        grow(disk, "64m")
        restore(world, store, disk / "target", delta=True)
        assert restored(disk / "target") == content(1)
    assert len(world.require_sound(store)) == 1


def test_a_state_folder_without_room_does_not_turn_a_backup_into_a_failure(world: World, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "repository")
    make(store)
    (tmp_path / "host-0").write_text("a file where the state folder should be")
    taken = world.backup(store, 1)
    assert any("cannot be remembered" in text for text in world.forgotten)
    assert [record.id for record in world.require_sound(store, world.remembered)] == [taken.record.id]
    assert world.check(store, world.remembered).findings == ()
