"""A part of a backup comes back with what it needs and nothing else, and what lives is not touched."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest
from tests.integration.postgres_capture.servers import execute
from tests.integration.postgres_live import shop
from tests.integration.postgres_live.conftest import Live

from holdfast.model.errors import Conflict, HoldfastError
from holdfast.sources.postgres.logical.refill import PostgresServerRefill

RELATIONS = (
    "SELECT coalesce(array_agg(c.oid::regclass::text || ' ' || c.relkind::text ORDER BY c.relname), '{}') "
    "FROM pg_class c "
    "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
)


@contextmanager
def a_writer(live: Live) -> Iterator[list[int]]:
    """An application that goes on; yields its commits so far."""
    commits, stop = [0], threading.Event()

    def write() -> None:
        with psycopg.connect(live.server.connection_string("shop"), autocommit=True) as connection:
            connection.execute("SET lock_timeout = '2s'")
            while not stop.is_set():
                connection.execute("UPDATE orders SET total = total WHERE id = 1")
                connection.execute("ALTER TABLE orders ALTER total SET STATISTICS 50")
                commits[0] += 1

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    yield commits
    stop.set()
    thread.join(20)
    assert not thread.is_alive()


def untouched(live: Live) -> list[object]:
    """Facts about the shop that no restore of a part may change: the files and the catalog rows of everything."""
    return [
        live.value("SELECT array_agg((oid, relfilenode, relkind)::text ORDER BY oid) FROM pg_class WHERE oid > 16383"),
        live.value(
            "SELECT array_agg((objid, refobjid, deptype)::text ORDER BY objid, refobjid, deptype) FROM pg_depend "
            "WHERE objid > 16383"
        ),
        live.value("SELECT array_agg(rolname::text || coalesce(rolpassword, '') ORDER BY oid) FROM pg_authid"),
        shop.belongs(live.server, "shop"),
    ]


def test_one_table_brings_its_types_functions_and_sequence_and_no_other_table(live: Live) -> None:
    before = untouched(live)
    report = live.restore(live.target("part", only="shop.public.orders"))
    assert report.differences == ()
    assert report.tables_compared == 1
    assert live.value(RELATIONS, "part") == ["orders r", "orders_by_customer i", "orders_id_seq S", "orders_pkey i"]
    assert live.value("SELECT nextval('orders_id_seq')", "part") == 401
    assert live.value("INSERT INTO orders (feels) VALUES ('glad') RETURNING total", "part") == 42
    assert any("left out" in note for note in report.notes)
    assert untouched(live) == before


def test_a_partitioned_table_is_its_partitions(live: Live) -> None:
    report = live.restore(live.target("part", only="shop.public.days"))
    assert report.differences == ()
    assert live.value("SELECT count(*) FROM days", "part") == 60
    assert live.value("SELECT count(*) FROM days_2025", "part") == 30
    assert live.value("SELECT count(*) FROM pg_index WHERE indisvalid", "part") != 0


def test_rows_go_into_a_table_beside_while_the_application_goes_on(live: Live) -> None:
    before = untouched(live)
    target = replace(live.target("shop", only="shop.public.orders"), into_table="orders_restored_20260115")
    with a_writer(live) as commits:
        counted: list[int] = []
        refill = PostgresServerRefill(at_step=lambda step: counted.append(commits[0]))
        report = live.restore(target, refill)
    assert report.differences == ()
    assert (report.tables_compared, report.rows_compared) == (1, 400)
    assert counted[-1] > counted[0]
    same = "SELECT count(*) FROM orders_restored_20260115 r JOIN orders o USING (id, customer, feels, total, doubled)"
    assert live.value(same) == 400
    execute(live.server, "DROP TABLE orders_restored_20260115", database="shop")
    assert untouched(live) == before
    assert shop.databases(live.server) == {"shop"}


def test_a_table_beside_of_a_table_that_was_dropped(live: Live) -> None:
    execute(live.server, "ALTER TABLE nothing_in_it RENAME TO gone", database="shop")
    target = replace(live.target("shop", only="shop.public.nothing_in_it"), into_table="nothing_in_it")
    assert live.restore(target).differences == ()
    execute(live.server, "DROP TABLE nothing_in_it", "ALTER TABLE gone RENAME TO nothing_in_it", database="shop")


def test_a_name_that_is_taken_for_a_table_is_refused_and_its_table_stays(live: Live) -> None:
    target = replace(live.target("shop", only="shop.public.orders"), into_table="customers")
    with pytest.raises(Conflict, match="customers"):
        live.restore(target)
    assert live.value("SELECT count(*) FROM customers") == 50
    assert shop.databases(live.server) == {"shop"}


def test_a_table_too_long_a_name_is_refused_rather_than_cut(live: Live) -> None:
    # PostgreSQL cuts names at 63 bytes: two that differ after that are one.
    target = replace(live.target("shop", only="shop.public.orders"), into_table="o" * 64)
    with pytest.raises(HoldfastError):
        live.restore(target)
    assert live.value(f"SELECT to_regclass('{'o' * 63}')::text") is None


def test_a_database_too_long_a_name_is_refused_rather_than_cut(live: Live) -> None:
    with pytest.raises(HoldfastError):
        live.restore(live.target("d" * 64))
    assert shop.databases(live.server) == {"shop"}
