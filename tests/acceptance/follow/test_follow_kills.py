"""kill -9 of follower, server, and both, on a store that fails: no commit that was acknowledged is ever lost."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.acceptance.cli.cli_program import Program
from tests.acceptance.follow.killed_site import MAJOR, SOURCE, KilledSite, Service, Weather
from tests.acceptance.follow.ledger_writers import TABLES, LedgerWriters
from tests.acceptance.follow.test_follow_command import run_sql
from tests.contract.storage.moto_server import ACCESS_KEY, REGION, SECRET_KEY, make_bucket, running_moto
from tests.faults.storage.scripted_http import serving
from tests.servers import PostgresServers

BUCKET = "backups"
SHARE_FAILING = 0.03
SEED = 5
ROUNDS_SAMPLED = 3
ROUNDS_ALL = 50
ROUNDS_BETWEEN_CHECKS = 10
COMMITS_BEFORE_CHECK = 10
LOAD_SECONDS_MAX = 2.5
OUTAGE_SECONDS_MAX = 4.0


@pytest.fixture
def site(postgres_servers: PostgresServers, tmp_path: Path) -> Iterator[KilledSite]:
    """A server that waits for its follower with every commit, writers on it, and a first base backup."""
    server = postgres_servers.start_copy(MAJOR)
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    program = Program(tmp_path, keys)
    service = Service(program)
    with running_moto() as upstream:
        make_bucket(upstream, BUCKET)
        weather = Weather(upstream, SHARE_FAILING, SEED)
        with serving(weather.script) as endpoint:
            repository = f"s3://{BUCKET}/kept?region={REGION}&endpoint={endpoint}&path_style=true"
            source = f"{SOURCE}=postgresql://postgres@127.0.0.1:{server.port}/postgres"
            program.done("init", "--application", "shop", "--repository", repository, "--source", source)
            run_sql(server, *TABLES, "ALTER SYSTEM SET wal_keep_size = '64GB'", "SELECT pg_reload_conf()")
            writers = LedgerWriters(server, SEED)
            site = KilledSite(program, server, postgres_servers, weather, writers, service)
            try:
                service.start()
                site.until(lambda: program.done("backups", "--json").document, "there is a base backup")
                run_sql(server, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
                writers.start()
                yield site
            finally:
                service.kill()
                server.kill()
                writers.stop()
                postgres_servers.drop(server)


def kill_many(site: KilledSite, rounds: int) -> None:
    chance = random.Random(SEED)
    for number in range(1, rounds + 1):
        if chance.random() < 0.75:
            site.until_commits()  # else what was just started is killed before it is at work
        if chance.random() < 0.3:
            site.writers.burst.set()
        if chance.random() < 0.3:
            site.weather.send_away(chance.uniform(0, OUTAGE_SECONDS_MAX))
        time.sleep(chance.uniform(0, LOAD_SECONDS_MAX))
        site.kill(chance.choice(("follower", "server", "both")), chance)
        if number % ROUNDS_BETWEEN_CHECKS == 0 or number == rounds:
            site.until_commits(COMMITS_BEFORE_CHECK)
            site.weather.send_away(OUTAGE_SECONDS_MAX)  # whoever acknowledged now would be found out
            time.sleep(chance.uniform(0, OUTAGE_SECONDS_MAX))
            site.require_nothing_missing()
            site.service.start()
    site.until_commits()


def require_end(site: KilledSite, record: Callable[[str, object], None]) -> None:
    """Require that the last follower, asked to end, leaves one stretch, and that others ended for the store alone."""
    assert site.service.stop() == 0, site.service.said()
    site.require_log(whole=True)
    for code, said in site.service.ends:
        assert code == 1, said
        assert '"unavailable"' in said, said
    assert site.weather.failed
    record("commits acknowledged", len(site.writers.acknowledged))
    record("restores (acknowledged, found)", site.restores)
    record("log bytes compared", site.compared)
    record("requests failed", f"{site.weather.failed} of {len(site.weather.script.requests)}")
    record("follower ended by itself", len(site.service.ends))


def test_w14_no_acknowledged_commit_is_missing_whoever_is_killed(
    site: KilledSite, record_testsuite_property: Callable[[str, object], None]
) -> None:
    kill_many(site, ROUNDS_SAMPLED)
    require_end(site, record_testsuite_property)


@pytest.mark.soak
def test_w14_no_acknowledged_commit_is_missing_after_fifty_kills(
    site: KilledSite, record_testsuite_property: Callable[[str, object], None]
) -> None:
    kill_many(site, ROUNDS_ALL)
    require_end(site, record_testsuite_property)
