"""A folder as a store: objects are files that appear whole, synced, and only under a free name."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from holdfast.model.errors import AlreadyExists, Denied, NotFound, OutcomeUnknown, Unavailable
from holdfast.storage.folder_errors import translate_link_error, translate_os_error, translate_write_error
from holdfast.storage.folder_listing import describe, walk
from holdfast.storage.names import STAGING_PREFIX, check_name, check_prefix, check_volatile
from holdfast.storage.port import Data, ObjectInfo
from holdfast.storage.short import check_length
from holdfast.storage.staging import FOLDER_MODE, StagingArea

SETTLED_FOLDERS_MAX = 16_384
"""How many folders are remembered as synced; beyond that the memory starts anew."""

READ_BYTES_MAX = 1 << 30
"""One read asks for no more: Linux answers at most 2 GiB."""


class FolderStore:
    """Objects as files of one folder (local disk, NFS). Keeps the contract of ``port.Store``.

    Needs a file system with hard links, which ``race.probe_race`` finds out; folders get mode 0700, files 0600. Only
    the root itself may be a symbolic link. A delete is not synced: coming back after a power cut does no harm.
    """

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.realpath(root))
        self._staging_folder = self._root / STAGING_PREFIX
        self._staging = StagingArea(self._staging_folder)
        self._root_identity: tuple[int, int] | None = None
        self._settled: set[Path] = set()
        self._settled_lock = threading.Lock()

    @property
    def url(self) -> str:
        """The folder as a file URL."""
        return self._root.as_uri()

    def create(self, name: str, data: Data) -> None:
        """Write beside, sync, then link: ``link`` fails where the name is taken, and never shows half a file."""
        check_name(name)
        path = self._root / name
        with self._writing(name):
            self._settle_folders(path.parent)
            with self._staging.written(data) as staged:
                self._link(name, staged, path)
        # A crash before the link leaves a nameless staging file, one after it the whole object.

    def put(self, name: str, data: Data | Path) -> None:
        """Write beside, sync, then rename over whatever bore the name."""
        check_volatile(name)
        path = self._root / name
        with self._writing(name):
            self._settle_folders(path.parent)
            with self._staging.written(data) as staged:
                staged.replace(path)
                _sync_folder(path.parent)

    def get(self, name: str, start: int = 0, end: int | None = None) -> Data:
        """Read with ``pread``; as much as the file holds of the range."""
        check_name(name)
        with self._reading(name):
            self._check_folders(name)
            descriptor = os.open(self._root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                facts = os.fstat(descriptor)
                if not stat.S_ISREG(facts.st_mode):
                    raise IsADirectoryError(errno.EISDIR, "not a file")
                stop = facts.st_size if end is None else min(end, facts.st_size)
                content = _read_range(descriptor, start, stop)
            finally:
                os.close(descriptor)
        check_length(self._subject(name), max(0, stop - start), len(content))
        return content

    def head(self, name: str) -> ObjectInfo:
        """Facts of the file."""
        check_name(name)
        with self._reading(name):
            self._check_folders(name)
            facts = (self._root / name).lstat()
            if not stat.S_ISREG(facts.st_mode):
                raise IsADirectoryError(errno.EISDIR, "not a file")
        return describe(name, facts)

    def list(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """Walk folders in the order of whole names; other people's files and staging files are passed over.

        One folder's entries are in memory at a time for each level.
        """
        check_prefix(prefix)
        try:
            with self._reading(prefix):
                self._check_folders(prefix + "x")
        except NotFound:
            return
        yield from walk(self._root, prefix, after)

    def delete(self, name: str) -> None:
        """Unlink."""
        check_name(name)
        with contextlib.suppress(NotFound), self._reading(name):
            self._check_folders(name)
            (self._root / name).unlink()

    def local_path(self, name: str) -> Path | None:
        """The file, which need not exist."""
        check_name(name)
        return self._root / name

    def close(self) -> None:
        """Nothing is held open."""

    def _subject(self, name: str) -> str:
        return f"{self.url}/{name}"

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        self._check_root()
        try:
            yield
        except OSError as error:
            raise translate_os_error(self._subject(name), error) from error

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        self._check_root()
        try:
            yield
        except OSError as error:
            self._forget_folders()
            raise translate_write_error(self._subject(name), error) from error

    def _check_root(self) -> None:
        """Refuse to go on in another folder than we began in: a disk unmounted leaves an empty one in its place."""
        # Remembered first, looked at next: another thread may make the folder in between, and that is no change.
        known = self._root_identity
        try:
            facts = self._root.stat()
        except FileNotFoundError:
            found = None
        except OSError as error:
            raise translate_os_error(self.url, error) from error
        else:
            found = (facts.st_dev, facts.st_ino)
        if known is None:
            self._root_identity = self._root_identity or found
        elif found != known:
            raise Unavailable(
                f"{self.url} is not the folder any more that it was when this run began",
                hint="Is its disk still mounted? Mount it again, then run the command again.",
            )

    def _link(self, name: str, staged: Path, path: Path) -> None:
        subject = self._subject(name)
        try:
            os.link(staged, path, follow_symlinks=False)
        except FileExistsError as error:
            # Whoever made it may have died before syncing the folder: what we build on must outlive a power cut.
            _sync_folder(path.parent)
            if path.is_dir():
                raise Denied(f"{subject} is a folder", hint="Move it out of the repository; it is not ours.") from error
            raise AlreadyExists(f"{subject} exists already") from error
        except OSError as error:
            self._forget_folders()
            raise translate_link_error(subject, error) from error
        try:
            _sync_folder(path.parent)
        except OSError as error:
            raise OutcomeUnknown(f"{subject} was written but its folder could not be synced") from error

    def _settle_folders(self, folder: Path) -> None:
        """Make and sync a folder with all above it, once in the life of this store, and the staging folder."""
        for wanted in (folder, self._staging_folder):
            if not self._is_settled(wanted):
                _make_root(self._root)
                self._settle_below_root(wanted)
        self._staging.sweep()

    def _settle_below_root(self, folder: Path) -> None:
        place = self._root
        for part in folder.relative_to(self._root).parts:
            above, place = place, place / part
            with contextlib.suppress(FileExistsError):
                place.mkdir(mode=FOLDER_MODE)
            _check_real_folder(place, errno.EINVAL)
            # Synced even when it was there: its maker may be another process that has not come so far.
            _sync_folder(above)
        self._remember_settled(folder)

    def _check_folders(self, name: str) -> None:
        """Refuse to read through a symbolic link that somebody put among our folders."""
        folder = (self._root / name).parent
        if self._is_settled(folder):
            return
        place = self._root
        for part in folder.relative_to(self._root).parts:
            place = place / part
            _check_real_folder(place, errno.ENOTDIR)

    def _is_settled(self, folder: Path) -> bool:
        with self._settled_lock:
            return folder in self._settled

    def _remember_settled(self, folder: Path) -> None:
        with self._settled_lock:
            if len(self._settled) >= SETTLED_FOLDERS_MAX:
                self._settled.clear()
            self._settled.add(folder)

    def _forget_folders(self) -> None:
        with self._settled_lock:
            self._settled.clear()


def _read_range(descriptor: int, start: int, stop: int) -> bytes:
    """Read until ``stop`` or until the file ends before it was said to; one read and no copy for usual sizes."""
    content = os.pread(descriptor, min(max(0, stop - start), READ_BYTES_MAX), start)
    if len(content) == stop - start or not content:
        return content
    pieces = [content]
    at = start + len(content)
    while at < stop and (piece := os.pread(descriptor, min(stop - at, READ_BYTES_MAX), at)):
        pieces.append(piece)
        at += len(piece)
    return b"".join(pieces)


def _check_real_folder(folder: Path, errno_of_file: int) -> None:
    mode = folder.lstat().st_mode
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, "a symbolic link inside the repository", str(folder))
    if not stat.S_ISDIR(mode):
        raise OSError(errno_of_file, "a file where a folder has to be", str(folder))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_root(root: Path) -> None:
    """Make the root with all above it that is missing; the new names must outlive a power cut too."""
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    root.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    for folder in reversed(made):
        _sync_folder(folder.parent)
