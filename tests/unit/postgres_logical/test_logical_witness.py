"""The comparison of two witnesses names every difference, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from holdfast.model.documents import encode_document
from holdfast.model.errors import IntegrityBroken
from holdfast.sources.postgres.logical.witness import (
    Column,
    DatabaseWitness,
    Found,
    How,
    SequenceWitness,
    TableWitness,
    Witness,
    compare,
    from_document,
    to_document,
)

COLUMNS = (Column("id", "integer"), Column("note", "text"))
ORDERS = TableWitness("public", "orders", COLUMNS, How.COMPARED, 3, "aa", 8192)
SHOP = DatabaseWitness(
    name="shop",
    encoding="UTF8",
    owner="app",
    tables=(ORDERS, TableWitness("a.b", "c", (), How.RECOMPUTED, reason="a view")),
    sequences=(SequenceWitness("public", "orders_id_seq", 3, True),),
    extensions=(("pg_trgm", "1.6"),),
    settings=("work_mem=8MB",),
    objects=(("index", ("public.orders_pkey",)), ("trigger", ("t on public.orders",))),
    large_objects=1,
)


def told(found: DatabaseWitness) -> list[str]:
    return [str(difference) for difference in compare(SHOP, found)]


def with_orders(**changes: object) -> DatabaseWitness:
    return replace(SHOP, tables=(replace(ORDERS, **changes), *SHOP.tables[1:]))  # type: ignore[arg-type]


def test_equal_databases_have_no_differences() -> None:
    assert told(replace(SHOP, name="shop_restored", owner="other", settings=())) == []


def test_a_changed_row_is_named() -> None:
    assert told(with_orders(digest="bb")) == ["table public.orders differs: its 3 rows are not the same ones"]


def test_a_missing_row_is_named() -> None:
    assert told(with_orders(rows=2, digest="bb")) == ["table public.orders differs: 3 rows became 2"]


def test_a_table_found_empty_is_named() -> None:
    assert told(with_orders(rows=0, digest="00")) == ["table public.orders differs: 3 rows became 0"]


def test_a_missing_column_is_named() -> None:
    columns = (Column("id", "bigint"), Column("more", "text"))
    assert told(with_orders(columns=columns, how=How.NOT_COMPARED, rows=None, digest=None)) == [
        "table public.orders differs: column note is missing, column more was not there, column id was integer and is "
        "bigint"
    ]


def test_a_missing_table_sequence_index_and_extension_are_named() -> None:
    found = replace(SHOP, tables=SHOP.tables[1:], sequences=(), extensions=(), objects=SHOP.objects[1:])
    assert told(found) == [
        "table public.orders is missing",
        "sequence public.orders_id_seq is missing",
        "extension pg_trgm is missing",
        "index public.orders_pkey is missing",
    ]


def test_a_sequence_that_stands_elsewhere_is_named() -> None:
    found = replace(SHOP, sequences=(SequenceWitness("public", "orders_id_seq", 3, False),))
    assert told(found) == ["sequence public.orders_id_seq differs: stood at 3 and stands at 3 (not used yet)"]


def test_what_was_added_is_named_too() -> None:
    more = TableWitness("public", "more", (), How.COMPARED, 0, "00")
    difference, *rest = compare(SHOP, replace(SHOP, tables=(*SHOP.tables, more)))
    assert (difference.name, difference.found, rest) == ("public.more", Found.ADDED, [])


def test_encoding_and_number_of_large_objects_are_compared() -> None:
    assert told(replace(SHOP, encoding="LATIN1", large_objects=0)) == [
        "encoding of the database differs: UTF8 became LATIN1",
        "large objects of the database differs: 1 became 0",
    ]


def test_names_with_dots_are_not_mixed_up() -> None:
    one = TableWitness("a", "b.c", (), How.COMPARED, 1, "aa")
    other = TableWitness("a.b", "c", (), How.COMPARED, 1, "bb")
    before, now = replace(SHOP, tables=(one, other)), replace(SHOP, tables=(replace(one, digest="cc"), other))
    assert [str(each) for each in compare(before, now)] == ['table a."b.c" differs: its 1 rows are not the same ones']


def test_a_sample_is_not_compared_with_the_whole() -> None:
    assert told(with_orders(how=How.SAMPLED, digest="bb")) == []
    assert told(with_orders(how=How.SAMPLED, digest="bb", rows=4)) == ["table public.orders differs: 3 rows became 4"]


def partition(name: str, rows: int, digest: str) -> TableWitness:
    return TableWitness("public", name, (Column("mood", "mood"),), How.COMPARED, rows, digest, root="public.moods")


def test_rows_that_changed_partitions_of_one_root_are_no_difference() -> None:
    before = replace(SHOP, tables=(partition("moods_0", 2, "f" * 32), partition("moods_1", 1, f"{5:032x}")))
    moved = replace(SHOP, tables=(partition("moods_0", 0, "0"), partition("moods_1", 3, f"{4:032x}")))
    lost = replace(SHOP, tables=(partition("moods_0", 0, "0"), partition("moods_1", 2, f"{4:032x}")))
    assert compare(before, moved) == ()
    assert [str(each) for each in compare(before, lost)] == [
        "table public.moods (all partitions) differs: 3 rows became 2"
    ]


def test_a_witness_comes_back_from_its_document() -> None:
    witness = Witness(
        datetime(2026, 1, 15, 12, tzinfo=UTC), "18.1", (("app", "login"), ("öwner\udcff", "")), (SHOP, SHOP)
    )
    assert from_document(json.loads(encode_document(to_document(witness)))) == witness
    assert witness.database("shop") == SHOP
    assert witness.database("other") is None


def test_a_witness_that_cannot_be_read_is_told() -> None:
    document = to_document(Witness(datetime(2026, 1, 15, tzinfo=UTC), "18.1", (), (SHOP,)))
    for broken in ({}, document | {"version": 2}, document | {"databases": [1]}, document | {"taken_at": "today"}):
        with pytest.raises(IntegrityBroken):
            from_document(broken)
