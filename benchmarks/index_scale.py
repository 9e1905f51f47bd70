"""An index of many chunks in a folder repository: time to open it, memory, and look-ups of 10,000 at a time.

python -m benchmarks.index_scale [ROWS]     80,000,000 rows are 10 TB in chunks of 128 KiB; takes 9 GB of disk
"""

from __future__ import annotations

import gc
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from holdfast.interfaces.cli.main import COLLECT_EVERY_OBJECTS
from holdfast.model.secrets import Secret
from holdfast.repository.area import Area
from holdfast.repository.format import names
from holdfast.repository.format.container import ObjectType
from holdfast.repository.format.names import ChunkId, PackName
from holdfast.repository.index.lookup import open_index
from holdfast.repository.index.rows import ROW, PackFacts
from holdfast.repository.index.writing import Columns, write_segment
from holdfast.repository.keyring import Passphrase
from holdfast.repository.repository import create_repository, open_repository
from holdfast.storage.folder import FolderStore
from holdfast.storage.settled import SettledStore

ROWS = 80_000_000
CHUNKS_PER_PACK = 1024
PACK_BYTES = 4096
BATCH = 10_000
BATCHES = 10
SLICE = 1_000_000
PASSPHRASE = "a passphrase for a measurement"


def area_at(folder: Path) -> Area:
    store = SettledStore(FolderStore(folder))
    opened = open_repository(store, [Passphrase(Secret(PASSPHRASE))])
    return Area(store, opened.store_id, opened.keys.area_of("bench", "index"), "bench", "index")


def ids_of_slice(number: int, count: int) -> bytes:
    """Return the same random ids for the same slice each time, so that the measuring process needs no list of them."""
    return np.random.default_rng(number).bytes(32 * count)


def make(folder: Path, rows: int) -> None:
    """Write packs of the right names (their content is never read here) and one segment that covers them."""
    create_repository(SettledStore(FolderStore(folder)), Passphrase(Secret(PASSPHRASE)), "bench", datetime.now(UTC))
    area = area_at(folder)
    packs = []
    for _ in range(-(-rows // CHUNKS_PER_PACK)):
        name = PackName(secrets.token_bytes(32))
        path = folder / names.pack(area.keys.area, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(PACK_BYTES))
        packs.append(PackFacts(name, PACK_BYTES, is_list=False))
    raw = np.empty((rows, 12), np.uint8)
    for start in range(0, rows, SLICE):
        count = min(SLICE, rows - start)
        raw[start : start + count] = np.frombuffer(ids_of_slice(start // SLICE, count), np.uint8).reshape(-1, 32)[
            :, :12
        ]
    high = np.ascontiguousarray(raw[:, :8]).view(">u8")[:, 0].astype(np.uint64)
    order = np.argsort(high, kind="stable")
    path = folder / "segment"
    claim = area.claim(ObjectType.INDEX)
    digest = write_segment(path, claim, area.sealing_key, packs, rows, _columns(high, raw, order))
    area.store.put(names.index_segment(area.keys.area, digest), path)
    path.unlink()


def _columns(high: np.ndarray, raw: np.ndarray, order: np.ndarray) -> Iterator[Columns]:
    rests: dict[int, np.ndarray] = {}
    for number in range(-(-len(order) // SLICE)):
        count = min(SLICE, len(order) - number * SLICE)
        rests[number] = np.frombuffer(ids_of_slice(number, count), np.uint8).reshape(-1, 32)[:, 12:].copy()
    for start in range(0, len(order), SLICE):
        part = order[start : start + SLICE]
        rows = np.zeros(len(part), ROW)
        owner, place = part // SLICE, part % SLICE
        rest = np.empty((len(part), 20), np.uint8)
        for number, values in rests.items():
            mask = owner == number
            rest[mask] = values[place[mask]]
        rows["rest"] = rest.view("V20")[:, 0]
        rows["pack"] = part // CHUNKS_PER_PACK
        rows["stored"] = 4000
        rows["plain"] = 131072
        low = np.ascontiguousarray(raw[part, 8:12]).view(">u4")[:, 0].astype(np.uint32)
        yield high[part], low, rows


def some_ids(number: int, rows: int) -> list[ChunkId]:
    """Return a batch of ids that are in the index, from all over the key space."""
    slices = -(-rows // SLICE)
    which = number * 7 % slices
    count = min(SLICE, rows - which * SLICE)
    data = ids_of_slice(which, count)
    chosen = np.random.default_rng(number).integers(0, count, BATCH).tolist()
    return [ChunkId(data[32 * at : 32 * at + 32]) for at in chosen]


def measure(folder: Path, rows: int) -> None:
    """Open and look up, in a process that did not write; print a line for docs/benchmarks.md."""
    gc.set_threshold(COLLECT_EVERY_OBJECTS, 20, 20)  # as every command does
    area = area_at(folder)
    with ThreadPoolExecutor(4) as executor:
        begun = time.perf_counter()
        index = open_index(area, frozenset(), executor)
        opened = time.perf_counter() - begun
        times = []
        for number in range(BATCHES):
            ids = some_ids(number, rows)
            begun = time.perf_counter()
            found = index.find(ids)
            times.append(time.perf_counter() - begun)
            if any(at is None for at in found):
                raise SystemExit("a chunk that is in the index was not found")
        absent = [ChunkId(secrets.token_bytes(32)) for _ in range(BATCH)]
        begun = time.perf_counter()
        if any(at is not None for at in index.find(absent)):
            raise SystemExit("a chunk that is not in the index was found")
        missed = time.perf_counter() - begun
        index.close()
    # Not ru_maxrss: that would count the writing process this one was started from.
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    print(
        f"rows {rows:,}: opened in {opened:.2f} s, peak memory {peak:.0f} MiB, 10,000 look-ups: found "
        f"{1000 * statistics.median(times):.0f} ms (worst {1000 * max(times):.0f}), absent {1000 * missed:.0f} ms"
    )


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        return measure(Path(sys.argv[2]), int(sys.argv[3]))
    rows = int(sys.argv[1].replace(",", "").replace("_", "")) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory(prefix="holdfast-index-scale-", dir=os.environ.get("TMPDIR")) as folder:
        begun = time.perf_counter()
        make(Path(folder), rows)
        os.sync()  # what is still on its way to the disk is not part of a look-up
        print(f"made in {time.perf_counter() - begun:.0f} s", file=sys.stderr)
        command = [sys.executable, "-m", "benchmarks.index_scale", "--measure", folder, str(rows)]
        subprocess.run(command, check=True)
    return None


if __name__ == "__main__":
    main()
