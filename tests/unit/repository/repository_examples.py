"""Small repositories, areas and sources for the tests of the repository, backup and restore rooms."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from holdfast.backup.taking import BackupOrder, BackupTaken, Surroundings, take_backup
from holdfast.model.secrets import Secret
from holdfast.repository.area import Area
from holdfast.repository.format.entry import Checkpoint, EntryKind, HistoryEntry
from holdfast.repository.format.keys import AreaKeys, RootKeys
from holdfast.repository.format.lists import ContentRef
from holdfast.repository.format.names import BackupId, RepositoryId, RunId, StoreId
from holdfast.repository.format.record import BackupRecord
from holdfast.repository.history import read_history, record_of
from holdfast.repository.index.lookup import open_index
from holdfast.repository.keyring import KeyFile
from holdfast.repository.reading import ChunkReader, read_content, read_tree
from holdfast.repository.remembered import Remembered
from holdfast.sources.port import (
    Captured,
    CaptureRequest,
    Entry,
    EntryType,
    Identity,
    Inspect,
    Layout,
    Probe,
    StreamSink,
    Tier,
)
from holdfast.storage.folder import FolderStore
from holdfast.storage.opening import open_store
from holdfast.storage.port import Store
from holdfast.storage.settings import StoreSettings
from holdfast.storage.settled import RetryPolicy, SettledStore

NOW = datetime(2026, 3, 1, 12, 0, 0, 250000, tzinfo=UTC)
REPOSITORY = RepositoryId(bytes(range(16)))
STORE = StoreId(bytes(range(16, 32)))
ROOT = bytes(range(32, 64))
RUN = RunId("ab" * 16)


def key_file(byte: int = 1) -> KeyFile:
    """Return a key file's secret; another byte is another secret. Cheap, unlike a passphrase."""
    return KeyFile(Secret(f"holdfast-key-1 {bytes([byte] * 32).hex()}"))


def settled(store: Store) -> SettledStore:
    return SettledStore(store, RetryPolicy(tries_max=3, wait_seconds_first=0.001, wait_seconds_max=0.002))


def memory() -> SettledStore:
    return settled(open_store(StoreSettings("memory://")))


def in_folder(folder: Path) -> SettledStore:
    return settled(FolderStore(folder))


def area_keys(
    application: str = "shop", source: str = "orders", *, repository: RepositoryId = REPOSITORY, root: bytes = ROOT
) -> AreaKeys:
    roots = RootKeys(repository, {1: root}, 1)
    return roots.area_keys(roots.area_id(application, source))


def area_of(store: Store | None = None, application: str = "shop", source: str = "orders") -> Area:
    """Return an area of a store that holds no slots: its keys are made up."""
    held = store if store is not None else memory()
    return Area(held, STORE, area_keys(application, source), application, source)


@dataclass(frozen=True, slots=True)
class File:
    """What a made-up source yields under a path; written in slices of ``slice_bytes``."""

    content: bytes
    layout: Layout = Layout.CONTENT
    slice_bytes: int = 1 << 20
    inspect: Inspect | None = None


@dataclass(slots=True)
class FileSource:
    """A source that yields what it is given, then raises ``error`` if there is one."""

    files: Mapping[str, File | bytes]
    error: BaseException | None = None
    kind: str = "postgres"
    requests: list[CaptureRequest] = field(default_factory=list)

    def probe(self) -> Probe:
        return Probe(None, "1", None, None, ())

    def capture(self, request: CaptureRequest, sink: StreamSink) -> Captured:
        self.requests.append(request)
        sink.add(Entry("folder", EntryType.FOLDER, 0o700))
        for path, given in self.files.items():
            file = given if isinstance(given, File) else File(given)
            stream = sink.open(Entry(path, layout=file.layout), file.inspect)
            for start in range(0, len(file.content), file.slice_bytes):
                stream.write(file.content[start : start + file.slice_bytes])
            stream.close()
        if self.error is not None:
            raise self.error
        return Captured(Identity("postgres", (("system_identifier", "7"),)), "0/1 to 0/2", NOW, NOW, {"shape": "test"})


def surroundings(executor: Executor, folder: Path) -> Surroundings:
    return Surroundings(executor, Remembered(folder), lambda: NOW, lambda _: None, lambda: False, lambda _: None)


def take(
    area: Area,
    files: Mapping[str, File | bytes],
    executor: Executor,
    tier: Tier = Tier.FULL,
    folder: Path | None = None,
) -> BackupTaken:
    """Take a backup of made-up files."""
    with tempfile.TemporaryDirectory() as fresh:
        around = surroundings(executor, folder or Path(fresh))
        return take_backup(area, FileSource(files), BackupOrder(tier, "physical", "physical"), around)


def live(area: Area, executor: Executor) -> list[BackupRecord]:
    history = read_history(area, executor, None)
    return [record_of(area, entry) for entry in history.live_entries()]


def contents(area: Area, record: BackupRecord, executor: Executor) -> dict[str, bytes]:
    """Return every file of a backup, read back."""
    index = open_index(area, frozenset(), executor)
    try:
        reader = ChunkReader(area, index)
        return {
            entry.path: b"".join(read_content(reader, entry.ref, executor))
            for entry in read_tree(reader, record, executor)
            if entry.ref is not None
        }
    finally:
        index.close()


def record_like(backup: str = "cd" * 16, **changes: object) -> BackupRecord:
    record = BackupRecord(
        id=BackupId(backup),
        application="shop",
        source="orders",
        kind="postgres",
        form="physical",
        tier="full",
        parent=None,
        started_at=NOW,
        ended_at=NOW,
        run=RUN,
        host="here",
        program="0.1.0",
        identity=(("system_identifier", "7"),),
        position="0/1 to 0/2",
        details={"shape": "test"},
        tree=ContentRef(0),
        entries=0,
        size_bytes=0,
        stored_bytes=0,
        damage=(),
        damage_total=0,
        notices=(),
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def entry_like(kind: EntryKind, backups: Sequence[str] = (), **changes: object) -> HistoryEntry:
    """Return an entry to be put; number and chain are filled in by ``append``."""
    entry = HistoryEntry(
        number=0,
        kind=kind,
        previous=None,
        host="here",
        run=RUN,
        at=NOW,
        backups=tuple(BackupId(backup) for backup in backups),
        checkpoint=Checkpoint(),
    )
    return replace(entry, **changes)  # type: ignore[arg-type]


def backup_entry(area: Area, backup: str = "cd" * 16) -> HistoryEntry:
    return entry_like(EntryKind.BACKUP, [backup], record=area.seal_record(record_like(backup)))


def object_names(store: Store, prefix: str = "") -> list[str]:
    return [info.name for info in store.list(prefix)]


def replace_object(store: Store, name: str, data: bytes) -> None:
    """Do what only somebody with rights on the store can: put other bytes under a name."""
    store.delete(name)
    store.create(name, data)


def flipped(data: bytes | bytearray | memoryview, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit >> 3] ^= 1 << (bit & 7)
    return bytes(changed)


def slices(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """Cut data into pieces of the sizes given, over and over."""
    start = number = 0
    while start < len(data):
        size = sizes[number % len(sizes)]
        yield data[start : start + size]
        start += size
        number += 1
