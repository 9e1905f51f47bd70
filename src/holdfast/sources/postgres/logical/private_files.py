"""Files for programs that we start: secrets that no disk holds, and a folder that the next run removes if need be."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "holdfast-clients-"


def hidden_file(name: str, text: str) -> int:
    """Return the descriptor of a file that only lies in memory; a child that inherits it opens ``path_of``.

    It is private (libpq wants that of a password file) and gone with the last process that holds it.
    """
    fd = os.memfd_create(name)
    try:
        os.fchmod(fd, 0o600)
        view = memoryview(text.encode("utf-8", "surrogateescape"))
        while view:
            view = view[os.write(fd, view) :]
    except BaseException:
        os.close(fd)
        raise
    return fd


def path_of(fd: int) -> str:
    """Return the path by which whoever inherits a descriptor opens its file, from its beginning."""
    return f"/proc/self/fd/{fd}"


@contextmanager
def private_folder() -> Iterator[Path]:
    """Make a folder for the length of the context; removes those that killed runs of ours left."""
    _remove_left_over(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield Path(name)
        finally:
            os.close(fd)


def _remove_left_over(root: Path) -> None:
    for path in root.glob(f"{PREFIX}*"):
        with suppress(OSError):
            # Its maker locks it for as long as it lives, if not from the very first moment.
            if path.lstat().st_uid != os.geteuid() or not _is_old(path):
                continue
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
            finally:
                os.close(fd)


def _is_old(path: Path) -> bool:
    """Whether a folder was changed before the last minute, by the clock of its own file system."""
    with tempfile.TemporaryFile(dir=path.parent) as now:
        return os.fstat(now.fileno()).st_mtime - path.lstat().st_mtime > 60
