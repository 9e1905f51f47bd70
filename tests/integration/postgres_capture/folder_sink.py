"""A sink that puts a capture into a folder, and looks at pages on threads as a repository would."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from holdfast.sources.port import BESIDE_PREFIX, Data, Entry, EntryType, Inspect, Layout

PIECE_BYTES = 128 * 1024


class FolderStream:
    """Writes one file, and hands aligned pieces of it to the inspection."""

    def __init__(self, sink: FolderSink, file: BinaryIO, inspect: Inspect | None) -> None:
        self._sink = sink
        self._file = file
        self._inspect = inspect
        self._piece = bytearray()
        self._offset = 0

    def write(self, data: Data) -> None:
        self._sink.count(len(data))
        self._file.write(data)
        if self._inspect is not None:
            self._piece += data
            while len(self._piece) >= PIECE_BYTES:
                self._hand_over(bytes(self._piece[:PIECE_BYTES]))
                del self._piece[:PIECE_BYTES]

    def close(self) -> None:
        if self._piece:
            self._hand_over(bytes(self._piece))
        self._file.close()
        self._sink.open_streams -= 1

    def _hand_over(self, piece: bytes) -> None:
        if self._inspect is not None:
            self._sink.inspect(self._inspect, piece, self._offset)
            self._offset += len(piece)


class FolderSink:
    """Entries become files below ``folder``; those beside the data and links are kept by path.

    ``on_bytes`` is called with the number of bytes so far, on the thread that captures.
    """

    def __init__(self, folder: Path, on_bytes: Callable[[int], None] = lambda _: None) -> None:
        self.folder = folder
        self.entries: list[Entry] = []
        self.links: dict[str, str] = {}
        self.bytes_written = 0
        self.expected_bytes: int | None = None
        self.open_streams = 0
        self.drained = False
        self._on_bytes = on_bytes
        self._open_file: BinaryIO | None = None
        self._pool = ThreadPoolExecutor(2)
        self._inspections: list[Future[None]] = []

    @property
    def paths(self) -> list[str]:
        return [entry.path for entry in self.entries]

    def content(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()

    def add(self, entry: Entry) -> None:
        assert self.open_streams == 0
        self.entries.append(entry)
        if entry.type is EntryType.FOLDER:
            (self.folder / entry.path).mkdir(parents=True, exist_ok=True)
        else:
            assert entry.link_target is not None
            self.links[entry.path] = entry.link_target

    def open(self, entry: Entry, inspect: Inspect | None = None) -> FolderStream:
        assert self.open_streams == 0
        assert (inspect is not None) == (entry.layout is Layout.PAGES)
        self.entries.append(entry)
        self.open_streams += 1
        path = self.folder / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._open_file = path.open("xb")
        return FolderStream(self, self._open_file, inspect)

    def abandon(self) -> None:
        """Let go of everything after a capture that failed."""
        self._pool.shutdown(cancel_futures=True)
        if self._open_file is not None:
            self._open_file.close()

    def drain(self) -> None:
        assert self.open_streams == 0
        self._pool.shutdown()
        for inspection in self._inspections:
            inspection.result()
        self.drained = True

    def expect(self, size_bytes: int) -> None:
        self.expected_bytes = size_bytes

    def inspect(self, inspect: Inspect, piece: bytes, offset: int) -> None:
        self._inspections.append(self._pool.submit(inspect, memoryview(piece), offset))

    def count(self, size: int) -> None:
        self.bytes_written += size
        self._on_bytes(self.bytes_written)

    def make_data_folder(self, into: Path) -> Path:
        """Lay the data out as a server wants it, tablespaces beside it; return the data folder."""
        data = into / "data"
        self.folder.rename(data)
        for name in data.glob(f"{BESIDE_PREFIX}*"):
            name.rename(into / name.name)
        for path in self.links:
            beside = into / f"tablespace-{Path(path).name}"
            (data / path).mkdir(parents=True, exist_ok=True)
            (data / path).rename(beside)
            (data / path).symlink_to(beside)
        data.chmod(0o700)
        return data
