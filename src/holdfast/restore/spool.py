"""A capture kept in a folder for the length of a restore: what a sandbox gives on its way into a live server."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from holdfast.sources.port import Data, Entry, Inspect, StoredEntry

PIECE_BYTES = 1 << 20


class Spool:
    """Takes what a capture writes and gives it back: ``StreamSink`` first, ``Content`` then."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700)
        self._lock = threading.Lock()
        self._opened = 0
        self._kept: list[tuple[StoredEntry, Path]] = []

    def add(self, entry: Entry) -> None:
        """Take an entry without content."""
        with self._lock:
            self._kept.append((StoredEntry(entry, 0), self._folder))

    def open(self, entry: Entry, inspect: Inspect | None = None) -> _SpoolStream:
        """Begin the content of a file."""
        if inspect is not None:
            raise ValueError("a spool looks at nothing")
        with self._lock:
            self._opened += 1
            path = self._folder / str(self._opened)
        return _SpoolStream(self, entry, path)

    def closed(self, entry: Entry, path: Path, size: int) -> None:
        """Note a file that is complete."""
        with self._lock:
            self._kept.append((StoredEntry(entry, size), path))

    def drain(self) -> None:
        """All is written when it is written."""

    def expect(self, size_bytes: int) -> None:
        """Whoever waits sees the restore's own progress."""


class _SpoolStream:
    def __init__(self, spool: Spool, entry: Entry, path: Path) -> None:
        self._spool = spool
        self._entry = entry
        self._path = path
        self._size = 0
        self._file: BinaryIO = path.open("xb")

    def write(self, data: Data) -> None:
        self._file.write(data)
        self._size += len(data)

    def close(self) -> None:
        self._file.close()
        self._spool.closed(self._entry, self._path, self._size)


class SpooledContent:
    """What a spool holds, as a backup's content."""

    def __init__(self, spool: Spool) -> None:
        self._kept = list(spool._kept)

    @property
    def entries(self) -> Sequence[StoredEntry]:
        """Every entry, in the order of closing."""
        return [entry for entry, _ in self._kept]

    def open(self, index: int) -> Iterator[bytes]:
        """Yield the content of the file at ``index``."""
        with self._kept[index][1].open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                yield piece
