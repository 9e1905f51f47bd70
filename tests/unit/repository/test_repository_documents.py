"""Lists, trees and records: what was written comes back, and what no reader may take is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.repository.repository_examples import area_of, record_like

from holdfast.backup.packer import ListBuilder
from holdfast.model.errors import IntegrityBroken
from holdfast.repository.format.container import PLAIN_BYTES_MAX
from holdfast.repository.format.lists import (
    LEAF_ROW,
    LEAF_ROWS_MAX,
    ROOT_ROW,
    ChunkRef,
    ContentRef,
    encode_leaf,
    encode_root,
    parse_leaf,
    parse_ref,
    parse_root,
)
from holdfast.repository.format.names import (
    AreaId,
    ChunkId,
    PackName,
    history_entry,
    pack,
    parse_history,
    parse_pack,
)
from holdfast.repository.format.record import (
    DAMAGE_ROWS_MAX,
    NOTICES_MAX,
    RECORD_BYTES_MAX,
    TEXT_MAX,
    DamageRow,
    encode_record,
    parse_record,
)
from holdfast.repository.format.tree import TreeEntry, encode_line, parse_line


def chunk(number: int) -> ChunkId:
    return ChunkId(number.to_bytes(32, "big"))


class Lists:
    """Keeps list chunks by a number of their own, and reads a reference back."""

    def __init__(self) -> None:
        self.kept: dict[ChunkId, bytes] = {}

    def store(self, plain: bytes) -> ChunkId:
        name = chunk(1_000_000 + len(self.kept))
        self.kept[name] = plain
        return name

    def rows(self, ref: ContentRef) -> list[ChunkRef]:
        if ref.id is None:
            return []
        if ref.depth == 0:
            return [ChunkRef(ref.id, ref.size)]
        if ref.depth == 1:
            return parse_leaf("it", self.kept[ref.id], ref.size)
        return [
            row
            for leaf, size in parse_root("it", self.kept[ref.id], ref.size)
            for row in parse_leaf("it", self.kept[leaf], size)
        ]


@pytest.mark.parametrize(
    ("count", "depth", "lists"), [(0, 0, 0), (1, 0, 0), (2, 1, 1), (512, 1, 1), (513, 2, 3), (262145, 2, 514)]
)
def test_a_list_has_the_depth_that_its_number_of_chunks_needs(count: int, depth: int, lists: int) -> None:
    kept, builder = Lists(), ListBuilder()
    rows = [ChunkRef(chunk(number), 1 + number % 7) for number in range(count)]
    for row in rows:
        builder.add(row, kept.store)
    ref = builder.finish(kept.store)
    assert (ref.depth, len(kept.kept), ref.size) == (depth, lists, sum(row.length for row in rows))
    assert kept.rows(ref) == rows
    assert parse_ref("it", ref.to_document()) == ref
    assert all(len(plain) <= LEAF_ROWS_MAX * ROOT_ROW.size or count > 512 for plain in kept.kept.values())


@given(st.lists(st.integers(1, PLAIN_BYTES_MAX), min_size=1, max_size=LEAF_ROWS_MAX))
@settings(max_examples=40, deadline=None)
def test_a_leaf_comes_back_and_no_other_size_is_believed(lengths: list[int]) -> None:
    rows = [ChunkRef(chunk(number), length) for number, length in enumerate(lengths)]
    plain, size = encode_leaf(rows), sum(lengths)
    assert parse_leaf("it", plain, size) == rows
    for wrong in (size - 1, size + 1, 0):
        with pytest.raises(IntegrityBroken):
            parse_leaf("it", plain, wrong)
    with pytest.raises(IntegrityBroken):
        parse_leaf("it", plain[:-1], size)


def test_leaves_and_roots_that_no_reader_takes() -> None:
    with pytest.raises(IntegrityBroken):
        parse_leaf("it", b"", 0)
    with pytest.raises(IntegrityBroken):
        parse_leaf("it", LEAF_ROW.pack(bytes(32), 1) * 513, 513)
    with pytest.raises(IntegrityBroken):
        parse_leaf("it", LEAF_ROW.pack(bytes(32), 0) + LEAF_ROW.pack(bytes(32), 5), 5)
    with pytest.raises(IntegrityBroken):
        parse_leaf("it", LEAF_ROW.pack(bytes(32), PLAIN_BYTES_MAX + 1), PLAIN_BYTES_MAX + 1)
    with pytest.raises(IntegrityBroken):
        parse_root("it", b"", 0)
    with pytest.raises(IntegrityBroken):
        parse_root("it", encode_root([(chunk(1), 5)])[:-1], 5)
    with pytest.raises(IntegrityBroken):
        parse_root("it", encode_root([(chunk(1), 5)]), 6)
    assert parse_root("it", encode_root([(chunk(1), 5), (chunk(2), 1)]), 6) == [(chunk(1), 5), (chunk(2), 1)]


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"size": -1},
        {"size": "1"},
        {"size": 1},
        {"size": 0, "depth": 0, "id": "00" * 32},
        {"size": 1, "depth": 3, "id": "00" * 32},
        {"size": 1, "depth": -1, "id": "00" * 32},
        {"size": 1, "depth": 0, "id": "00" * 31},
        {"size": 1, "depth": 0, "id": "zz" * 32},
        {"size": PLAIN_BYTES_MAX + 1, "depth": 0, "id": "00" * 32},
    ],
)
def test_references_that_no_reader_takes(document: object) -> None:
    with pytest.raises(IntegrityBroken):
        parse_ref("it", document)


NAME = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20).filter(
    lambda part: part not in (".", "..")
)
PATHS = st.lists(NAME, min_size=1, max_size=4).map("/".join)
REFS = st.one_of(
    st.just(ContentRef(0)),
    st.builds(ContentRef, st.integers(1, 1 << 24), st.just(0), st.binary(min_size=32, max_size=32).map(ChunkId)),
    st.builds(ContentRef, st.integers(1, 1 << 50), st.integers(1, 2), st.binary(min_size=32, max_size=32).map(ChunkId)),
)
MODES = st.one_of(st.none(), st.integers(0, 0o7777))
TIMES = st.one_of(st.none(), st.integers(-(1 << 40), 1 << 40))
ENTRIES = st.one_of(
    st.builds(TreeEntry, PATHS, st.just("folder"), MODES, TIMES),
    st.builds(TreeEntry, PATHS, st.just("link"), MODES, TIMES, NAME),
    st.builds(TreeEntry, PATHS, st.just("file"), MODES, TIMES, st.none(), st.sampled_from(["pages", "content"]), REFS),
)


@given(ENTRIES)
@settings(max_examples=200, deadline=None)
def test_a_line_of_a_tree_comes_back(entry: TreeEntry) -> None:
    line = encode_line(entry)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert parse_line("it", line) == entry


def test_a_name_that_is_not_utf8_comes_back_byte_for_byte() -> None:
    path = b"base/\xff\xfe name".decode(errors="surrogateescape")
    link = b"/disk/\x80".decode(errors="surrogateescape")
    entry = TreeEntry(path, "link", link=link)
    line = encode_line(entry)
    assert b"path_hex" in line
    assert b"link_hex" in line
    assert parse_line("it", line) == entry
    assert parse_line("it", line).path.encode(errors="surrogateescape") == b"base/\xff\xfe name"


HOSTILE_PATHS = ["", "/etc/passwd", "a/../b", "..", ".", "a/./b", "a//b", "a/", "/", "a\0b", "../a", "a/.."]


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_a_path_that_could_leave_its_folder_is_refused_by_writer_and_reader(path: str) -> None:
    with pytest.raises(IntegrityBroken):
        encode_line(TreeEntry(path, "folder"))
    with pytest.raises(IntegrityBroken):
        parse_line("it", json.dumps({"path": path, "type": "folder"}).encode())
    with pytest.raises(IntegrityBroken):
        parse_line("it", json.dumps({"path_hex": path.encode().hex(), "type": "folder"}).encode())


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b'"path"',
        b'{"type":"folder"}',
        b'{"path":1,"type":"folder"}',
        b'{"path":"a","type":"device"}',
        b'{"path":"a"}',
        b'{"path":"a","type":"link"}',
        b'{"path":"a","type":"folder","link":"b"}',
        b'{"path":"a","type":"folder","mode":-1}',
        b'{"path":"a","type":"folder","mode":65536}',
        b'{"path":"a","type":"folder","mtime":"now"}',
        b'{"path":"a","type":"file"}',
        b'{"path":"a","type":"file","layout":"sparse","ref":{"size":0}}',
        b'{"path_hex":"zz","type":"folder"}',
        b'{"path":"a","type":"file","ref":{"size":5}}',
    ],
)
def test_lines_that_no_reader_takes(line: bytes) -> None:
    with pytest.raises(IntegrityBroken):
        parse_line("it", line)


def test_the_fullest_record_fits_its_bound() -> None:
    rows = tuple(DamageRow("\u00e9" * 5000, 1, "\U0001f600" * 5000) for _ in range(500))
    notices = tuple("\u00e9" * 5000 for _ in range(500))
    record = record_like(damage=rows, damage_total=500, notices=notices)
    plain = encode_record(record)
    back = parse_record("it", plain)
    assert len(back.damage) == DAMAGE_ROWS_MAX
    assert len(back.notices) == NOTICES_MAX
    assert max(map(len, back.notices)) == TEXT_MAX
    assert back.damage_total == 500
    area = area_of()
    data = area.seal_record(record)
    assert len(data) <= RECORD_BYTES_MAX
    assert area.open_record(record.id, data) == back


def test_a_record_comes_back_and_opens_under_its_own_backup_only() -> None:
    area, record = area_of(), record_like()
    data = area.seal_record(record)
    assert area.open_record(record.id, data) == record
    with pytest.raises(IntegrityBroken):
        area.open_record(record_like("ee" * 16).id, data)
    with pytest.raises(IntegrityBroken):
        area_of(area.store, "shop", "customers").open_record(record.id, data)
    with pytest.raises(IntegrityBroken):
        area.open_record(record.id, area.seal_record(replace(record, source="customers")))


def test_a_record_that_needs_more_than_this_version_knows_is_refused() -> None:
    document = json.loads(encode_record(record_like())) | {"needs": ["witness"]}
    with pytest.raises(IntegrityBroken, match="witness"):
        parse_record("it", json.dumps(document).encode())


@pytest.mark.parametrize("missing", ["id", "streams", "identity", "started_at", "entries", "damage"])
def test_a_record_without_a_part_is_refused(missing: str) -> None:
    document = json.loads(encode_record(record_like()))
    del document[missing]
    with pytest.raises(IntegrityBroken):
        parse_record("it", json.dumps(document).encode())


def test_a_record_may_carry_keys_that_nobody_knows() -> None:
    document = json.loads(encode_record(record_like())) | {"witness": {"rows": 1}}
    assert parse_record("it", json.dumps(document).encode()) == record_like()


def test_names_come_back_and_strangers_are_passed_over() -> None:
    area, name = AreaId(bytes(16)), PackName(bytes(range(32)))
    assert parse_pack(pack(area, name)) == name
    assert parse_history(history_entry(area, 12)) == 12
    for other in (
        "",
        "packs",
        pack(area, name)[:-1],
        pack(area, name).upper(),
        pack(area, name).replace("/00/", "/01/"),
    ):
        assert parse_pack(other) is None
    for other in (history_entry(area, 1)[:-1], history_entry(area, 1) + "0", "areas/x/history/000000000001"):
        assert parse_history(other) is None
