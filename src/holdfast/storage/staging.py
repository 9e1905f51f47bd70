"""Staging files of a folder store: written and synced in full before a name is given to them."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from holdfast.storage.port import Data

LITTER_AGE_SECONDS_MIN = 24 * 3600
"""Staging files untouched for so long were left by a process that died."""

LITTER_INTERVAL_SECONDS = 6 * 3600
LITTER_REMOVED_MAX = 10_000
COPY_BUFFER_BYTES = 1024 * 1024
FOLDER_MODE = 0o700
FILE_MODE = 0o600


class StagingArea:
    """A folder of unnamed files. Safe for any number of threads and processes at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._swept_at: float | None = None

    @contextlib.contextmanager
    def written(self, data: Data | Path) -> Iterator[Path]:
        """Give the path of a new file that holds ``data``, synced; it is removed afterwards where it still exists.

        A crash in here leaves at most this file, which a later ``sweep`` removes. Raises OSError.
        """
        path = self._folder / f"{os.getpid()}-{uuid.uuid4().hex}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        try:
            try:
                _write_synced(descriptor, data)
            finally:
                os.close(descriptor)
            yield path
        finally:
            # The outcome is decided by now; a file that will not go is left for a later sweep.
            with contextlib.suppress(OSError):
                path.unlink()

    def sweep(self) -> None:
        """Remove what dead processes left, at most once per interval. Raises OSError."""
        with self._lock:
            now = time.monotonic()
            if self._swept_at is not None and now - self._swept_at < LITTER_INTERVAL_SECONDS:
                return
            self._swept_at = now
        oldest = time.time() - LITTER_AGE_SECONDS_MIN
        with os.scandir(self._folder) as entries:
            for _, entry in zip(range(LITTER_REMOVED_MAX), entries, strict=False):
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime < oldest:
                        Path(entry.path).unlink()


def _write_synced(descriptor: int, data: Data | Path) -> None:
    if isinstance(data, Path):
        with data.open("rb") as source, os.fdopen(descriptor, "wb", closefd=False) as sink:
            shutil.copyfileobj(source, sink, COPY_BUFFER_BYTES)
    else:
        rest = memoryview(data).cast("B") if len(data) else memoryview(b"")
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)
