"""What was written once opens for ever, and the same inputs still give the same bytes."""

from __future__ import annotations

import functools
import hashlib
import hmac
import struct
from concurrent.futures import Executor
from datetime import timedelta
from pathlib import Path

import pytest
from blake3 import blake3
from tests.format.repository.golden_repository import (
    APPLICATION,
    CONTENTS,
    FIRST,
    FORKED,
    GENERATION,
    HOST_KEY_FILE,
    KEY_FILE,
    LOG,
    LOG_END,
    LOG_START,
    PASSPHRASE,
    SECOND,
    SOURCE,
    area_in,
    build,
    filled,
    load,
    objects_of,
)
from tests.unit.repository.repository_examples import NOW, contents, live, memory

from holdfast.model.errors import KeyInvalid
from holdfast.model.logs import Stretch
from holdfast.model.secrets import Secret
from holdfast.repository import history as histories
from holdfast.repository.checking import check_area
from holdfast.repository.format import names
from holdfast.repository.format.container import ObjectType, parse_header
from holdfast.repository.format.entry import EntryKind
from holdfast.repository.format.keys import RootKeys, derive, hkdf, key_id
from holdfast.repository.format.lists import ChunkRef, ContentRef, encode_leaf, encode_root
from holdfast.repository.format.names import ChunkId, RepositoryId
from holdfast.repository.format.tree import TreeEntry, encode_line
from holdfast.repository.index.lookup import open_index
from holdfast.repository.keyring import Passphrase, Unlock
from holdfast.repository.log.reading import StoredLog
from holdfast.repository.repository import open_repository

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))
NEWEST = GOLDEN[-1]


@functools.cache
def built() -> dict[str, bytes]:
    store = memory()
    build(store)
    return objects_of(store)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
@pytest.mark.parametrize("unlock", [KEY_FILE, PASSPHRASE], ids=["key file", "passphrase"])
def test_every_golden_repository_opens_and_restores_exactly(path: Path, unlock: Unlock, executor: Executor) -> None:
    repository = open_repository(filled(path), [unlock])
    area = area_in(repository)
    assert repository.trouble == ()
    assert repository.keys.current_epoch == 2
    records = {record.id: record for record in live(area, executor)}
    assert list(records) == [FIRST, SECOND]
    for backup, record in records.items():
        assert contents(area, record, executor) == CONTENTS[backup]
        assert record.notices == ("a notice with \u00e9",)
    (run,) = area.runs()
    assert run["outcome"] == "done"


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_every_golden_repository_has_the_history_it_had(path: Path, executor: Executor) -> None:
    history = histories.read_history(area_in(open_repository(filled(path), [KEY_FILE])), executor, None)
    kinds = ["backup", "backup", "backup", "hold", "verified", "adopt", "expire", "prune", "release", "condemn"]
    assert [entry.kind for entry, _ in history.entries] == [EntryKind(kind) for kind in kinds]
    assert [entry.epoch for entry, _ in history.entries] == [1, 1, 2, 2, 2, 2, 2, 2, 2, 2]
    assert all(entry.counts for entry, _ in history.entries)
    state = history.state
    assert state.live == ((1, FIRST), (3, SECOND))
    assert (state.held, state.verified, state.identity) == (frozenset(), {SECOND}, (("system_identifier", "8"),))
    assert (state.checkpoint, len(state.condemned)) == (8, 2)
    assert state.log_ends == ((GENERATION.id, LOG_END), (FORKED.id, LOG_END + 200))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_log_of_every_golden_repository_reads_back(path: Path, executor: Executor) -> None:
    area = area_in(open_repository(filled(path), [KEY_FILE]))
    log = StoredLog(area, executor)
    assert list(log.generations()) == [GENERATION, FORKED]
    assert log.stretches(GENERATION.id) == [Stretch(LOG_START, LOG_END)]
    assert b"".join(log.read(GENERATION.id, Stretch(LOG_START, LOG_END))) == LOG[: LOG_END - LOG_START]
    assert [log.header(span).merged for span in log.spans(GENERATION.id)] == [0, 2, 0]
    assert [one.position - LOG_START for one in log.samples(GENERATION.id, Stretch(0, LOG_END))] == [
        0,
        800,
        LOG_END - LOG_START,
    ]
    assert log.gap_reason(FORKED.id, LOG_END + 100) == "the slot was lost \u00e9"
    carried = log.carried(FORKED.id)
    assert carried is not None
    assert (carried.at, carried.position) == (NOW + timedelta(seconds=3), LOG_END + 200)


def test_a_condemn_entry_names_the_span_that_stays(executor: Executor) -> None:
    area = area_in(open_repository(filled(NEWEST), [KEY_FILE]))
    entry, _ = histories.read_entry(area, 10)
    (kept,) = entry.spans
    assert (kept.generation, kept.start, kept.end) == (GENERATION.id, LOG_START, LOG_END)
    claim = area.claim(ObjectType.HISTORY, area.store_id + (10).to_bytes(8, "little"))
    frames = area.open("entry 10", claim, area.store.get(names.history_entry(area.keys.area, 10)))
    row = bytes.fromhex(GENERATION.id) + struct.pack("<QQ", LOG_START, LOG_END) + bytes.fromhex(kept.digest)
    assert frames[1] == row
    assert f'"log_ends":{{"{GENERATION.id}":"{LOG_END:016x}"'.encode() in frames[0]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_every_golden_repository_is_sound_and_its_index_tells_what_its_packs_tell(
    path: Path, executor: Executor
) -> None:
    area = area_in(open_repository(filled(path), [KEY_FILE]))
    report = check_area(area, executor, None, lambda _: None, 100.0)
    assert (report.findings, report.backups, report.index_rebuilt) == ((), 2, False)
    stored, fresh = (open_index(area, frozenset(), executor, cached=cached) for cached in (True, False))
    try:
        assert stored.trouble == []
        assert any(name is not None for name, _ in stored.segments)
        chunks = [
            ChunkId(opener.ids[at : at + 32])
            for name, size in area.list_packs().items()
            for opener in [area.read_pack_table(name, size)[1]]
            for at in range(0, len(opener.ids), 32)
        ]
        assert len(chunks) > 5
        assert all(stored.find(chunks))
        assert stored.find(chunks) == fresh.find(chunks)
    finally:
        stored.close()
        fresh.close()


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_host_of_a_golden_repository_that_was_left_behind_reads_what_is_older(
    path: Path, executor: Executor
) -> None:
    area = area_in(open_repository(filled(path), [HOST_KEY_FILE]))
    entry, _ = histories.read_entry(area, 1)
    record = histories.record_of(area, entry)
    assert contents(area, record, executor) == CONTENTS[FIRST]
    with pytest.raises(KeyInvalid):
        histories.read_history(area, executor, None)


def kinds_of(objects: dict[str, bytes]) -> dict[ObjectType, list[tuple[str, bytes]]]:
    kinds: dict[ObjectType, list[tuple[str, bytes]]] = {}
    for name, data in sorted(objects.items()):
        kinds.setdefault(parse_header(name, data).type, []).append((name, data))
    return kinds


WRITTEN = [
    ObjectType.IDENTITY,
    ObjectType.STORE,
    ObjectType.SLOT,
    ObjectType.EPOCH,
    ObjectType.CATALOG,
    ObjectType.DATA_PACK,
    ObjectType.LIST_PACK,
    ObjectType.HISTORY,
    ObjectType.RUN,
    ObjectType.INDEX,
    ObjectType.LEASE,
    ObjectType.LOG_GENERATION,
    ObjectType.LOG_SPAN,
]


@pytest.mark.parametrize("kind", WRITTEN, ids=lambda kind: kind.name.lower())
def test_the_same_inputs_give_the_same_bytes(kind: ObjectType) -> None:
    """Records are embedded in history entries. Where zstd changed, a new golden file is written beside the old."""
    expected = kinds_of(load(NEWEST))[kind]
    assert expected
    assert kinds_of(built())[kind] == expected


def test_nothing_else_is_in_the_golden_repository() -> None:
    assert set(kinds_of(load(NEWEST))) == set(WRITTEN)
    assert set(built()) == set(load(NEWEST))


def test_the_plain_bytes_of_lists_and_trees() -> None:
    one, two = ChunkId(bytes(range(32))), ChunkId(bytes(range(32, 64)))
    leaf = encode_leaf([ChunkRef(one, 1), ChunkRef(two, 0x0A0B0C)])
    assert leaf == bytes(range(32)) + b"\x01\0\0\0" + bytes(range(32, 64)) + b"\x0c\x0b\x0a\0"
    assert encode_root([(one, 1 << 40)]) == bytes(range(32)) + b"\0\0\0\0\0\x01\0\0"
    lines = {
        TreeEntry(
            "base", "folder", 0o700, 1700000000
        ): b'{"mode":448,"mtime":1700000000,"path":"base","type":"folder"}\n',
        TreeEntry("l\u00e9", "link", link="/x"): b'{"link":"/x","path":"l\\u00e9","type":"link"}\n',
        TreeEntry("a\udcff", "file", 0o600, layout="pages", ref=ContentRef(0)): (
            b'{"layout":"pages","mode":384,"path_hex":"61ff","ref":{"size":0},"type":"file"}\n'
        ),
        TreeEntry("f", "file", ref=ContentRef(9, 2, one)): (
            b'{"layout":"content","path":"f","ref":{"depth":2,"id":"%s","size":9},"type":"file"}\n' % one.hex().encode()
        ),
    }
    for entry, line in lines.items():
        assert encode_line(entry) == line


def by_hand(key: bytes, salt: bytes, *parts: bytes) -> bytes:
    """HKDF-SHA256 for one block, from RFC 5869 and the standard library alone."""
    info = b"".join(struct.pack("<I", len(part)) + part for part in (b"holdfast/v1", *parts))
    extracted = hmac.digest(salt, key, hashlib.sha256)
    return hmac.digest(extracted, info + b"\x01", hashlib.sha256)


def test_keys_follow_as_the_format_says() -> None:
    root, repository = bytes(range(32)), RepositoryId(bytes(range(16)))
    zeros = bytes(32)
    assert hkdf(root, b"salt", b"") == hmac.digest(hmac.digest(b"salt", root, "sha256"), b"\x01", "sha256")
    assert derive(root, b"a", b"bc") == by_hand(root, zeros, b"a", b"bc")
    assert key_id(root, repository) == by_hand(root, zeros, b"key id", repository)[:16]
    roots = RootKeys(repository, {1: root}, 1)
    name_key = by_hand(root, zeros, b"name key", repository)
    joined = struct.pack("<I", 4) + b"shop" + struct.pack("<I", 8) + b"caf\xc3\xa91\xc2\xb5"
    area = blake3(joined, key=name_key).digest()[:16]
    assert roots.area_id("shop", "cafe\u03011\u00b5") == area
    keys = roots.area_keys(roots.area_id("shop", "cafe\u03011\u00b5"))
    area_key = by_hand(root, zeros, b"area key", repository, area)
    assert keys.of_epoch(1) == area_key
    for data, word in ((True, b"data"), (False, b"list")):
        expected = blake3(b"x", key=by_hand(area_key, zeros, b"chunk id", word)).digest()
        assert keys.chunk_id(b"x", data=data) == expected
    assert keys.chunker_seed == struct.unpack("<Q", by_hand(area_key, zeros, b"chunker seed")[:8])[0] >> 1


def test_the_golden_names_lie_where_the_format_says() -> None:
    repository = open_repository(filled(NEWEST), [Passphrase(Secret("correct horse e\u0301"))])
    area = repository.keys.area_of(APPLICATION, SOURCE).area
    found = load(NEWEST)
    assert names.history_entry(area, 9) in found
    assert names.lease(area, "physical") in found
    assert "epochs/00000002" in found
    assert all(
        name.startswith(
            (
                f"areas/{area.hex()}/",
                f"volatile/areas/{area.hex()}/",
                f"catalog/{area.hex()}/",
                "slots/",
                "epochs/",
                "identity",
                "store",
            )
        )
        for name in found
    )
