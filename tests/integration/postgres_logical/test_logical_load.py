"""Captures of a database whose tables are written, truncated, altered, rewritten and dropped all the while."""

from __future__ import annotations

import pytest
from tests.integration.postgres_logical.busy_database import ACCOUNTS, SCENE, change, load, transfer
from tests.integration.postgres_logical.logical_scene import Taken, capture, make_database, settings_of

from holdfast.sandbox import ThrowawayPostgres

CAPTURES = 5


def require_consistent(taken: Taken, database: str) -> None:
    """Fail where what was captured was never the state of the database."""
    accounts = [row.split(b"\t") for row in taken.sink.rows(database, "public", "accounts")]
    balances = {int(row[0]): int(row[1]) for row in accounts}
    expected = dict.fromkeys(range(1, ACCOUNTS + 1), 100)
    for row in taken.sink.rows(database, "public", "transfers"):
        source, target, amount = map(int, row.split(b"\t"))
        expected[source] -= amount
        expected[target] += amount
    assert balances == expected
    assert len(taken.sink.rows(database, "public", "rewritten")) == 2000
    assert len(taken.sink.rows(database, "public", "refilled")) == 500
    counted = next(each for each in taken.database(database).sequences if each.name == "counted")
    assert counted.last_value >= len(taken.sink.rows(database, "public", "transfers"))
    for table in taken.database(database).tables:
        assert table.rows == len(taken.sink.rows(database, "public", table.name))


@pytest.mark.parametrize("postgres_major", [15, 18], indirect=True)
def test_every_capture_under_load_is_one_state_of_the_database(shared_postgres: ThrowawayPostgres) -> None:
    database = make_database(shared_postgres, "loaded", *SCENE)
    with load(shared_postgres, database, transfer, change) as done:
        for _ in range(CAPTURES):
            before = list(done)
            require_consistent(capture(settings_of(shared_postgres, database)), database)
            assert done[0] > before[0]
    assert done[1] > CAPTURES / 2
