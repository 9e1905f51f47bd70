"""A restore in place that cannot end well fails before it loads, and one that ended is never told as stopped."""

from __future__ import annotations

import pytest
from tests.integration.postgres_capture.servers import execute
from tests.integration.postgres_live import shop
from tests.integration.postgres_live.conftest import Live

from holdfast.model.errors import HoldfastError
from holdfast.sources.postgres.connection import Session
from holdfast.sources.postgres.logical.refill import PostgresServerRefill


def test_a_live_database_that_takes_no_connections_is_told_before_anything_is_written(live: Live) -> None:
    # What an operator does at first to keep the application out.
    execute(live.server, "ALTER DATABASE shop ALLOW_CONNECTIONS false")
    steps: list[str] = []
    try:
        with pytest.raises(HoldfastError, match="shop") as raised:
            live.restore(live.target("shop", in_place=True), PostgresServerRefill(at_step=steps.append))
    finally:
        execute(live.server, "ALTER DATABASE shop ALLOW_CONNECTIONS true")
    assert "CONNECTION" in raised.value.hint
    assert steps == []
    assert shop.databases(live.server) == {"shop"}


def test_a_stop_at_the_last_moment_is_either_before_the_swap_or_too_late(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    stopped: list[bool] = []
    send = Session.send

    def send_and_stop(self: Session, statement: str, params: tuple[str | None, ...] = ()) -> None:
        send(self, statement, params)
        if statement == "COMMIT" and steps[-1:] == ["swap"]:
            stopped.append(True)

    before = live.value("SELECT oid::int FROM pg_database WHERE datname = 'shop'", "postgres")
    monkeypatch.setattr(Session, "send", send_and_stop)
    refill = PostgresServerRefill(stop_requested=lambda: bool(stopped), at_step=steps.append)
    report = live.restore(live.target("shop", in_place=True), refill)
    assert stopped
    assert report.database == "shop"
    assert live.value("SELECT oid::int FROM pg_database WHERE datname = 'shop'", "postgres") != before
