"""A small world for whole backups: a source of known bytes, a store that can be copied, and what must always hold."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from blake3 import blake3

from holdfast.backup.taking import BackupOrder, BackupTaken, Surroundings, take_backup
from holdfast.model.events import Progress
from holdfast.model.secrets import Secret
from holdfast.repository.area import Area
from holdfast.repository.checking import AreaReport, check_area
from holdfast.repository.format.names import RunId
from holdfast.repository.format.record import BackupRecord
from holdfast.repository.history import live_records, read_history
from holdfast.repository.index.lookup import open_index
from holdfast.repository.keyring import KeyFile
from holdfast.repository.leases import Holder, this_process
from holdfast.repository.reading import ChunkReader, read_content, read_tree
from holdfast.repository.remembered import Remembered
from holdfast.repository.repository import Repository, create_repository, open_repository
from holdfast.sources.port import (
    Captured,
    CaptureRequest,
    Entry,
    EntryType,
    Identity,
    Layout,
    Probe,
    StreamSink,
    Tier,
)
from holdfast.storage.opening import open_store
from holdfast.storage.port import VOLATILE_PREFIX, Store
from holdfast.storage.settings import StoreSettings
from holdfast.storage.settled import RetryPolicy, SettledStore

KEY = KeyFile(Secret("holdfast-key-1 " + "5a" * 32))
APPLICATION, SOURCE = "shop-of-secrets", "orders-of-secrets"
SHORT_PERIOD_SECONDS = 0.15
QUICK = RetryPolicy(tries_max=6, wait_seconds_first=0.001, wait_seconds_max=0.004, waits_seconds_max=1.0)
Files = Mapping[str, bytes]


def content(version: int) -> dict[str, bytes]:
    """The files of a source at one version: most stay as they were, some change, one is new."""
    same = random.Random("same")
    changing = random.Random(f"version {version}")
    first = same.randbytes(700_000)
    return {
        "data/stays": first,
        "data/changes": same.randbytes(500_000) + changing.randbytes(200_000),
        "data/zeros": bytes(400_000),
        f"data/new-{version}": changing.randbytes(300_000),
        "blob": changing.randbytes(600_000),
        "note": f"the secret word of version {version} is xyzzy".encode(),
        "empty": b"",
    }


@dataclass
class FilesSource:
    """A source whose bytes are known. ``meanwhile`` is called in the middle of every capture."""

    files: Files
    meanwhile: Callable[[CaptureRequest], None] = lambda _: None
    kind: str = "postgres"

    def probe(self) -> Probe:
        return Probe(None, "", None, None, ())

    def capture(self, request: CaptureRequest, sink: StreamSink) -> Captured:
        begun = datetime.now(UTC)
        sink.add(Entry("data", EntryType.FOLDER, 0o700))
        for number, (path, data) in enumerate(self.files.items()):
            if number == 2:
                self.meanwhile(request)
            stream = sink.open(Entry(path, layout=Layout.PAGES if path.startswith("data/") else Layout.CONTENT))
            for start in range(0, len(data), 100_000):
                stream.write(data[start : start + 100_000])
            stream.close()
        sink.drain()
        identity = Identity("postgres", (("system_identifier", "1"),))
        return Captured(identity, "0/1..0/2", begun, datetime.now(UTC), {})


@dataclass
class World:
    """What tests drive: an executor and a memory of one host. Every call looks at a store afresh, as a process does."""

    executor: Executor
    folder: Path
    hosts: int = 0
    forgotten: list[str] = field(default_factory=list)

    @property
    def remembered(self) -> Remembered:
        return Remembered(self.folder / f"host-{self.hosts}", self.forgotten.append)

    def move_to_a_new_host(self) -> None:
        """Begin anew on a host that has seen nothing yet."""
        self.hosts += 1

    def around(self, **changes: object) -> Surroundings:
        plain = Surroundings(
            executor=self.executor,
            remembered=self.remembered,
            now=lambda: datetime.now(UTC),
            on_progress=ignore,
            stop_requested=lambda: False,
            on_lost_record=lambda _: None,
            lease_period_seconds=SHORT_PERIOD_SECONDS,
        )
        return replace(plain, **changes)  # type: ignore[arg-type]

    def backup(
        self, store: Store, version: int, tier: Tier = Tier.FULL, *, lane: str = "physical", **changes: object
    ) -> BackupTaken:
        """Take a backup of a version of the source through ``store``, which is retried and settled as always."""
        source = changes.pop("source", None) or FilesSource(content(version))
        assert isinstance(source, FilesSource)
        order = BackupOrder(tier, "physical", lane)
        return take_backup(area_of(settled(store)), source, order, self.around(**changes))

    def require_sound(self, store: Store, remembered: Remembered | None = None) -> list[BackupRecord]:
        """Require that every backup listed is whole, and gives exactly the bytes that the source had."""
        records = self.listed(store, remembered)
        for record in records:
            require_right(self.read_all(store, record))
        return records

    def listed(self, store: Store, remembered: Remembered | None = None) -> list[BackupRecord]:
        area = area_of(store)
        return live_records(area, read_history(area, self.executor, remembered))

    def read_all(self, store: Store, record: BackupRecord) -> dict[str, bytes]:
        """Return every file of a backup, every byte verified."""
        area = area_of(store)
        index = open_index(area, frozenset(), self.executor)
        try:
            reader = ChunkReader(area, index)
            return {
                entry.path: b"".join(read_content(reader, entry.ref, self.executor))
                for entry in read_tree(reader, record, self.executor)
                if entry.ref is not None
            }
        finally:
            index.close()

    def check(self, store: Store, remembered: Remembered | None = None) -> AreaReport:
        return check_area(area_of(store), self.executor, remembered, ignore, 100.0)


def ignore(_: Progress) -> None:
    """Watch nothing."""


def require_right(files: Files) -> None:
    """Require that these are the files of one version, byte for byte, and not a mixture."""
    word = files["note"].decode()
    assert dict(files) == content(int(word.split()[5])), f"a backup of another content than {word!r}"


def area_of(store: Store) -> Area:
    """Open the repository of a store anew and return its area."""
    repository = open_repository(store, [KEY])
    return Area(store, repository.store_id, repository.keys.area_of(APPLICATION, SOURCE), APPLICATION, SOURCE)


def make(store: Store) -> Repository:
    return create_repository(settled(store), KEY, "first", datetime.now(UTC))[0]


def settled(store: Store) -> SettledStore:
    """A store as the program uses it, but with short waits."""
    return store if isinstance(store, SettledStore) else SettledStore(store, QUICK)


Objects = dict[str, bytes]


def objects_of(store: Store) -> Objects:
    """Return every object of a store."""
    return {info.name: bytes(store.get(info.name)) for info in store.list("")}


def store_with(objects: Mapping[str, bytes]) -> Store:
    """Return a new store in memory that holds these objects."""
    store = open_store(StoreSettings("memory://"))
    for name, data in objects.items():
        if name.startswith(VOLATILE_PREFIX):
            store.put(name, data)
        else:
            store.create(name, data)
    return store


def digests_of(objects: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return a digest of every object that nothing in a backup may replace or delete."""
    return {name: blake3(data).digest() for name, data in objects.items() if not name.startswith(VOLATILE_PREFIX)}


def dead_here(run: RunId) -> Holder:
    """A process of this machine that does not run any more."""
    here = this_process(run)
    return replace(here, process=2**22 + 1, born="1")


def far_away(run: RunId) -> Holder:
    """A process of a machine that cannot be seen from here."""
    return Holder(run, "elsewhere", "another place", 7, "1")
