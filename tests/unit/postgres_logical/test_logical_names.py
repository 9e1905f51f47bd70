"""Names become paths and come back, and a selection says what it selects."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.model.errors import ConfigInvalid
from holdfast.sources.postgres.logical.names import (
    Selection,
    TablePlace,
    decode_name,
    dotted,
    encode_name,
    parse_table_path,
    quote_identifier,
    quote_literal,
    table_path,
)

BYTE_NAMES = st.binary(min_size=1, max_size=63).filter(lambda raw: b"\0" not in raw)
NAMES = BYTE_NAMES.map(lambda raw: raw.decode("utf-8", "surrogateescape")) | st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20
)
ODD = ["a b", '"q"', "it's", "a=b", "[x]", "a/b", ".", "..", ".hidden", "@witness.json", "50%", "%2f"]
ODD += ["new\nline", "é", "漢", "UPPER", "x.sql"]


@given(NAMES)
def test_every_name_comes_back_from_its_part_of_a_path(name: str) -> None:
    part = encode_name(name)
    assert decode_name(part) == name
    assert "/" not in part
    assert part not in ("", ".", "..")
    assert not part.startswith((".", "@"))
    assert part.encode("utf-8").isascii() == name.isascii() or not name.isascii()


@given(NAMES, NAMES, NAMES)
def test_every_table_is_found_again_by_its_path(database: str, schema: str, table: str) -> None:
    assert parse_table_path(table_path(database, schema, table)) == TablePlace(database, schema, table)


@given(BYTE_NAMES)
def test_the_longest_name_fits_into_a_file_name(raw: bytes) -> None:
    assert len(f"{encode_name(raw.decode('utf-8', 'surrogateescape'))}.sql".encode()) <= 255


OTHERS = ["globals.sql", "databases/a/schema.dump", "databases/a/tables/b/c", "x/a/tables/b/c.sql"]


@pytest.mark.parametrize("path", OTHERS)
def test_other_paths_are_no_tables(path: str) -> None:
    assert parse_table_path(path) is None


@given(NAMES, st.none() | NAMES, NAMES)
def test_a_selection_reads_what_it_prints(database: str, schema: str | None, table: str) -> None:
    selection = Selection(database, schema, table if schema is not None else None)
    assert Selection.parse(str(selection)) == selection


@pytest.mark.parametrize("name", ODD)
def test_a_selection_of_an_odd_name_is_read_with_or_without_needless_quotes(name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    assert Selection.parse(f"shop.{quoted}") == Selection("shop", name)


def test_what_is_written_plainly_keeps_its_case() -> None:
    assert Selection.parse("Shop.Public.Orders") == Selection("Shop", "Public", "Orders")


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", "a.b.c.d", 'a"b', '"a', '"a"b'])
def test_what_names_no_part_is_refused(text: str) -> None:
    with pytest.raises(ConfigInvalid, match="names no part"):
        Selection.parse(text)


def test_no_two_names_for_people_are_alike() -> None:
    assert dotted("a", "b.c") != dotted("a.b", "c")
    assert dotted("public", "orders") == "public.orders"


def test_sql_is_quoted() -> None:
    assert quote_identifier('a"b') == '"a""b"'
    assert quote_literal("it's") == "'it''s'"
    assert quote_literal("a\\b") == " E'a\\\\b'"
    with pytest.raises(ConfigInvalid):
        quote_identifier("a\0b")
