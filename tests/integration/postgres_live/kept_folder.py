"""A logical backup in a plain folder, which another process can read as the content of a backup."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.integration.postgres_nasty.kept import PIECE_BYTES, KeptSink

from holdfast.sources.port import CaptureRequest, Entry, StoredEntry, Tier
from holdfast.sources.postgres.logical.capture import LogicalSource
from holdfast.sources.postgres.logical.names import WITNESS, Selection
from holdfast.sources.postgres.settings import PostgresSettings

INDEX = "index.json"


class FolderContent:
    """What ``keep`` put into a folder."""

    def __init__(self, folder: Path) -> None:
        rows = json.loads((folder / INDEX).read_text())
        self._entries = [StoredEntry(Entry(path), size) for path, size, _ in rows]
        self._files = [Path(file) for _, _, file in rows]

    @property
    def entries(self) -> Sequence[StoredEntry]:
        return self._entries

    def open(self, index: int) -> Iterator[bytes]:
        with self._files[index].open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                yield piece

    def file(self, path: str) -> Path:
        """Tell where an entry lies, to damage it."""
        return next(file for stored, file in zip(self._entries, self._files, strict=True) if stored.entry.path == path)

    @property
    def witness(self) -> Path:
        return self.file(WITNESS)


def keep(settings: PostgresSettings, folder: Path, database: str | None = None) -> Path:
    """Take a logical backup into a new folder; None is every database."""
    sink = KeptSink(folder)
    selection = Selection(database) if database is not None else None
    try:
        LogicalSource("shop", settings, selection).capture(CaptureRequest(Tier.FULL), sink)
    finally:
        sink.abandon()
    rows = [(stored.entry.path, stored.size_bytes, str(path)) for stored, path in sink.kept]
    (folder / INDEX).write_text(json.dumps(rows))
    return folder
