"""Restores of backups taken under a write load with DDL: each equals what its backup saw, to the row."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.postgres_live.live import execute, restore, rows, take, target, value
from tests.integration.postgres_logical.busy_database import ACCOUNTS, SCENE, change, load, transfer
from tests.servers import installed

from holdfast.sandbox import ThrowawayPostgres

BALANCES = f"""SELECT count(*) FROM accounts FULL JOIN (
    SELECT id, 100 + coalesce(sum(amount), 0) AS balance
    FROM generate_series(1, {ACCOUNTS}) id LEFT JOIN (
        SELECT source AS id, -amount AS amount FROM transfers UNION ALL SELECT target, amount FROM transfers
    ) moved USING (id) GROUP BY id
) expected USING (id) WHERE accounts.balance IS DISTINCT FROM expected.balance"""


def restore_under_load(server: ThrowawayPostgres, folder: Path, times: int) -> None:
    execute(server, "CREATE DATABASE busy")
    execute(server, *SCENE, database="busy")
    with load(server, "busy", transfer, change) as done:
        for number in range(times):
            before = list(done)
            content = take(server, folder / str(number), "busy", installed(server.programs.major).folder)
            report = restore(content, target(server, f"restored {number}"))
            assert report.differences == ()
            assert report.tables_compared >= 4
            assert value(server, BALANCES, report.database) == 0
            assert rows(server, "SELECT count(*) FROM rewritten", report.database) == [(2000,)]
            execute(server, f'DROP DATABASE "{report.database}"')
            assert done[0] > before[0]
    assert done[1] > times / 2


@pytest.mark.parametrize("postgres_major", [15, 18], indirect=True)
def test_what_was_captured_under_load_comes_back_equal(postgres_server: ThrowawayPostgres, tmp_path: Path) -> None:
    restore_under_load(postgres_server, tmp_path, 3)


@pytest.mark.soak
@pytest.mark.parametrize("postgres_major", [15, 18], indirect=True)
def test_twenty_of_twenty_captured_under_load_come_back_equal(
    postgres_server: ThrowawayPostgres, tmp_path: Path
) -> None:
    restore_under_load(postgres_server, tmp_path, 20)
