"""A folder store whose processes are killed, whose disk is full, and whose folders are tampered with."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from holdfast.model.errors import AlreadyExists, Denied, NotFound, OutOfSpace, Unavailable
from holdfast.storage.folder import FolderStore
from holdfast.storage.settled import RetryPolicy, SettledStore
from holdfast.storage.staging import LITTER_AGE_SECONDS_MIN

MIB = 1024 * 1024
KILLS = 12

WRITER = """
import sys
from pathlib import Path
from holdfast.storage.folder import FolderStore

store = FolderStore(Path(sys.argv[1]))
print("ready", flush=True)
for number in range(100_000):
    store.create(f"packs/{number:06}", number.to_bytes(8, "big") * (1 << 17))
    print(number, flush=True)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 1 MiB in memory. Needs root, as the tests of a full disk do."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def names(store: FolderStore) -> list[str]:
    return [info.name for info in store.list("")]


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_a_writer_killed_anywhere_leaves_whole_objects_only(tmp_path: Path) -> None:
    moments = random.Random(3)
    for kill in range(KILLS):
        root = tmp_path / str(kill)
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0, 0.05))
        writer.send_signal(signal.SIGKILL)
        told = [int(line) for line in writer.stdout.read().split("\n")[:-1]]
        writer.stdout.close()
        assert writer.wait() == -signal.SIGKILL
        store = FolderStore(root)
        found = names(store)
        assert found == [f"packs/{number:06}" for number in range(len(found))]
        assert len(told) <= len(found) <= len(told) + 1
        for number, name in enumerate(found):
            assert store.get(name) == number.to_bytes(8, "big") * (1 << 17)
        store.create(f"packs/{len(found):06}", b"the next one goes on")


def test_what_a_dead_writer_left_is_removed_after_a_day_and_not_before(root: Path) -> None:
    FolderStore(root).create("a", b"x")
    old, fresh = root / "volatile/staging/1-dead", root / "volatile/staging/2-alive"
    for litter in (old, fresh):
        litter.write_bytes(b"half")
    long_ago = time.time() - LITTER_AGE_SECONDS_MIN - 60
    os.utime(old, (long_ago, long_ago))
    store = FolderStore(root)
    assert names(store) == ["a"]
    store.create("b", b"y")
    assert not old.exists()
    assert fresh.exists()
    assert names(store) == ["a", "b"]


def test_a_full_disk_is_out_of_space_and_keeps_nothing_partial(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        store = FolderStore(disk / "repository")
        store.create("packs/small", b"x" * 1000)
        for call in (
            lambda: store.create("packs/large", b"x" * 2 * MIB),
            lambda: store.put("volatile/large", b"x" * 2 * MIB),
            lambda: SettledStore(store).create("packs/large", b"x" * 2 * MIB),
        ):
            with pytest.raises(OutOfSpace) as caught:
                call()
            assert "space" in caught.value.hint
        assert names(store) == ["packs/small"]
        assert files(disk) == [disk / "repository/packs/small"]
        store.create("packs/fits", b"x" * 1000)


def test_a_file_sent_to_a_full_disk_is_out_of_space(tmp_path: Path) -> None:
    source = tmp_path / "segment"
    source.write_bytes(b"x" * 2 * MIB)
    with small_disk(tmp_path / "disk") as disk:
        store = FolderStore(disk / "repository")
        with pytest.raises(OutOfSpace):
            store.put("volatile/index/1", source)
        assert names(store) == []
        assert files(disk) == []


def test_a_disk_turned_read_only_is_denied(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        store = FolderStore(disk / "repository")
        store.create("a", b"x")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(Denied):
            store.create("b", b"y")
        with pytest.raises(Denied):
            store.delete("a")
        assert store.get("a") == b"x"


def test_a_disk_unmounted_during_a_run_is_neither_empty_nor_written_to(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk):
        store = FolderStore(disk)
        store.create("history/1", b"x")
    for call in (
        lambda: store.create("history/2", b"y"),
        lambda: store.put("volatile/leases/1", b"y"),
        lambda: store.get("history/1"),
        lambda: store.head("history/1"),
        lambda: names(store),
        lambda: store.delete("history/1"),
    ):
        with pytest.raises(Unavailable, match="not the folder any more"):
            call()
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK])
def test_a_file_system_without_hard_links_is_denied_with_a_hint(
    root: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(Denied, match="hard links") as caught:
        FolderStore(root).create("a", b"x")
    assert "ext4" in caught.value.hint
    assert files(root) == []


def test_an_error_of_the_link_that_proves_nothing_is_settled(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def link_and_fail(*arguments: object, **options: object) -> None:
        link(*arguments, **options)  # type: ignore[arg-type]
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "link", link_and_fail)
    SettledStore(FolderStore(root), sleep=lambda _: None).create("a", b"x")
    assert FolderStore(root).get("a") == b"x"


def test_symbolic_links_inside_the_repository_are_not_followed(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"not ours")
    FolderStore(root).create("there/a", b"x")
    (root / "linked").symlink_to(outside)
    (root / "there/file").symlink_to(outside / "file")
    store = FolderStore(root)
    for call in (
        lambda: store.create("linked/new", b"x"),
        lambda: store.create("linked/below/new", b"x"),
        lambda: store.get("linked/file"),
        lambda: store.head("linked/file"),
        lambda: store.delete("linked/file"),
        lambda: list(store.list("linked/")),
        lambda: store.get("there/file"),
    ):
        with pytest.raises(Denied):
            call()
    assert names(store) == ["there/a"]
    assert [path.name for path in outside.iterdir()] == ["file"]


def test_the_root_itself_may_be_a_symbolic_link(root: Path, tmp_path: Path) -> None:
    root.mkdir()
    (tmp_path / "alias").symlink_to(root)
    FolderStore(tmp_path / "alias").create("a", b"x")
    assert FolderStore(root).get("a") == b"x"


def test_folders_removed_behind_our_back_are_unavailable_and_made_again(root: Path) -> None:
    store = FolderStore(root)
    store.create("packs/aa/1", b"x")
    (root / "packs/aa/1").unlink()
    (root / "packs/aa").rmdir()
    SettledStore(store, RetryPolicy(tries_max=2), sleep=lambda _: None).create("packs/aa/2", b"y")
    assert names(store) == ["packs/aa/2"]


def test_strange_things_in_the_folder_are_passed_over(root: Path) -> None:
    store = FolderStore(root)
    store.create("packs/1", b"x")
    (root / "lost+found").mkdir()
    (root / "packs/.DS_Store").write_bytes(b"")
    (root / "README").write_bytes(b"")
    os.mkfifo(root / "packs/pipe")
    assert names(store) == ["packs/1"]
    with pytest.raises(NotFound):
        store.get("packs/pipe")
    (root / "packs/folder").mkdir()
    with pytest.raises(Denied, match="is a folder"):
        store.create("packs/folder", b"x")


def test_files_that_disappear_during_a_listing_are_left_out(root: Path) -> None:
    store = FolderStore(root)
    for number in range(100):
        store.create(f"packs/{number:03}", b"")
        store.create(f"zeros/{number:03}", b"")
    listing = store.list("")
    first = next(listing).name
    for number in range(50, 100):
        store.delete(f"packs/{number:03}")
    for number in range(100):
        store.delete(f"zeros/{number:03}")
    (root / "zeros").rmdir()
    assert [first, *[info.name for info in listing]] == [f"packs/{number:03}" for number in range(50)]


def test_files_and_folders_are_for_their_owner_only(root: Path) -> None:
    store = FolderStore(root)
    store.create("packs/aa/1", b"x")
    store.put("volatile/leases/1", b"x")
    assert {path.stat().st_mode & 0o777 for path in files(root)} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (root, *root.rglob("*")) if path.is_dir()} == {0o700}


def test_processes_racing_for_one_name_have_one_winner(root: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from holdfast.storage.folder import FolderStore;"
        "from holdfast.model.errors import AlreadyExists\n"
        "won = 0\nfor number in range(50):\n"
        "    try:\n        FolderStore(Path(sys.argv[1])).create(f'h/{number}', sys.argv[2].encode()); won += 1\n"
        "    except AlreadyExists: pass\n"
        "print(won)"
    )

    def contend(number: int) -> int:
        return int(subprocess.check_output([sys.executable, "-c", code, str(root), str(number)]))

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(contend, range(3))) == 50


def test_an_existing_object_is_refused_only_after_its_folder_is_synced(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(root)
    store.create("h/1", b"x")
    synced: list[str] = []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    with pytest.raises(AlreadyExists):
        store.create("h/1", b"y")
    assert synced[-1] == str(root / "h")


def test_every_new_folder_is_synced_into_the_one_above(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    FolderStore(root).create("a/b/1", b"x")
    staged = next(path for path in synced if "/staging/" in path)
    assert (
        synced.index(str(root.parent)) < synced.index(str(root)) < synced.index(str(root / "a")) < synced.index(staged)
    )
    assert synced[-1] == str(root / "a/b")
