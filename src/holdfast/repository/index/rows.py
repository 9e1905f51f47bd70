"""The columns of an index as arrays: ids split for searching, rows as stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from holdfast.repository.format.container import Frame
from holdfast.repository.format.names import ChunkId, PackName

U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]
U8 = npt.NDArray[np.uint8]

ROW = np.dtype(
    [
        ("rest", "V20"),
        ("pack", "<u4"),
        ("offset", "<u4"),
        ("stored", "<u4"),
        ("plain", "<u4"),
        ("frame", "<u4"),
    ]
)
PACK_ROW = np.dtype([("name", "V32"), ("size", "<u8"), ("class", "<u4"), ("state", "<u4")])
COUNTER_BITS = 24
COUNTER_MASK = (1 << COUNTER_BITS) - 1

Rows = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class PackFacts:
    """A pack as an index knows it. ``size`` is of the whole object, in bytes.

    A distrusted one was read back and found broken: what is sound in it is read, and nothing new counts on it.
    """

    name: PackName
    size: int
    is_list: bool
    distrusted: bool = False


class Location(NamedTuple):
    """Where a chunk lies: its frame in a pack. A tuple: they are made by the million."""

    pack: PackFacts
    frame: Frame


def split_ids(ids: U8) -> tuple[U64, U32, U8]:
    """Split (n, 32) bytes of ids into the first 8 bytes, the next 4, and the other 20."""
    contiguous = np.ascontiguousarray(ids)
    high = np.ascontiguousarray(contiguous[:, :8]).view(">u8")[:, 0].astype(np.uint64)
    low = np.ascontiguousarray(contiguous[:, 8:12]).view(">u4")[:, 0].astype(np.uint32)
    return high, low, contiguous[:, 12:]


def ids_array(ids: Sequence[ChunkId] | bytes) -> U8:
    joined = ids if isinstance(ids, bytes) else b"".join(ids)
    return np.frombuffer(joined, np.uint8).reshape(-1, 32)


def rows_of_pack(frames: Sequence[Frame], ids: bytes, pack_number: int) -> tuple[U64, U32, Rows]:
    """Return the columns for one pack's frames, in the order of the pack."""
    high, low, rest = split_ids(ids_array(ids))
    rows = np.zeros(len(frames), ROW)
    rows["rest"] = np.ascontiguousarray(rest).view("V20")[:, 0]
    rows["pack"] = pack_number
    rows["offset"] = [frame.offset for frame in frames]
    rows["stored"] = [frame.stored for frame in frames]
    rows["plain"] = [frame.plain for frame in frames]
    rows["frame"] = [frame.counter | (frame.algorithm << COUNTER_BITS) for frame in frames]
    return high, low, rows


def frame_of_row(row: np.void) -> Frame:
    packed = int(row["frame"])
    return Frame(
        packed & COUNTER_MASK, packed >> COUNTER_BITS, int(row["offset"]), int(row["stored"]), int(row["plain"])
    )


def locations_of(packs: Sequence[PackFacts], rows: Rows) -> Iterator[Location]:
    """Return, in order, where the chunks of rows lie; ``packs`` is the pack table the rows count in."""
    packed = rows["frame"]
    columns = (packed & COUNTER_MASK, packed >> COUNTER_BITS, rows["offset"], rows["stored"], rows["plain"])
    # Made without a call into Python for each: they come ten thousand at a time.
    frames = map(partial(tuple.__new__, Frame), zip(*(column.tolist() for column in columns), strict=True))
    packs_of_rows = map(packs.__getitem__, rows["pack"].tolist())
    return map(partial(tuple.__new__, Location), zip(packs_of_rows, frames, strict=True))


def encode_packs(packs: Sequence[PackFacts]) -> bytes:
    rows = np.zeros(len(packs), PACK_ROW)
    for number, pack in enumerate(packs):
        rows[number] = (bytes(pack.name), pack.size, int(pack.is_list), int(pack.distrusted))
    return rows.tobytes()


def decode_packs(plain: bytes) -> list[PackFacts]:
    rows = np.frombuffer(plain, PACK_ROW)
    return [
        PackFacts(PackName(bytes(row["name"])), int(row["size"]), bool(row["class"]), bool(row["state"]))
        for row in rows
    ]
