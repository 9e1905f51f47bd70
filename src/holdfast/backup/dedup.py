"""Decides for each chunk whether this run must store it, and remembers every pack the backup counts on."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence

from blake3 import blake3

from holdfast.model.errors import IntegrityBroken, NotFound
from holdfast.repository.area import Area
from holdfast.repository.format import names
from holdfast.repository.format.container import HASH_BYTES
from holdfast.repository.format.names import ChunkId, PackName
from holdfast.repository.index.lookup import ChunkIndex
from holdfast.repository.index.rows import Location, PackFacts

SAMPLE_SHARE = 0.05
"""The part of reused packs that a full backup reads back."""


class Deduplicator:
    """Shared by the workers and the packer. Thread-safe.

    ``sample`` is the share of reused packs that are read back and verified before anything counts on them.
    """

    def __init__(self, area: Area, index: ChunkIndex, sample: float, chance: random.Random) -> None:
        self._area = area
        self._index = index
        self._sample = sample
        self._chance = chance
        self._lock = threading.Lock()
        self._pending: set[ChunkId] = set()
        self._arrivals = 0
        self._trusted: dict[PackName, int] = {}
        self.distrusted: dict[PackName, str] = {}
        self.reused_bytes = 0

    @property
    def packs(self) -> dict[PackName, int]:
        """Every pack the backup counts on, with the size it should have."""
        with self._lock:
            return dict(self._trusted)

    def must_store(self, chunks: Sequence[ChunkId]) -> list[bool]:
        """Tell for each chunk whether the caller must store it: exactly one caller is told so for a new one."""
        while True:
            with self._lock:
                arrivals = self._arrivals
            found = self._index.find(chunks)
            broken = [at.pack for at in found if at is not None and not self._trust(at.pack)]
            if not broken:
                return [self._decide(chunk, at, arrivals) for chunk, at in zip(chunks, found, strict=True)]
            for pack in broken:
                self._index.forget(pack.name)

    def _decide(self, chunk: ChunkId, location: Location | None, arrivals: int) -> bool:
        with self._lock:
            if location is not None:
                self.reused_bytes += location.frame.plain
                return False
            if chunk in self._pending:
                return False
            # A pack that arrived since the look-up may hold it: it is pending no more and was not found yet.
            if self._arrivals != arrivals and self._index.find([chunk])[0] is not None:
                return False
            self._pending.add(chunk)
            return True

    def arrived(self, pack: PackFacts, ids: bytes) -> None:
        """Note that a pack of this run is durable and in the index."""
        with self._lock:
            self._trusted[pack.name] = pack.size
            self._arrivals += 1
            for start in range(0, len(ids), 32):
                self._pending.discard(ChunkId(ids[start : start + 32]))

    def _trust(self, pack: PackFacts) -> bool:
        with self._lock:
            if pack.name in self._trusted:
                return True
            if pack.name in self.distrusted:
                return False
            chosen = self._chance.random() < self._sample
        reason = self._verify(pack) if chosen else None
        with self._lock:
            if reason is None:
                self._trusted[pack.name] = pack.size
            else:
                self.distrusted[pack.name] = reason
        return reason is None

    def _verify(self, pack: PackFacts) -> str | None:
        """Read a whole pack back; return what is wrong with it."""
        try:
            data = memoryview(self._area.store.get(names.pack(self._area.keys.area, pack.name)))
        except (IntegrityBroken, NotFound) as error:
            return str(error)
        if len(data) != pack.size or blake3(data[:-HASH_BYTES]).digest() != pack.name:
            return "its bytes changed since they were written"
        return None
