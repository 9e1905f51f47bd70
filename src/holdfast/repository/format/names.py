"""Names of objects in a store (docs/format.md, section 2)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import NamedTuple, NewType

RepositoryId = NewType("RepositoryId", bytes)
AreaId = NewType("AreaId", bytes)
SlotId = NewType("SlotId", bytes)
StoreId = NewType("StoreId", bytes)
BackupId = NewType("BackupId", str)
RunId = NewType("RunId", str)
PackName = NewType("PackName", bytes)
ChunkId = NewType("ChunkId", bytes)

IDENTITY = "identity"
STORE = "store"
SLOTS = "slots/"
EPOCHS = "epochs/"
CATALOG = "catalog/"
HISTORY_NUMBER_MAX = 10**12 - 1

_PACK = re.compile(r"areas/[0-9a-f]{32}/packs/([0-9a-f]{2})/([0-9a-f]{64})")
_CATALOG = re.compile(r"catalog/([0-9a-f]{32})/[0-9a-f]{64}")
_HISTORY = re.compile(r"areas/[0-9a-f]{32}/history/([0-9]{12})")
_SPAN = re.compile(r"([0-9a-f]{32})/(?:([0-9a-f]{16})-([0-9a-f]{16})-([0-9a-f]{64})|generation)")


class SpanName(NamedTuple):
    """What a span's name says: generation, positions ``[start, end)``, object hash. A tuple: there are very many."""

    generation: str
    start: int
    end: int
    digest: str


def slot(slot_id: SlotId) -> str:
    return f"{SLOTS}{slot_id.hex()}"


def epoch(number: int) -> str:
    return f"{EPOCHS}{number:08d}"


def catalog(area: AreaId) -> str:
    return f"{CATALOG}{area.hex()}/"


def catalog_entry(area: AreaId, object_hash: bytes) -> str:
    return f"{catalog(area)}{object_hash.hex()}"


def parse_catalog(name: str) -> AreaId | None:
    """Return the area that a listed catalog name speaks of, None for any other name."""
    match = _CATALOG.fullmatch(name)
    return AreaId(bytes.fromhex(match[1])) if match else None


def packs(area: AreaId) -> str:
    return f"areas/{area.hex()}/packs/"


def pack(area: AreaId, name: PackName) -> str:
    return f"{packs(area)}{name.hex()[:2]}/{name.hex()}"


def history(area: AreaId) -> str:
    return f"areas/{area.hex()}/history/"


def history_entry(area: AreaId, number: int) -> str:
    return f"{history(area)}{number:012d}"


def runs(area: AreaId) -> str:
    return f"areas/{area.hex()}/runs/"


def run(area: AreaId, started_at: datetime, run_id: RunId) -> str:
    return f"{runs(area)}{started_at.astimezone(UTC):%Y%m%dt%H%M%Sz}-{run_id}"


def index(area: AreaId) -> str:
    return f"volatile/areas/{area.hex()}/index/"


def index_segment(area: AreaId, object_hash: bytes) -> str:
    return f"{index(area)}{object_hash.hex()}"


def lease(area: AreaId, lane: str) -> str:
    return f"volatile/areas/{area.hex()}/leases/{lane}"


def log(area: AreaId) -> str:
    return f"areas/{area.hex()}/log/"


def log_generation(area: AreaId, generation: str) -> str:
    return f"{log(area)}{generation}/generation"


def log_span(area: AreaId, span: SpanName) -> str:
    return f"{log(area)}{span.generation}/{span.start:016x}-{span.end:016x}-{span.digest}"


def parse_log(place: str, name: str) -> SpanName | str | None:
    """Return the span, or the id of the generation, that a listed name stands for; None for any other name.

    ``place`` is what ``log`` returns: there are very many names.
    """
    match = _SPAN.fullmatch(name, len(place)) if name.startswith(place) else None
    if match is None:
        return None
    generation, start, end, digest = match.groups()
    if start is None:
        return str(generation)
    first, stop = int(start, 16), int(end, 16)
    return SpanName(generation, first, stop, digest) if first < stop else None


def parse_pack(name: str) -> PackName | None:
    """Return the pack a listed name stands for, None for a name that is no pack's."""
    match = _PACK.fullmatch(name)
    if match is None or not match[2].startswith(match[1]):
        return None
    return PackName(bytes.fromhex(match[2]))


def parse_history(name: str) -> int | None:
    """Return the number a listed history name stands for, None for any other name."""
    match = _HISTORY.fullmatch(name)
    return int(match[1]) if match else None
