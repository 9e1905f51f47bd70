"""A stored backup as the content that a source reads back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor

from holdfast.model.errors import SourceFailed
from holdfast.repository.format.record import BackupRecord
from holdfast.repository.format.tree import check_tree
from holdfast.repository.reading import ChunkReader, read_content, read_tree
from holdfast.restore.folder import stored_entry
from holdfast.sources.port import StoredEntry


class RepositoryContent:
    """The entries of one backup and their bytes, every chunk verified. Keeps the ``Content`` contract."""

    def __init__(self, reader: ChunkReader, record: BackupRecord, executor: Executor) -> None:
        self._reader = reader
        self._executor = executor
        self._tree = list(read_tree(reader, record, executor))
        check_tree(f"the tree of backup {record.id}", self._tree)
        self._entries = tuple(stored_entry(entry) for entry in self._tree)

    @property
    def entries(self) -> Sequence[StoredEntry]:
        """Every entry, in the order of the capture."""
        return self._entries

    def open(self, index: int) -> Iterator[bytes]:
        """Yield the content of the file at ``index``."""
        ref = self._tree[index].ref
        if ref is None:
            raise SourceFailed(f"{self._tree[index].path} has no content")
        yield from read_content(self._reader, ref, self._executor)
