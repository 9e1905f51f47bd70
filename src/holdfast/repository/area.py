"""One area of an opened repository: its keys, its names, and its objects one at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from holdfast.model.documents import JsonObject, encode_document, format_time
from holdfast.model.errors import IntegrityBroken, KeyInvalid, NotFound
from holdfast.repository.format import names
from holdfast.repository.format.container import (
    HEADER,
    SIZE_MAX,
    TRAILER,
    Claim,
    ContainerBuilder,
    ObjectType,
    Opener,
    Trailer,
    broken,
    open_toc,
    open_whole,
    parse_header,
    parse_trailer,
    read_frames,
)
from holdfast.repository.format.keys import AreaKeys
from holdfast.repository.format.names import BackupId, PackName, RunId, StoreId
from holdfast.repository.format.record import RECORD_BYTES_MAX, BackupRecord, encode_record, parse_record
from holdfast.repository.index.rows import PackFacts
from holdfast.storage.port import Data, Store

TAIL_BYTES = 65536
SMALL_OBJECT_BYTES_MAX = 64 << 20


def fetch(store: Store, what: str, kind: ObjectType, name: str) -> Data:
    """Read a small object whole, and no more of it than one of its type may have; raises ``IntegrityBroken``."""
    data = store.get(name, 0, SIZE_MAX[kind] + 1)
    if len(data) > SIZE_MAX[kind]:
        raise broken(what, f"it is larger than {SIZE_MAX[kind]} bytes")
    return data


@dataclass(frozen=True, slots=True)
class Area:
    """Where the backups of one source lie, and what opens them."""

    store: Store
    store_id: StoreId
    keys: AreaKeys
    application: str
    source: str

    @property
    def title(self) -> str:
        return f"{self.application}/{self.source}"

    def claim(self, kind: ObjectType, claim: bytes = b"") -> Claim:
        return Claim(kind, self.keys.repository, self.keys.area, claim)

    def pack_claim(self, *, is_list: bool) -> Claim:
        return self.claim(ObjectType.LIST_PACK if is_list else ObjectType.DATA_PACK)

    @property
    def sealing_key(self) -> tuple[int, bytes]:
        """Epoch and input key of new objects; raises ``KeyInvalid`` where the slot at hand is of an older epoch."""
        return self.keys.current_epoch, self.keys.of_epoch(self.keys.current_epoch)

    def builder(self, claim: Claim, capacity: int = 0) -> ContainerBuilder:
        epoch, material = self.sealing_key
        return ContainerBuilder(claim, material, epoch, capacity=capacity)

    def seal(self, claim: Claim, frames: list[bytes]) -> tuple[Data, bytes]:
        """Return the bytes and the hash of a small object."""
        builder = self.builder(claim)
        for frame in frames:
            builder.add_plain(frame)
        return builder.finish()

    def fetch(self, what: str, kind: ObjectType, name: str) -> Data:
        """Read a small object whole, and no more of it than one of its type may have; raises ``IntegrityBroken``."""
        return fetch(self.store, what, kind, name)

    def open(self, what: str, claim: Claim, data: Data) -> list[bytes]:
        """Return the plain frames of a small object; raises ``IntegrityBroken``."""
        return self.open_with_header(what, claim, data)[1]

    def open_with_header(self, what: str, claim: Claim, data: Data) -> tuple[Opener, list[bytes]]:
        """Return a small object's opener and plain frames; raises ``IntegrityBroken``."""
        opener = open_whole(what, claim, self.keys.of_epoch, data)
        return opener, read_frames(opener, data)

    def catalog(self, kind: str, now: datetime) -> None:
        """Put the names behind this area where no sound object tells them yet."""
        entry = read_catalog(self)
        if entry is not None and (entry.application, entry.source) != (self.application, self.source):
            raise broken(f"the catalog entry of {self.title}", "it names another source")
        if entry is None:
            document: JsonObject = {
                "application": self.application,
                "source": self.source,
                "kind": kind,
                "created_at": format_time(now),
            }
            data, digest = self.seal(self.claim(ObjectType.CATALOG), [encode_document(document)])
            self.store.create(names.catalog_entry(self.keys.area, digest), data)

    def list_packs(self) -> dict[PackName, int]:
        """Return every pack with its size, as listed now."""
        found: dict[PackName, int] = {}
        for info in self.store.list(names.packs(self.keys.area)):
            pack = names.parse_pack(info.name)
            if pack is not None:
                found[pack] = info.size_bytes
        return found

    def open_pack_table(self, name: PackName, data: memoryview) -> tuple[PackFacts, Opener]:
        """Prove header and table of contents of a pack in memory; raises ``IntegrityBroken``."""
        return self._pack_table(name, len(data), lambda start, end: data[start:end])

    def read_pack_table(self, name: PackName, size: int) -> tuple[PackFacts, Opener]:
        """Read and prove a pack's header and table of contents, not its chunks; raises ``IntegrityBroken``."""
        path = names.pack(self.keys.area, name)
        return self._pack_table(name, size, lambda start, end: self.store.get(path, start, end))

    def _pack_table(self, name: PackName, size: int, read: Callable[[int, int], Data]) -> tuple[PackFacts, Opener]:
        what = f"pack {name.hex()[:12]}"
        if size > SIZE_MAX[ObjectType.DATA_PACK]:
            raise broken(what, f"it is {size} bytes long, more than a pack may have")
        start = max(0, size - TAIL_BYTES)
        tail = bytes(read(start, size))
        trailer = parse_trailer(what, tail[-TRAILER.size :], size)
        self._check_name(what, name, trailer)
        if trailer.toc_offset < start:
            tail = bytes(read(trailer.toc_offset, size))
            start = trailer.toc_offset
        header = parse_header(what, tail if start == 0 else read(0, HEADER.size))
        is_list = header.type is ObjectType.LIST_PACK
        sealed = tail[trailer.toc_offset - start :][: trailer.toc_length]
        material = self.keys.of_epoch(header.epoch)
        opener = open_toc(what, self.pack_claim(is_list=is_list), material, header, trailer, sealed)
        return PackFacts(name, size, is_list), opener

    @staticmethod
    def _check_name(what: str, name: PackName, trailer: Trailer) -> None:
        if trailer.object_hash != name:
            raise broken(what, "it is another pack than its name says")

    def pack_cipher(self, what: str, head: Data, *, is_list: bool) -> AESGCM:
        """Return the cipher of a pack's frames from its first 64 bytes; raises ``IntegrityBroken``."""
        header = parse_header(what, head)
        return self.pack_claim(is_list=is_list).cipher(self.keys.of_epoch(header.epoch), header.salt)

    def seal_record(self, record: BackupRecord) -> bytes:
        """Return the sealed record; raises ``IntegrityBroken`` where it does not fit (a bug: parts are bounded)."""
        data, _ = self.seal(self.claim(ObjectType.RECORD, bytes.fromhex(record.id)), [encode_record(record)])
        if len(data) > RECORD_BYTES_MAX:
            raise IntegrityBroken(
                f"the record of backup {record.id} is {len(data)} bytes long, more than {RECORD_BYTES_MAX}",
                hint="Report this with the output of `holdfast doctor`.",
            )
        return bytes(data)

    def open_record(self, backup: BackupId, data: bytes) -> BackupRecord:
        what = f"the record of backup {backup}"
        frames = self.open(what, self.claim(ObjectType.RECORD, bytes.fromhex(backup)), data)
        record = parse_record(what, frames[0])
        if (record.id, record.application, record.source) != (backup, self.application, self.source):
            raise broken(what, "it speaks of another backup")
        return record

    def put_run(self, started_at: datetime, run: RunId, document: JsonObject) -> None:
        """Keep what a run did."""
        name = names.run(self.keys.area, started_at, run)
        claim = self.claim(ObjectType.RUN, name.rsplit("/", 1)[1].encode())
        self.store.create(name, self.seal(claim, [encode_document(document)])[0])

    def runs(self) -> Iterator[JsonObject]:
        """Yield the documents of all runs, oldest first."""
        for info in self.store.list(names.runs(self.keys.area)):
            last = info.name.rsplit("/", 1)[1]
            data = self.fetch(f"run {last}", ObjectType.RUN, info.name)
            document = json.loads(self.open(f"run {last}", self.claim(ObjectType.RUN, last.encode()), data)[0])
            yield document


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    application: str
    source: str
    kind: str


CATALOG_TRIES_MAX = 16


def read_catalog(area: Area) -> CatalogEntry | None:
    """Read the names behind an area from any object that opens; None where there is none."""
    for tried, info in enumerate(area.store.list(names.catalog(area.keys.area))):
        if tried >= CATALOG_TRIES_MAX:
            break
        what = f"catalog entry {area.keys.area.hex()[:8]}"
        try:
            data = area.fetch(what, ObjectType.CATALOG, info.name)
            document = json.loads(area.open(what, area.claim(ObjectType.CATALOG), data)[0])
            return CatalogEntry(str(document["application"]), str(document["source"]), str(document["kind"]))
        except (IntegrityBroken, KeyInvalid, NotFound, ValueError, KeyError):
            continue  # garbage beside the sound one costs a look
    return None
