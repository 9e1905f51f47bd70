"""One server followed: what is stored, what is acknowledged, and how it ends."""

from __future__ import annotations

import time
from pathlib import Path

import psycopg
import pytest
from tests.conftest import StartPostgres
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

from holdfast.model.errors import Conflict
from holdfast.sandbox import ThrowawayPostgres

SEGMENT = 16 << 20
FILL = "INSERT INTO t SELECT g, repeat('x', 200) FROM generate_series(1, 5000) g"
TABLE = "CREATE TABLE IF NOT EXISTS t (a int, b text)"
newest = pytest.mark.parametrize("postgres_major", [18], indirect=True)


def test_every_byte_of_the_log_is_stored_and_acknowledged(postgres_server: ThrowawayPostgres, tmp_path: Path) -> None:
    sink = FileSink(tmp_path)
    with following(postgres_server.connection_string(), sink) as running:
        run_sql(postgres_server, TABLE, FILL, FILL)
        end = flushed(postgres_server)
        until(lambda: stored_end(sink) >= end, "everything is stored")
        held = "SELECT restart_lsn >= pg_current_wal_flush_lsn() FROM pg_replication_slots"
        until(lambda: run_sql(postgres_server, held) == [(True,)], "the slot moved on")
    assert running.error is None
    [stretch] = stretches_of(sink, 1)
    assert stretch.start % SEGMENT == 0
    [generation] = sink.generations()
    assert sink.whole(generation.id, stretch) == bytes_on_disk(postgres_server, 1, stretch, SEGMENT)
    assert sink.samples
    assert sink.samples == sorted(sink.samples)
    sink.close()


@newest
def test_a_stopped_follower_has_stored_what_it_read_and_the_next_goes_on_there(
    postgres_server: ThrowawayPostgres, tmp_path: Path
) -> None:
    sink = FileSink(tmp_path, flush_seconds=60)
    with following(postgres_server.connection_string(), sink):
        run_sql(postgres_server, TABLE, FILL)
        end = flushed(postgres_server)
        until(lambda: sink._position and sink._position >= end, "it was read")
    assert stored_end(sink) >= end
    sink.close()
    run_sql(postgres_server, FILL)
    again = FileSink(tmp_path)
    with following(postgres_server.connection_string(), again) as running:
        later = flushed(postgres_server)
        until(lambda: stored_end(again) >= later, "it goes on")
    assert running.error is None
    assert len(stretches_of(again, 1)) == 1
    assert again.gaps == []
    again.close()


@newest
def test_an_idle_server_has_samples_that_move_on(postgres_server: ThrowawayPostgres, tmp_path: Path) -> None:
    sink = FileSink(tmp_path)
    with following(postgres_server.connection_string(), sink):
        until(lambda: stored_end(sink) >= flushed(postgres_server), "all is read")
        seen = len(sink.samples)
        until(lambda: len(sink.samples) >= seen + 3, "quiet samples come")
    first, last = sink.samples[seen], sink.samples[-1]
    assert last.at > first.at
    assert last.position >= first.position
    sink.close()


def test_w14_a_commit_that_waits_for_us_returns_only_once_its_bytes_are_stored(
    new_postgres: StartPostgres, tmp_path: Path
) -> None:
    server = new_postgres(18)
    run_sql(server, TABLE)
    sink = FileSink(tmp_path, flush_seconds=600)
    with following(server.connection_string(), sink):
        until(lambda: run_sql(server, "SELECT count(*) FROM pg_stat_replication") == [(1,)], "we are connected")
        run_sql(server, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        with psycopg.connect(server.connection_string(), autocommit=True) as connection:
            for _ in range(5):
                connection.execute("INSERT INTO t VALUES (1, 'y')")
                reached = connection.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
                assert reached is not None
                high, low = str(reached[0]).split("/")
                # A record of nobody's may follow the commit; the commit itself lies well before the insert position.
                assert stored_end(sink) + 4096 >= (int(high, 16) << 32) + int(low, 16)
        state = run_sql(
            server, "SELECT sync_state, write_lsn = flush_lsn, flush_lsn = replay_lsn FROM pg_stat_replication"
        )
        assert state == [("sync", True, True)]
        assert sink.hurries[-1]
    sink.close()


def test_w14_a_primary_stops_though_a_part_of_a_segment_was_not_due_to_be_stored(
    new_postgres: StartPostgres, tmp_path: Path
) -> None:
    server = new_postgres(18)
    sink = FileSink(tmp_path, flush_seconds=600)
    with following(server.connection_string(), sink):
        run_sql(server, TABLE, FILL)
        end = flushed(server)
        until(lambda: sink._position and sink._position >= end, "it was read")
        server.stop()
        assert "received fast shutdown request" in server.log_excerpt()
        assert "received immediate shutdown request" not in server.log_excerpt()
    sink.close()


def test_w6_the_last_record_before_a_shutdown_is_stored(new_postgres: StartPostgres, tmp_path: Path) -> None:
    server = new_postgres(18)
    sink = FileSink(tmp_path, flush_seconds=600)
    with following(server.connection_string(), sink):
        run_sql(server, TABLE, FILL)
        until(lambda: sink._position, "it is read")
        server.stop()
        until(lambda: stored_end(sink) > 0, "all is stored")
        # The shutdown checkpoint is the last record; pg_control says where it begins.
        control = (server.data_folder / "global" / "pg_control").read_bytes()
        checkpoint = int.from_bytes(control[32:40], "little")
        until(lambda: stored_end(sink) > checkpoint, "the shutdown checkpoint is stored")
    sink.close()


def test_w14_a_primary_stops_while_nothing_can_be_stored(
    new_postgres: StartPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.sources.postgres.follow.stream.STALL_SECONDS_MAX", 3.0)
    server = new_postgres(18)
    sink = FileSink(tmp_path)
    with following(server.connection_string(), sink) as running:
        run_sql(server, TABLE)
        until(lambda: stored_end(sink) >= flushed(server), "all is stored")
        sink.block(True)
        run_sql(server, FILL)
        server.stop()
        assert "received immediate shutdown request" not in server.log_excerpt()
        until(lambda: running.heard("nothing became durable"), "it says so")
        assert not running.ended
        sink.block(False)
        server.start()
        run_sql(server, FILL)
        until(lambda: stored_end(sink) >= flushed(server), "it goes on, without a gap")
    assert len(stretches_of(sink, 1)) == 1
    sink.close()


@newest
def test_reading_stops_while_there_is_no_room_and_the_connection_lives_on(
    postgres_server: ThrowawayPostgres, tmp_path: Path
) -> None:
    sink = FileSink(tmp_path, room_bytes=1 << 20)
    run_sql(postgres_server, "ALTER SYSTEM SET wal_sender_timeout = '2s'", "SELECT pg_reload_conf()", TABLE)
    with following(postgres_server.connection_string(), sink) as running:
        until(lambda: stored_end(sink) >= flushed(postgres_server), "all is stored")
        pid = "SELECT pid FROM pg_stat_replication"
        before = run_sql(postgres_server, pid)
        sink.block(True)
        run_sql(postgres_server, *[FILL] * 8)
        assert not _holds(lambda: sink._waiting_bytes < 2 << 20, 4.0)
        assert run_sql(postgres_server, pid) == before
        sink.block(False)
        until(lambda: stored_end(sink) >= flushed(postgres_server), "it catches up")
        assert run_sql(postgres_server, pid) == before
    assert running.error is None
    assert len(stretches_of(sink, 1)) == 1
    sink.close()


def test_w14_a_role_that_sees_nothing_but_the_log_still_knows_that_commits_wait(
    new_postgres: StartPostgres, tmp_path: Path
) -> None:
    server = new_postgres(18)
    run_sql(server, TABLE, "CREATE ROLE plain LOGIN REPLICATION", "ALTER SYSTEM SET synchronous_standby_names = '*'")
    run_sql(server, "SELECT pg_reload_conf()")
    sink = FileSink(tmp_path, flush_seconds=600)
    with following(server.connection_string().replace("postgres'", "plain'", 1), sink) as running:
        until(lambda: run_sql(server, "SELECT usename FROM pg_stat_replication") == [("plain",)], "it is connected")
        until(lambda: sink._position, "it reads")
        run_sql(server, *["INSERT INTO t VALUES (1, 'z')"] * 5)
        assert sink.hurries[-1]
        time.sleep(3.0)  # Longer than the first look at who waits.
        run_sql(server, *["INSERT INTO t VALUES (1, 'z')"] * 5)
        assert sink.hurries[-1]
    assert running.error is None
    sink.close()


def _holds(fact: object, seconds: float) -> bool:
    """Return whether a fact was broken at any time."""
    assert callable(fact)
    deadline = time.monotonic() + seconds
    broken = False
    while time.monotonic() < deadline:
        broken = broken or not fact()
        time.sleep(0.05)
    return broken


def test_a_server_that_crashes_is_followed_again_without_a_gap(new_postgres: StartPostgres, tmp_path: Path) -> None:
    server = new_postgres(18)
    sink = FileSink(tmp_path)
    with following(server.connection_string(), sink) as running:
        run_sql(server, TABLE)
        for _ in range(3):
            run_sql(server, FILL)
            server.kill()
            server.start()
        run_sql(server, FILL)
        until(lambda: stored_end(sink) >= flushed(server), "all is stored")
    assert running.error is None
    assert len(stretches_of(sink, 1)) == 1
    sink.close()


def test_w15_a_lost_slot_is_said_recorded_as_a_gap_and_made_anew(new_postgres: StartPostgres, tmp_path: Path) -> None:
    server = new_postgres(18)
    sink = FileSink(tmp_path)
    with following(server.connection_string(), sink):
        run_sql(server, TABLE)
        until(lambda: stored_end(sink) >= flushed(server), "all is stored")
    end = stored_end(sink)
    run_sql(server, "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'", "SELECT pg_reload_conf()")
    state = "SELECT wal_status FROM pg_replication_slots"
    until(lambda: run_sql(server, FILL, "SELECT pg_switch_wal()", "CHECKPOINT", state) == [("lost",)], "it is lost")
    with following(server.connection_string(), sink) as running:
        until(lambda: stored_end(sink) >= flushed(server), "it follows again")
        before, after = stretches_of(sink, 1)
        assert before.end == end
        assert after.start > end
        assert running.heard("was lost")
        assert running.heard("take one now")
        assert len(sink.gaps) == 1
        assert run_sql(server, "SELECT wal_status FROM pg_replication_slots") != [("lost",)]
    sink.close()


@newest
def test_a_dropped_slot_whose_log_is_still_there_leaves_no_gap(
    postgres_server: ThrowawayPostgres, tmp_path: Path
) -> None:
    sink = FileSink(tmp_path)
    with following(postgres_server.connection_string(), sink):
        run_sql(postgres_server, TABLE)
        until(lambda: stored_end(sink) >= flushed(postgres_server), "all is stored")
    run_sql(postgres_server, f"SELECT pg_drop_replication_slot('{SLOT}')", FILL)
    with following(postgres_server.connection_string(), sink):
        until(lambda: stored_end(sink) >= flushed(postgres_server), "it follows again")
    assert len(stretches_of(sink, 1)) == 1
    assert sink.gaps == []
    sink.close()


def test_w3_another_system_is_refused(new_postgres: StartPostgres, tmp_path: Path) -> None:
    first, second = new_postgres(18), new_postgres(18)
    sink = FileSink(tmp_path)
    with following(first.connection_string(), sink):
        until(lambda: stored_end(sink) >= flushed(first), "all is stored")
    with following(second.connection_string(), sink) as running:
        until(lambda: running.ended, "it ends")
        assert isinstance(running.error, Conflict)
        assert "adopt" in running.error.hint
    assert run_sql(second, "SELECT count(*) FROM pg_replication_slots") == [(0,)]
    sink.close()


@newest
def test_w15_a_server_whose_log_differs_from_the_stored_tail_is_refused(
    postgres_server: ThrowawayPostgres, tmp_path: Path
) -> None:
    sink = FileSink(tmp_path)
    with following(postgres_server.connection_string(), sink):
        run_sql(postgres_server, TABLE, FILL)
        until(lambda: stored_end(sink) >= flushed(postgres_server), "all is stored")
    last = sorted(tmp_path.glob("*/*.log"))[-1]
    content = bytearray(last.read_bytes())
    content[-1] ^= 1
    last.write_bytes(content)
    with following(postgres_server.connection_string(), sink) as running:
        until(lambda: running.ended, "it ends")
        assert isinstance(running.error, Conflict)
        assert "differs" in running.error.message
    sink.close()
