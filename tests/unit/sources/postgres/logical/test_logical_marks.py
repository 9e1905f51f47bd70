"""How databases that are not complete are told from everybody else's, and what names restores choose."""

from __future__ import annotations

import pytest

from holdfast.model.errors import IntegrityBroken
from holdfast.sources.postgres.logical.loading import redirected
from holdfast.sources.postgres.logical.marks import Mark, Stage, dated
from holdfast.sources.postgres.logical.swap import Exchange
from holdfast.sources.postgres.logical.verdict import merged_table
from holdfast.sources.postgres.logical.witness import Column, How, TableWitness

HEADER = b"SET client_encoding = 'UTF8';\n"


def test_a_mark_is_read_back_whatever_the_name_of_the_database() -> None:
    for name in ("shop", "two words for two", "a\nb", 'q"uote'):
        mark = Mark(Stage.READY, "0123abcd", "2026-01-15T12:00:00Z", name)
        assert Mark.parse(str(mark)) == mark


@pytest.mark.parametrize("text", ["", "the shop", "holdfast: loading", "holdfast: gone 0123abcd of x for y"])
def test_somebody_elses_comment_is_no_mark(text: str) -> None:
    assert Mark.parse(text) is None


def test_a_dated_name_keeps_its_date_and_whole_characters_within_63_bytes() -> None:
    name = dated("é" * 40, "before", "20260115t120000")
    assert len(name.encode()) <= 63
    assert name.endswith("_before_20260115t120000")
    assert name.startswith("éééé")


def test_a_swap_renames_the_old_one_before_the_new_one_takes_its_name() -> None:
    wish = Exchange("loading", "shop", "shop_before", "NULL")
    assert [statement for statement in wish.statements if "RENAME" in statement] == [
        'ALTER DATABASE "shop" RENAME TO "shop_before"',
        'ALTER DATABASE "loading" RENAME TO "shop"',
    ]


def test_rows_go_into_another_table_however_their_script_is_cut_into_pieces() -> None:
    rows = b'1\tCOPY "a"."b" (x)\n\\.\n'
    script = HEADER + b'COPY "a"."b ""c (" ("x") FROM stdin WITH (ENCODING \'UTF8\');\n' + rows
    for size in (1, 7, len(script)):
        pieces = iter([script[start : start + size] for start in range(0, len(script), size)])
        wanted = script.replace(b'"a"."b ""c ("', b'"s"."n""ew"', 1)
        assert b"".join(redirected(pieces, ("s", 'n"ew'))) == wanted


def test_a_script_that_does_not_begin_with_a_copy_is_refused() -> None:
    with pytest.raises(IntegrityBroken):
        list(redirected(iter([HEADER]), ("s", "new")))


def _leaf(name: str, rows: int, digest: int, columns: tuple[str, ...] = ("a", "b")) -> TableWitness:
    listed = tuple(Column(column, "integer") for column in columns)
    return TableWitness("s", name, listed, How.COMPARED, rows=rows, digest=f"{digest:032x}")


def test_partitions_are_compared_as_one_table_by_the_sum_of_their_digests() -> None:
    merged = merged_table(("s", "all"), [_leaf("p1", 2, (1 << 128) - 1), _leaf("p2", 3, 5)])
    assert (merged.title, merged.how, merged.rows, merged.digest) == ("s.all", How.COMPARED, 5, f"{4:032x}")


def test_partitions_with_columns_in_other_orders_are_only_counted_together() -> None:
    merged = merged_table(("s", "all"), [_leaf("p1", 2, 1), _leaf("p2", 3, 5, ("b", "a"))])
    assert (merged.how, merged.rows, merged.digest) == (How.COUNTED, 5, None)
