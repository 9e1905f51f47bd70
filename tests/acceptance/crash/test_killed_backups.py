"""Real backups killed with SIGKILL at any time: what is listed restores, the next one works, nothing stays behind."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import psycopg
import pytest
from tests.acceptance.crash.holdfast_site import COMMAND_SECONDS_MAX, Site, load
from tests.conftest import StartPostgres

KILLS_SAMPLED = 6
KILLS_ALL = 30
SEED = 5
BALANCES = b"""
    SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)
       AND (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)
       AND (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)
"""


def kill_after(site: Site, seconds: float, tier: str) -> int:
    """Begin a backup, kill it, and return what the process ended with (0 where it was done before)."""
    process = site.start("backup", "--tier", tier, "--quiet")
    time.sleep(seconds)
    process.kill()
    process.communicate(timeout=COMMAND_SECONDS_MAX)
    return process.returncode


def kill_many(site: Site, kills: int) -> None:
    chance = random.Random(SEED)
    begun = time.monotonic()
    site.run("backup", "--tier", "full")
    whole_seconds = time.monotonic() - begun
    listed = site.backups()
    killed = 0
    for _ in range(kills):
        ended = kill_after(site, chance.uniform(0.2, 1.1) * whole_seconds, chance.choice(["full", "incremental"]))
        assert ended in {0, -signal.SIGKILL}
        killed += ended == -signal.SIGKILL
        if ended == 0:
            whole_seconds *= 0.7  # The machine has become faster than it was when this was measured.
        after = site.backups()
        # A backup killed after its commit is listed, and one killed before it is not; earlier ones always are.
        assert after[: len(listed)] == listed
        assert len(after) - len(listed) in ({1} if ended == 0 else {0, 1})
        site.run("backup", "--tier", chance.choice(["full", "incremental"]))
        listed = site.backups()
        assert len(listed) == len(after) + 1
        report = site.checked()
        assert report["sound"]
        assert report["areas"][0]["backups"] == len(listed)
        site.require_no_slots()
    assert killed >= kills // 3


def require_starts(site: Site, backup: str, target: Path, start: StartPostgres) -> None:
    site.run("restore", "orders", "--backup", backup, "--into", str(target), "--yes")
    server = start(18, data_folder=target)
    with psycopg.connect(server.connection_string(), autocommit=True) as connection:
        assert connection.execute(BALANCES).fetchone() == (True,)


def test_backups_killed_at_random_times_leave_only_whole_ones_and_the_next_works(
    site: Site, new_postgres: StartPostgres
) -> None:
    with load(site.server):
        kill_many(site, KILLS_SAMPLED)
    require_starts(site, site.backups()[-1], site.folder / "restored", new_postgres)


@pytest.mark.soak
def test_thirty_backups_killed_at_random_times_leave_only_whole_ones_and_the_next_works(
    site: Site, new_postgres: StartPostgres
) -> None:
    with load(site.server):
        kill_many(site, KILLS_ALL)
    for number, backup in enumerate(random.Random(SEED).sample(site.backups(), 3)):
        require_starts(site, backup, site.folder / f"restored-{number}", new_postgres)
