"""References to streams and the two-level lists behind them (docs/format.md, section 6)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.model.documents import JsonObject
from holdfast.repository.format.container import PLAIN_BYTES_MAX, broken
from holdfast.repository.format.names import ChunkId

LEAF_ROWS_MAX = 512
LEAF_ROW = struct.Struct("<32sI")
ROOT_ROW = struct.Struct("<32sQ")


@dataclass(frozen=True, slots=True)
class ChunkRef:
    """One chunk of a stream: its id and plain length."""

    id: ChunkId
    length: int


@dataclass(frozen=True, slots=True)
class ContentRef:
    """What stands for a whole stream. ``id`` is None only for the empty one."""

    size: int
    depth: int = 0
    id: ChunkId | None = None

    def to_document(self) -> JsonObject:
        if self.id is None:
            return {"size": self.size}
        return {"size": self.size, "depth": self.depth, "id": self.id.hex()}


def parse_ref(what: str, document: object) -> ContentRef:
    """Read a reference; raises ``IntegrityBroken`` for anything that cannot be one."""
    if not isinstance(document, dict):
        raise broken(what, "it holds no content reference where one belongs")
    size, depth, text = document.get("size"), document.get("depth", 0), document.get("id")
    if not isinstance(size, int) or size < 0 or depth not in (0, 1, 2) or (text is None) != (size == 0):
        raise broken(what, "it holds an impossible content reference")
    if text is None:
        return ContentRef(0)
    try:
        chunk = bytes.fromhex(str(text))
    except ValueError as error:
        raise broken(what, "a content reference names no chunk") from error
    if len(chunk) != 32 or (depth == 0 and size > PLAIN_BYTES_MAX):
        raise broken(what, "it holds an impossible content reference")
    return ContentRef(size, int(depth), ChunkId(chunk))


def encode_leaf(rows: list[ChunkRef]) -> bytes:
    return b"".join(LEAF_ROW.pack(row.id, row.length) for row in rows)


def encode_root(rows: list[tuple[ChunkId, int]]) -> bytes:
    return b"".join(ROOT_ROW.pack(leaf, size) for leaf, size in rows)


def parse_leaf(what: str, plain: bytes, size: int) -> list[ChunkRef]:
    """Read a leaf that stands for ``size`` bytes; raises ``IntegrityBroken``."""
    if len(plain) % LEAF_ROW.size or not 0 < len(plain) <= LEAF_ROWS_MAX * LEAF_ROW.size:
        raise broken(what, f"a list of {len(plain)} bytes is none")
    rows = [ChunkRef(ChunkId(chunk), length) for chunk, length in LEAF_ROW.iter_unpack(plain)]
    if sum(row.length for row in rows) != size or not all(0 < row.length <= PLAIN_BYTES_MAX for row in rows):
        raise broken(what, "the lengths in a list do not add up")
    return rows


def parse_root(what: str, plain: bytes, size: int) -> list[tuple[ChunkId, int]]:
    """Read a root that stands for ``size`` bytes; raises ``IntegrityBroken``."""
    if len(plain) % ROOT_ROW.size or not plain:
        raise broken(what, f"a list of {len(plain)} bytes is none")
    rows = [(ChunkId(leaf), length) for leaf, length in ROOT_ROW.iter_unpack(plain)]
    if sum(length for _, length in rows) != size:
        raise broken(what, "the lengths in a list do not add up")
    return rows


def cut_leaves(rows: list[ChunkRef]) -> Iterator[list[ChunkRef]]:
    for start in range(0, len(rows), LEAF_ROWS_MAX):
        yield rows[start : start + LEAF_ROWS_MAX]
