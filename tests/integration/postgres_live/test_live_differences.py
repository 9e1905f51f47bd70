"""One thing that is not as it was is named by the comparison, and then nothing is swapped in."""

from __future__ import annotations

import pytest
from tests.integration.postgres_live import shop
from tests.integration.postgres_live.conftest import Live

from holdfast.sources.postgres.logical.refill import PostgresServerRefill

PLANTED = (
    ("DELETE FROM orders WHERE id = 7", "table public.orders", "400 rows became 399"),
    ("UPDATE customers SET name = 'Customer 7' WHERE id = 7", "table public.customers", "not the same"),
    ("ALTER TABLE customers ALTER name TYPE varchar(100)", "table public.customers", "column name"),
    ("SELECT setval('orders_id_seq', 399)", "sequence public.orders_id_seq", "399"),
    ("DROP INDEX orders_by_customer", "orders_by_customer", "missing"),
    ("TRUNCATE days_2026", "table public.days_2026", "0"),
    ("DROP TABLE nothing_in_it", "table public.nothing_in_it", "missing"),
    ("INSERT INTO nothing_in_it VALUES (1)", "table public.nothing_in_it", "0 rows became 1"),
)


@pytest.mark.parametrize(("change", "name", "words"), PLANTED, ids=[change[:24] for change, _, _ in PLANTED])
def test_a_planted_difference_is_named_and_keeps_the_swap_away(live: Live, change: str, name: str, words: str) -> None:
    def at_step(step: str) -> None:
        if step == "compare":
            loaded = next(each for each in shop.databases(live.server) if each.startswith("holdfast_loading_"))
            shop.psql(live.server, loaded, change)

    before = live.value("SELECT oid::int FROM pg_database WHERE datname = 'shop'", "postgres")
    report = live.restore(live.target("shop", in_place=True), PostgresServerRefill(at_step=at_step))
    told = [str(each) for each in report.differences]
    assert any(name in line and words in line for line in told), told
    assert report.kept_as is None
    assert report.database in shop.databases(live.server)
    assert live.value("SELECT oid::int FROM pg_database WHERE datname = 'shop'", "postgres") == before
    assert any(report.database in note for note in report.notes)


def test_a_whole_database_beside_is_equal_in_all_that_pg_dump_tells(live: Live) -> None:
    report = live.restore(live.target("beside"))
    assert report.differences == ()
    assert (report.tables_compared, report.rows_compared) == (6, 50 + 400 + 60 + 4)
    assert shop.dump(live.server, "beside") == shop.dump(live.server, "shop")
    assert shop.belongs(live.server, "beside") == shop.belongs(live.server, "shop")
    assert live.value("SELECT count(*) FROM pg_stats WHERE tablename = 'orders'", "beside") != 0
