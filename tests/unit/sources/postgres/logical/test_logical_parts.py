"""What a part of a database takes along, from lists as pg_restore prints them."""

from __future__ import annotations

import pytest

from holdfast.model.errors import ConfigInvalid
from holdfast.sources.postgres.logical.archive import parse_list
from holdfast.sources.postgres.logical.names import Selection
from holdfast.sources.postgres.logical.parts import Part, choose_part

LIST = """;
; Archive created at 2026-01-15 12:00:00 UTC
;
90; 0 0 ENCODING - ENCODING
91; 1262 16384 DATABASE - shop al ice
92; 0 0 DATABASE PROPERTIES - shop al ice
6; 2615 16427 SCHEMA - od d al ice
7; 2615 16428 SCHEMA - od al ice
10; 1247 16388 TYPE public mood al ice
11; 1255 16393 FUNCTION public f() al ice
12; 1255 16431 FUNCTION public tf() al ice
20; 1259 16403 TABLE public items al ice
21; 1259 16396 TABLE public orders bob
;	depends on: 11 10
22; 1259 16397 TABLE public orders old bob
23; 1259 16428 TABLE od d t t al ice
;	depends on: 6
24; 1259 16438 TABLE od d bob
;	depends on: 7
30; 0 0 COMMENT public TABLE orders bob
;	depends on: 21
31; 0 0 ACL public TABLE items al ice
;	depends on: 20
40; 1259 16423 MATERIALIZED VIEW public mv al ice
;	depends on: 21 21 10
41; 1259 16423 VIEW od d over al ice
;	depends on: 6 23 21
50; 1259 16394 SEQUENCE public orders_id_seq bob
51; 0 0 SEQUENCE OWNED BY public orders_id_seq bob
;	depends on: 50
60; 1259 16415 TABLE public p al ice
61; 1259 16418 TABLE public p1 al ice
62; 1259 16419 TABLE public p2 al ice
63; 1259 16420 TABLE public p21 al ice
64; 0 0 TABLE ATTACH public p1 al ice
;	depends on: 61 60
65; 0 0 TABLE ATTACH public p2 al ice
;	depends on: 62 60
66; 0 0 TABLE ATTACH public p21 al ice
;	depends on: 63 62
70; 2604 16399 DEFAULT public orders id bob
;	depends on: 21 50 21
71; 2606 16402 CONSTRAINT public orders orders_pkey bob
;	depends on: 21
72; 1259 16413 INDEX public items_t_idx al ice
;	depends on: 20
73; 0 0 COMMENT public INDEX items_t_idx al ice
;	depends on: 72
74; 2620 16432 TRIGGER public orders tr bob
;	depends on: 21 12
75; 2606 16408 FK CONSTRAINT public items items_id_fkey al ice
;	depends on: 71 20 21
76; 0 0 PUBLICATION TABLE public orders bob
;	depends on: 21 99
"""
TABLES = [
    *(("public", name) for name in ("items", "orders", "orders old", "p1", "p21")),
    ("od d", "t t"),
    ("od", "d"),
]
OWNERS = ["al ice", "bob", "ice"]


def part(text: str) -> Part:
    return choose_part(parse_list(LIST), Selection.parse(text), TABLES, OWNERS)


def numbers(found: Part) -> set[int]:
    return {item.number for item in found.items} - {90}


def test_a_list_is_read_with_its_longest_kinds_and_what_each_item_leans_on() -> None:
    items = {item.number: item for item in parse_list(LIST)}
    assert items[92].kind == "DATABASE PROPERTIES"
    assert items[64].kind == "TABLE ATTACH"
    assert items[21].depends == (11, 10)
    assert items[23].rest == "od d t t al ice"


def test_a_table_brings_its_types_functions_sequence_key_trigger_and_comment_and_no_more() -> None:
    found = part("shop.public.orders")
    assert numbers(found) == {10, 11, 12, 21, 30, 50, 51, 70, 71, 74}
    assert found.tables == (("public", "orders"),)
    assert found.left_out == ()


def test_a_table_is_not_taken_for_one_whose_name_begins_alike() -> None:
    assert numbers(part('shop.public."orders old"')) == {22}


def test_a_foreign_key_to_a_table_outside_is_left_out_and_told() -> None:
    found = part("shop.public.items")
    assert numbers(found) == {20, 31, 72, 73}
    assert found.left_out == ("fk constraint public items items_id_fkey al ice",)
    assert "1 objects lean on tables outside the part" in found.notes[0]


def test_a_partitioned_table_brings_its_partitions_at_every_level_and_their_rows() -> None:
    found = part("shop.public.p")
    assert numbers(found) == {60, 61, 62, 63, 64, 65, 66}
    assert found.tables == (("public", "p1"), ("public", "p21"))


def test_a_schema_brings_what_is_in_it_and_leaves_out_a_view_over_another() -> None:
    found = part('shop."od d"')
    assert numbers(found) == {6, 23}
    assert found.tables == (("od d", "t t"),)
    assert found.left_out == ("view od d over al ice",)


def test_schemas_with_names_that_begin_alike_are_told_apart() -> None:
    found = part("shop.od.d")
    assert found.tables == (("od", "d"),)
    assert numbers(found) == {7, 24}


def test_a_whole_schema_keeps_views_keys_and_foreign_keys_inside_it() -> None:
    found = part("shop.public")
    assert {40, 75, 71, 20, 21, 60, 66} <= numbers(found)
    assert not {76, 6, 23, 91} & numbers(found)


def test_what_the_backup_does_not_have_is_named() -> None:
    with pytest.raises(ConfigInvalid, match=r"no table in shop\.public\.nothing"):
        part("shop.public.nothing")
    with pytest.raises(ConfigInvalid, match=r"no schema shop\.nowhere"):
        part("shop.nowhere")
