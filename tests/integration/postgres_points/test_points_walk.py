"""The walk through real logs finds the very records that the server's own pg_waldump finds."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import psycopg
import pytest
from tests.integration.postgres_capture.servers import execute, run_program, value
from tests.integration.postgres_points.watched_log import WatchedLog
from tests.servers import PostgresServers, quick_settings

from holdfast.model.logs import Stretch
from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.postgres.details import format_lsn, parse_lsn
from holdfast.sources.postgres.wal_segments import segment_name
from holdfast.sources.postgres.wal_walk import Kind, Notable, Walk

LINE = re.compile(r"rmgr: (\S+)\s+len \(rec/tot\):\s*\d+/\s*(\d+), tx:\s*(\d+), lsn: (\S+), prev (\S+), desc: (.*)")
TIMED = re.compile(r"^(COMMIT|ABORT|COMMIT_PREPARED|ABORT_PREPARED)\b.*?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+) UTC")
PARAMETERS = {
    "wal_keep_size": "1GB",
    "max_prepared_transactions": "5",
    "wal_level": "logical",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "max_wal_size": "2GB",
}


@pytest.fixture(scope="module", params=[15, 16, 17, 18], ids=lambda major: f"pg{major}")
def busy(request: pytest.FixtureRequest, postgres_servers: PostgresServers) -> ThrowawayPostgres:
    server = postgres_servers.start(request.param, quick_settings(PARAMETERS))
    fill(server)
    return server


def fill(server: ThrowawayPostgres) -> None:
    execute(
        server,
        "CREATE TABLE t (id int, word text)",
        "INSERT INTO t SELECT n, repeat(md5(n::text), 3) FROM generate_series(1, 40000) n",
        "SELECT pg_logical_emit_message(false, 'test', repeat('large', 900000))",
        "SELECT pg_switch_wal()",
        "CREATE INDEX ON t (id)",
        "CHECKPOINT",
        "UPDATE t SET word = word || 'x' WHERE id % 3 = 0",
        "SELECT pg_create_restore_point('before the deploy, її')",
        "BEGIN; INSERT INTO t VALUES (0, ''); PREPARE TRANSACTION 'one'",
        "COMMIT PREPARED 'one'",
        "BEGIN; CREATE TABLE passing (); DROP TABLE t; SAVEPOINT s; CREATE TABLE other (); PREPARE TRANSACTION 'two'",
        "ROLLBACK PREPARED 'two'",
        "BEGIN; CREATE TABLE made (id int); INSERT INTO made VALUES (1); PREPARE TRANSACTION 'three'",
        "COMMIT PREPARED 'three'",
        "BEGIN; DELETE FROM t; ROLLBACK",
        "SELECT pg_switch_wal()",
        "INSERT INTO t VALUES (1, 'last')",
    )


def dumped(server: ThrowawayPostgres, start: str, end: str) -> list[tuple[int, str, int, int, str]]:
    """Return position, manager, length, transaction and description of each record, by pg_waldump."""
    folder = str(server.data_folder / "pg_wal")
    done = run_program(server, "pg_waldump", f"--path={folder}", f"--start={start}", f"--end={end}")
    found = []
    for line in done.stdout.splitlines():
        match = LINE.match(line)
        assert match, line
        found.append((parse_lsn(match[4]), match[1], int(match[2]), int(match[3]), match[6]))
    assert found, done.stderr
    return found


def test_the_walk_finds_the_records_that_pg_waldump_finds(busy: ThrowawayPostgres) -> None:
    log = WatchedLog()
    log.look(busy, settle=False)
    (line,) = log.generations()
    (whole,) = log.stretches(line.id)
    walk = Walk(whole.start, log.segment_bytes, log.read(line.id, whole))
    notable = list(walk)
    first = whole.start + 40
    records = dumped(busy, format_lsn(first), format_lsn(whole.end))
    assert walk.trouble is None
    assert walk.last is not None
    assert walk.last.start == records[-1][0]
    assert walk.ended == whole.end
    expected = [record for record in records if TIMED.match(record[4])]
    ends = [one for one in notable if one.kind not in (Kind.RESTORE_POINT, Kind.END_OF_RECOVERY)]
    assert [(one.start, one.kind.value.upper().replace(" ", "_"), one.at) for one in ends] == [
        (record[0], match[1], datetime.fromisoformat(match[2]).replace(tzinfo=UTC))
        for record in expected
        if (match := TIMED.match(record[4]))
    ]
    starts = {record[0] for record in records}
    assert {one.start for one in notable} <= starts
    plain = [(one.start, one.xid) for one in ends if one.kind in (Kind.COMMIT, Kind.ABORT)]
    transactions = {record[0]: record[3] for record in records}
    assert plain == [(start, transactions[start]) for start, _ in plain]
    assert [one.name for one in notable if one.kind is Kind.RESTORE_POINT] == ["before the deploy, її"]


def test_the_walk_knows_which_transaction_a_second_phase_ends(busy: ThrowawayPostgres) -> None:
    with psycopg.connect(busy.connection_string(), autocommit=True) as connection:
        start = value(busy, "SELECT pg_current_wal_flush_lsn()::text")
        xids: list[int] = []
        for ending in ("COMMIT", "ROLLBACK"):
            connection.execute("BEGIN")
            connection.execute("CREATE TABLE of_two_phases (id int primary key)")
            connection.execute("SAVEPOINT s")
            connection.execute("CREATE TABLE of_a_part (id int)")
            row = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
            assert row is not None
            xids.append(row[0])
            connection.execute("PREPARE TRANSACTION 'p'")
            connection.execute(f"{ending} PREPARED 'p'".encode())
            connection.execute("DROP TABLE IF EXISTS of_two_phases, of_a_part")
    found = notable_after(busy, parse_lsn(start))
    assert [one.xid for one in found if one.kind is Kind.COMMIT_PREPARED] == xids[:1]
    assert [one.xid for one in found if one.kind is Kind.ABORT_PREPARED] == xids[1:]


def notable_after(server: ThrowawayPostgres, position: int) -> list[Notable]:
    log = WatchedLog()
    log.look(server, settle=False)
    (line,) = log.generations()
    start = position - position % 8192
    end = log.stretches(line.id)[-1].end
    return [
        one for one in Walk(start, log.segment_bytes, log.read(line.id, Stretch(start, end))) if one.start >= position
    ]


def test_a_walk_from_any_page_joins_the_records(busy: ThrowawayPostgres) -> None:
    log = WatchedLog()
    log.look(busy, settle=False)
    (line,) = log.generations()
    (whole,) = log.stretches(line.id)
    every = list(Walk(whole.start, log.segment_bytes, log.read(line.id, whole)))
    from_large = every[1].start - every[1].start % 8192
    for start in (whole.start + 8192, whole.start + 50 * 8192, from_large, every[-1].start - every[-1].start % 8192):
        walk = Walk(start, log.segment_bytes, log.read(line.id, Stretch(start, whole.end)))
        assert [one for one in walk if one.start >= start + 4096] == [one for one in every if one.start >= start + 4096]
        assert walk.ended == whole.end


def test_a_record_cut_by_the_end_of_the_log_is_not_counted(busy: ThrowawayPostgres) -> None:
    log = WatchedLog()
    log.look(busy, settle=False)
    (line,) = log.generations()
    (whole,) = log.stretches(line.id)
    every = list(Walk(whole.start, log.segment_bytes, log.read(line.id, whole)))
    for one in (every[0], every[2], every[-1]):
        for cut in (8, 16, one.end - one.start - 1):
            walk = Walk(whole.start, log.segment_bytes, log.read(line.id, Stretch(whole.start, one.end - cut)))
            assert [found.start for found in walk] == [found.start for found in every if found.start < one.start]
            assert walk.last is not None
            assert walk.last.end == one.start or walk.last.end == one.start - one.start % 8192
        walk = Walk(whole.start, log.segment_bytes, log.read(line.id, Stretch(whole.start, one.end)))
        assert list(walk)[-1] == one


def test_a_walk_ends_where_the_log_is_that_of_another_place(busy: ThrowawayPostgres) -> None:
    log = WatchedLog()
    log.look(busy, settle=False)
    (line,) = log.generations()
    (whole,) = log.stretches(line.id)
    content = bytearray(b"".join(log.read(line.id, whole)))
    content[3 * 8192 : 4 * 8192] = content[2 * 8192 : 3 * 8192]
    walk = Walk(whole.start, log.segment_bytes, [bytes(content)])
    list(walk)
    assert walk.trouble is not None
    assert walk.ended <= whole.start + 3 * 8192


def test_a_record_that_a_crash_left_half_written_is_passed_over(postgres_servers: PostgresServers) -> None:
    """The log of a server that died within a record, as the one that follows it gets to see it."""
    for major in (15, 18):
        server = postgres_servers.start(major, quick_settings(PARAMETERS))
        execute(server, "CREATE TABLE t (id int)", "SELECT pg_switch_wal()", "INSERT INTO t VALUES (1)")
        execute(server, "SELECT pg_logical_emit_message(false, 'test', repeat('large', 10000))")
        execute(server, "INSERT INTO t VALUES (1)")
        end = parse_lsn(value(server, "SELECT pg_current_wal_insert_lsn()::text"))
        server.kill()
        segment = server.data_folder / "pg_wal" / segment_name(1, end // (16 << 20), 16 << 20)
        with segment.open("r+b") as file:  # what the disk had not got yet
            cut = end % (16 << 20) // 8192 * 8192 - 2 * 8192
            file.seek(cut)
            file.write(bytes((16 << 20) - cut))
        server.start()
        execute(server, "INSERT INTO t VALUES (2)")
        log = WatchedLog()
        log.look(server, settle=False)
        (line,) = log.generations()
        whole = log.stretches(line.id)[-1]
        walk = Walk(whole.start, log.segment_bytes, log.read(line.id, whole))
        list(walk)
        assert walk.trouble is None
        assert walk.ended == whole.end
        folder = str(server.data_folder / "pg_wal")
        start, end_text = format_lsn(whole.start + 40), format_lsn(whole.end)
        done = run_program(server, "pg_waldump", f"--path={folder}", f"--start={start}", f"--end={end_text}")
        assert "OVERWRITE_CONTRECORD" in done.stdout
        postgres_servers.drop(server)
