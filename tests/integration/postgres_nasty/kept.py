"""A sink that keeps a capture in a folder's files, and gives it back as the content of a backup."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from holdfast.sources.port import (
    BESIDE_PREFIX,
    SINK_STREAMS_MAX,
    Data,
    Entry,
    EntryType,
    Inspect,
    StoredEntry,
)

PIECE_BYTES = 300_000
"""No divisor of anything: lines and escapes are cut at odd places."""


class KeptStream:
    """Writes one entry to its file."""

    def __init__(self, sink: KeptSink, entry: Entry, path: Path) -> None:
        self._sink = sink
        self._entry = entry
        self._path = path
        self.file: BinaryIO = path.open("wb")

    def write(self, data: Data) -> None:
        self.file.write(data)

    def close(self) -> None:
        self.file.close()
        self._sink.closed(self._entry, self._path)


class KeptSink:
    """Takes streams of several threads; the order of entries is that of closing. Counts what is open at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir()
        self._lock = threading.Lock()
        self._number = 0
        self._open = 0
        self.open_most = 0
        self._streams: list[KeptStream] = []
        self.kept: list[tuple[StoredEntry, Path]] = []

    def add(self, entry: Entry) -> None:
        with self._lock:
            self.kept.append((StoredEntry(entry, 0), self._folder))

    def open(self, entry: Entry, inspect: Inspect | None = None) -> KeptStream:
        assert inspect is None
        with self._lock:
            self._number += 1
            self._open += 1
            self.open_most = max(self.open_most, self._open)
            assert self._open <= SINK_STREAMS_MAX
            stream = KeptStream(self, entry, self._folder / f"{self._number:05d}")
            self._streams.append(stream)
            return stream

    def closed(self, entry: Entry, path: Path) -> None:
        with self._lock:
            self._open -= 1
            self.kept.append((StoredEntry(entry, path.stat().st_size), path))

    def drain(self) -> None:
        assert self._open == 0

    def expect(self, size_bytes: int) -> None:
        assert size_bytes >= 0

    def abandon(self) -> None:
        """Close the files of streams that a failed capture left open."""
        for stream in self._streams:
            stream.file.close()

    def file(self, path: str) -> Path | None:
        """Tell where the content of an entry lies; None where there is no such entry."""
        return next((file for stored, file in self.kept if stored.entry.path == path), None)


class KeptContent:
    """What a KeptSink took, as a restore reads it."""

    def __init__(self, sink: KeptSink) -> None:
        self._kept = list(sink.kept)

    @property
    def entries(self) -> Sequence[StoredEntry]:
        return [stored for stored, _ in self._kept]

    def open(self, index: int) -> Iterator[bytes]:
        stored, path = self._kept[index]
        assert stored.entry.type is EntryType.FILE
        with path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                yield piece


def paths_that_do_not_fit(sink: KeptSink) -> list[str]:
    """List entries that no folder could hold as they are named, or that are named twice."""
    paths = [stored.entry.path for stored, _ in sink.kept]
    bad = [path for path in paths if any(_is_bad(part) for part in path.removeprefix(BESIDE_PREFIX).split("/"))]
    return bad + sorted(path for path in set(paths) if paths.count(path) > 1)


def _is_bad(part: str) -> bool:
    size = len(part.encode("utf-8", "surrogateescape"))
    return part in ("", ".", "..") or size > 255 or any(ord(letter) < 32 for letter in part)
