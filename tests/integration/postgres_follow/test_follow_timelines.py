"""Timelines change: a followed standby is promoted, a primary dies and its standby takes over, twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import StartPostgres
from tests.integration.postgres_capture.servers import start_standby
from tests.integration.postgres_follow.file_sink import FileSink
from tests.integration.postgres_follow.following import (
    SLOT,
    bytes_on_disk,
    flushed,
    following,
    run_sql,
    stored_end,
    stretches_of,
    until,
)
from tests.servers import PostgresServers

from holdfast.model.errors import Conflict
from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.postgres.follow.timelines import generation_of, history_of, parent_of

SEGMENT = 16 << 20
TABLE = "CREATE TABLE IF NOT EXISTS t (a int, b text)"
FILL = "INSERT INTO t SELECT g, repeat('x', 200) FROM generate_series(1, 5000) g"
newest = pytest.mark.parametrize("postgres_major", [18], indirect=True)

StartStandby = Callable[[ThrowawayPostgres], ThrowawayPostgres]


@pytest.fixture
def standby_of(postgres_servers: PostgresServers, postgres_major: int, new_postgres: StartPostgres) -> StartStandby:
    return lambda primary: start_standby(primary, postgres_servers, postgres_major, new_postgres)


def address(*servers: ThrowawayPostgres) -> str:
    ports = ",".join(str(server.port) for server in servers)
    hosts = ",".join("127.0.0.1" for _ in servers)
    return f"host={hosts} port={ports} user=postgres dbname=postgres"


def caught_up(standby: ThrowawayPostgres, position: int) -> bool:
    rows = run_sql(standby, "SELECT pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint")
    return int(str(rows[0][0])) >= position


def fork_of(sink: FileSink, timeline: int) -> int:
    [generation] = [one for one in sink.generations() if one.details["timeline"] == timeline]
    assert generation.fork is not None
    return generation.fork


def covered(sink: FileSink, timeline: int, position: int) -> bool:
    return any(one.start <= position <= one.end for one in stretches_of(sink, timeline))


def test_w5_failover_to_a_promoted_standby_twice_leaves_no_hole(
    postgres_server: ThrowawayPostgres, standby_of: StartStandby, tmp_path: Path
) -> None:
    first = postgres_server
    run_sql(first, TABLE)
    second = standby_of(first)
    third = standby_of(first)
    sink = FileSink(tmp_path)
    with following(address(first, second, third), sink) as running:
        run_sql(first, FILL)
        until(lambda: stored_end(sink) >= flushed(first), "timeline 1 is stored")
        for number, (dying, heir) in enumerate(((first, second), (second, third)), start=1):
            run_sql(dying, FILL)
            until(lambda dying=dying, heir=heir: caught_up(heir, flushed(dying)), "the standby has it")
            dying.kill()
            run_sql(heir, "SELECT pg_promote()", FILL)
            if heir is second:
                upstream = f"ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port={second.port} user=postgres'"
                run_sql(third, upstream, "SELECT pg_reload_conf()")
            until(lambda heir=heir, line=number + 1: stored_end(sink, line) >= flushed(heir), "it is followed")
    assert running.error is None, running.told
    assert [one.details["timeline"] for one in sink.generations()] == [1, 2, 3]
    for older, younger in ((1, 2), (2, 3)):
        fork = fork_of(sink, younger)
        assert covered(sink, older, fork)
        [stretch] = stretches_of(sink, younger)
        assert stretch.start == fork - fork % SEGMENT
    [last] = stretches_of(sink, 3)
    assert sink.whole(sink.generations()[-1].id, last) == bytes_on_disk(third, 3, last, SEGMENT)
    assert sink.gaps == []
    one, two, three = sink.generations()
    assert (two.parent, three.parent) == (one.id, two.id)
    history = history_of(three)
    assert history is not None
    assert history.text.encode() == (third.data_folder / "pg_wal" / "00000003.history").read_bytes()
    parent = parent_of(history)
    assert parent is not None
    assert generation_of(parent, SEGMENT) == two
    sink.close()


@newest
def test_w10_a_followed_standby_that_is_promoted_is_followed_over_the_switch(
    postgres_server: ThrowawayPostgres, standby_of: StartStandby, tmp_path: Path
) -> None:
    run_sql(postgres_server, TABLE)
    standby = standby_of(postgres_server)
    sink = FileSink(tmp_path)
    with following(address(standby), sink) as running:
        run_sql(postgres_server, FILL)
        until(lambda: stored_end(sink) >= flushed(postgres_server), "timeline 1 is stored")
        run_sql(standby, "SELECT pg_promote()", FILL)
        until(lambda: stored_end(sink, 2) >= flushed(standby), "timeline 2 is stored")
    assert running.error is None
    assert covered(sink, 1, fork_of(sink, 2))
    assert sink.gaps == []
    sink.close()


@newest
def test_w5_what_an_old_primary_wrote_after_the_switch_stays_as_a_fork(
    postgres_server: ThrowawayPostgres, standby_of: StartStandby, tmp_path: Path
) -> None:
    run_sql(postgres_server, TABLE)
    standby = standby_of(postgres_server)
    sink = FileSink(tmp_path)
    with following(address(postgres_server, standby), sink) as running:
        until(lambda: stored_end(sink) >= flushed(postgres_server), "timeline 1 is stored")
        run_sql(standby, "ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
        until(lambda: run_sql(standby, "SELECT count(*) FROM pg_stat_wal_receiver") == [(0,)], "it is cut off")
        run_sql(postgres_server, FILL)
        end = flushed(postgres_server)
        until(lambda: stored_end(sink) >= end, "timeline 1 is stored")
        postgres_server.kill()
        run_sql(standby, "SELECT pg_promote()", FILL)
        until(lambda: stored_end(sink, 2) >= flushed(standby), "timeline 2 is stored")
        assert fork_of(sink, 2) < end
        assert stored_end(sink, 1) == end
        postgres_server.start()
        assert not running.ended
    with following(address(postgres_server), sink) as alone:
        until(lambda: alone.ended, "an old primary is refused")
        assert isinstance(alone.error, Conflict)
    with following(address(postgres_server, standby), sink) as running:
        run_sql(standby, FILL)
        until(lambda: stored_end(sink, 2) >= flushed(standby), "of both the right one is followed")
    sink.close()


@newest
def test_w5_a_lost_tail_of_the_old_primary_is_a_gap_and_the_new_timeline_is_followed(
    postgres_server: ThrowawayPostgres, standby_of: StartStandby, tmp_path: Path
) -> None:
    run_sql(postgres_server, TABLE)
    standby = standby_of(postgres_server)
    sink = FileSink(tmp_path)
    with following(address(postgres_server), sink):
        until(lambda: stored_end(sink) >= flushed(postgres_server), "timeline 1 is stored")
    end = stored_end(sink)
    for _ in range(3):
        run_sql(postgres_server, FILL, "SELECT pg_switch_wal()", "CHECKPOINT")
    until(lambda: caught_up(standby, flushed(postgres_server)), "the standby has it")
    postgres_server.kill()
    run_sql(standby, "SELECT pg_promote()", FILL, "CHECKPOINT", "SELECT pg_switch_wal()", "CHECKPOINT")
    for name in sorted((standby.data_folder / "pg_wal").glob("00000001*")):
        name.unlink()  # As a server does that keeps nothing for us.
    with following(address(postgres_server, standby), sink) as running:
        until(lambda: stored_end(sink, 2) >= flushed(standby), "timeline 2 is stored")
        assert running.heard("GAP")
    assert running.error is None
    assert stored_end(sink, 1) == end
    assert len(sink.gaps) >= 1
    sink.close()


@newest
def test_w16_a_standby_that_may_take_over_holds_the_log_back_and_lets_it_go(
    postgres_server: ThrowawayPostgres,
    standby_of: StartStandby,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("holdfast.sources.postgres.follow.keeper.OTHERS_SECONDS", 0.2)
    monkeypatch.setattr("holdfast.sources.postgres.follow.keeper.SYNC_SECONDS", 0.2)
    run_sql(postgres_server, TABLE)
    standby = standby_of(postgres_server)
    sink = FileSink(tmp_path)
    slot = f"SELECT pg_wal_lsn_diff(restart_lsn, '0/0')::bigint FROM pg_replication_slots WHERE slot_name = '{SLOT}'"
    with following(address(postgres_server, standby), sink) as running:
        run_sql(postgres_server, FILL)
        end = flushed(postgres_server)
        until(lambda: stored_end(sink) >= end, "it is stored")
        until(lambda: any(int(str(row[0])) >= end for row in run_sql(standby, slot)), "the slot there moves on")
    assert running.error is None
    sink.close()


@newest
def test_w3_a_timeline_number_that_two_servers_took_is_refused(
    postgres_server: ThrowawayPostgres, standby_of: StartStandby, tmp_path: Path
) -> None:
    run_sql(postgres_server, TABLE)
    first, second = standby_of(postgres_server), standby_of(postgres_server)
    run_sql(second, "ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
    until(lambda: run_sql(second, "SELECT count(*) FROM pg_stat_wal_receiver") == [(0,)], "it is cut off")
    sink = FileSink(tmp_path)
    run_sql(postgres_server, FILL)
    until(lambda: caught_up(first, flushed(postgres_server)), "the standby has it")
    run_sql(first, "SELECT pg_promote()")
    run_sql(second, "SELECT pg_promote()")
    with following(address(first), sink):
        until(lambda: stored_end(sink, 2) >= flushed(first), "timeline 2 is stored")
    with following(address(second), sink) as running:
        until(lambda: running.ended, "it ends")
        assert isinstance(running.error, Conflict)
    sink.close()
