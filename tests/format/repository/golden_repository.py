"""Writes the golden repository: small, complete, and the same bytes each time (fixed secrets, salts and times).

``python -m tests.format.repository.golden_repository FILE`` writes it as JSON, object names to hexadecimal. That was
done once for each version of the format; a golden file is never written again, only added to: what is built last.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

from blake3 import blake3
from tests.unit.repository.repository_examples import NOW, entry_like, key_file, memory, record_like

from holdfast.backup import pipeline
from holdfast.backup.pipeline import Pipeline, PipelineSettings, Poured
from holdfast.model.documents import JsonObject, encode_document, format_time
from holdfast.model.logs import Generation, Sample, Stretch
from holdfast.model.secrets import Secret
from holdfast.repository import history as histories
from holdfast.repository.area import Area
from holdfast.repository.format import names, rules
from holdfast.repository.format.container import ObjectType
from holdfast.repository.format.entry import EntryKind, HistoryEntry
from holdfast.repository.format.log import SpanHeader, identity_of
from holdfast.repository.format.names import PackName, RunId
from holdfast.repository.format.rules import HistoryState
from holdfast.repository.index.lookup import open_index, save_index
from holdfast.repository.keyring import Passphrase
from holdfast.repository.log.carried import carried_document
from holdfast.repository.log.merging import Author, MergeRun, condemn_merged, merge_run
from holdfast.repository.log.reading import StoredLog
from holdfast.repository.log.spans import put_generation, put_span, seal_span
from holdfast.repository.repository import Repository, add_slot, create_repository, open_repository, rotate
from holdfast.sources.port import Entry, EntryType, Layout
from holdfast.storage.port import Store

PASSPHRASE = Passphrase(Secret("correct horse \u00e9"))
KEY_FILE, HOST_KEY_FILE = key_file(1), key_file(2)
APPLICATION, SOURCE = "shop", "orders"
FIRST, SECOND, EXPIRED = "a1" * 16, "b2" * 16, "e3" * 16
NAME_OF_BYTES = b"base/\xff".decode(errors="surrogateescape")
RUN = RunId("0f" * 16)


def noise(size: int) -> bytes:
    return random.Random(7).randbytes(size)


CONTENTS = {
    FIRST: {"base/1": (b"\x07\x00page" * 30000)[:150000], "empty": b"", NAME_OF_BYTES: b"bytes"},
    SECOND: {"base/1": (b"\x07\x00page" * 30000)[:150000] + b"more", "wal": noise(700), NAME_OF_BYTES: b"bytes"},
    EXPIRED: {"gone": b"expired and pruned"},
}
"""What each backup holds; the last one is expired, and its packs condemned and deleted."""

LOG_START, LOG_END = 16 << 20, (17 << 20) + 5000
LOG = (b"\x16\xd1record" * 150000)[:1_053_000] + noise(2000)
"""The bytes of the log from ``LOG_START`` on: more than one frame."""
DETAILS: JsonObject = {"kind": "postgres", "system_identifier": "8", "segment_bytes": 16 << 20}
GENERATION = Generation("c3" * 16, 0, details={**DETAILS, "timeline": 1, "history": ""})
HISTORY_FILE = f"1\t0/{LOG_END:X}\tno recovery target specified\n"
FORKED = Generation(
    "d4" * 16, 16 << 20, GENERATION.id, LOG_END, {**DETAILS, "timeline": 2, "history": HISTORY_FILE * 20}
)


@contextmanager
def fixed_randomness() -> Iterator[None]:
    drawn = 0

    def draw(size: int) -> bytes:
        nonlocal drawn
        drawn += 1
        return blake3(b"golden %d" % drawn).digest(length=size)

    # One uploader: of two, either may tell the index of its pack first.
    with patch.object(os, "urandom", draw), patch.object(pipeline, "UPLOADERS", 1):
        yield


def area_in(repository: Repository) -> Area:
    keys = repository.keys.area_of(APPLICATION, SOURCE)
    return Area(repository.store, repository.store_id, keys, APPLICATION, SOURCE)


def pour(area: Area, backup: str, executor: Executor) -> Poured:
    index = open_index(area, frozenset(), executor)
    try:
        with Pipeline(area, index, PipelineSettings(sample=0.0, workers=1), lambda _: None) as sink:
            sink.add(Entry("base", EntryType.FOLDER, 0o700, NOW))
            sink.add(Entry("space", EntryType.LINK, link_target="/disk2/space"))
            for path, content in CONTENTS[backup].items():
                layout = Layout.PAGES if path == "base/1" else Layout.CONTENT
                stream = sink.open(Entry(path, modified_at=NOW, layout=layout))
                stream.write(content)
                stream.close()
            poured = sink.finish()
        save_index(index)
    finally:
        index.close()
    return poured


def put(area: Area, entry: HistoryEntry, executor: Executor) -> None:
    history = histories.read_history(area, executor, None)
    histories.append(area, history, lambda _: replace(entry, at=NOW + timedelta(hours=history.head)))


def back_up(area: Area, backup: str, executor: Executor) -> Poured:
    poured = pour(area, backup, executor)
    record = record_like(
        backup,
        tree=poured.tree,
        entries=poured.entries,
        size_bytes=poured.size_bytes,
        stored_bytes=poured.stored_bytes,
        notices=("a notice with \u00e9",),
    )
    entry = entry_like(EntryKind.BACKUP, [backup], record=area.seal_record(record), store_offset_seconds=0.25)
    put(area, entry, executor)
    return poured


def prune(area: Area, needed: set[PackName], executor: Executor) -> None:
    """Condemn and delete what is not needed, as a prune does that has nothing to repack."""

    def decide(state: HistoryState) -> HistoryEntry:
        point = rules.checkpoint_of(state, area.list_packs(), lambda name: name in needed)
        return entry_like(EntryKind.PRUNE, checkpoint=point)

    history = histories.append(area, histories.read_history(area, executor, None), decide)
    condemned = rules.deletable(history.state, area.list_packs())
    assert condemned
    for name in condemned:
        area.store.delete(names.pack(area.keys.area, name))


def build(store: Store) -> None:
    with fixed_randomness(), ThreadPoolExecutor(1) as executor:
        repository, _ = create_repository(store, KEY_FILE, "key file", NOW)
        add_slot(repository, HOST_KEY_FILE, "host, of the first epoch", NOW, (APPLICATION, SOURCE))
        area = area_in(repository)
        area.catalog("postgres", NOW)
        first = back_up(area, FIRST, executor)
        back_up(area, EXPIRED, executor)
        rotate(repository, NOW)
        repository = open_repository(store, [KEY_FILE])
        add_slot(repository, PASSPHRASE, "passphrase", NOW)
        area = area_in(repository)
        second = back_up(area, SECOND, executor)
        put(area, entry_like(EntryKind.HOLD, [FIRST], reason="audit"), executor)
        put(area, entry_like(EntryKind.VERIFIED, [SECOND], reason="drill"), executor)
        put(area, entry_like(EntryKind.ADOPT, identity=(("system_identifier", "8"),), reason="moved"), executor)
        put(area, entry_like(EntryKind.EXPIRE, [EXPIRED], reason="policy"), executor)
        prune(area, set(first.packs) | set(second.packs), executor)
        put(area, entry_like(EntryKind.RELEASE, [FIRST], reason="over"), executor)
        area.put_run(NOW, RUN, {"id": RUN, "verb": "backup", "outcome": "done"})
        lease = {"holder": RUN, "host": "here", "place": "", "process": 1, "born": "", "state": "free"}
        lease["renewed_at"] = format_time(NOW)
        data, _ = area.seal(area.claim(ObjectType.LEASE, b"physical"), [encode_document(lease)])  # type: ignore[arg-type]
        store.put(names.lease(area.keys.area, "physical"), data)
        write_log(area, executor)


def write_log(area: Area, executor: Executor) -> None:
    """Store a log of two generations: two spans that overlap, the one they were merged into, and a gap."""
    for generation in (GENERATION, FORKED):
        put_generation(area, generation, NOW)
    at = [NOW + timedelta(seconds=second) for second in range(4)]
    first = (Sample(at[0], LOG_START), Sample(at[1], LOG_START + 800))
    put_piece(area, GENERATION, LOG_START, LOG_START + 1000, SpanHeader(first, None, identity_of(GENERATION), at[1]))
    second = SpanHeader((Sample(at[2], LOG_END),), None, identity_of(GENERATION), at[2])
    put_piece(area, GENERATION, LOG_START + 900, LOG_END, second)
    log = StoredLog(area, executor)
    stretch = Stretch(LOG_START, LOG_END)
    merge_run(log, area, MergeRun(GENERATION.id, stretch, tuple(log.spans(GENERATION.id))))
    gap = SpanHeader((), "the slot was lost \u00e9", identity_of(FORKED), at[3])
    put_piece(area, FORKED, LOG_END + 100, LOG_END + 200, gap)
    condemn_merged(area, histories.read_history(area, executor, None), Author(RUN, "here", NOW + timedelta(hours=9)))
    lease = {"holder": RUN, "host": "here", "place": "", "process": 1, "born": "", "state": "free"}
    lease |= {"renewed_at": format_time(NOW), "carried": carried_document(FORKED.id, Sample(at[3], LOG_END + 200))}
    data, _ = area.seal(area.claim(ObjectType.LEASE, b"log"), [encode_document(lease)])  # type: ignore[arg-type]
    area.store.put(names.lease(area.keys.area, "log"), data)


def put_piece(area: Area, generation: Generation, start: int, end: int, header: SpanHeader) -> None:
    put_span(area, seal_span(area, generation.id, start, LOG[start - LOG_START : end - LOG_START], header))


def objects_of(store: Store) -> dict[str, bytes]:
    return {info.name: bytes(store.get(info.name)) for info in store.list("")}


def load(path: Path) -> dict[str, bytes]:
    return {name: bytes.fromhex(text) for name, text in json.loads(path.read_text()).items()}


def filled(path: Path) -> Store:
    """Return a store that holds a golden repository, its slots as old as their order."""
    store = memory()
    for name, data in load(path).items():
        store.put(name, data) if name.startswith("volatile/") else store.create(name, data)
    return store


def main() -> None:
    path, store = Path(sys.argv[1]), memory()
    build(store)
    with path.open("x") as file:
        json.dump({name: data.hex() for name, data in objects_of(store).items()}, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
