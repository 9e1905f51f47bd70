"""A restored server stops exactly where it was asked to: after real recoveries, nothing more and nothing less."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
from tests.integration.postgres_capture.servers import execute, value
from tests.integration.postgres_points.scene import WATCHED, Scene
from tests.servers import PostgresServers, quick_settings

from holdfast.model.errors import ConfigInvalid
from holdfast.sources.postgres.details import format_lsn, parse_lsn
from holdfast.sources.postgres.locate import Ask, Point


def insert(scene: Scene, number: int) -> None:
    execute(scene.server, f"INSERT INTO ledger VALUES ({number})")


@pytest.fixture(params=[15, 18], ids=lambda major: f"pg{major}")
def scene(request: pytest.FixtureRequest, postgres_servers: PostgresServers) -> Iterator[Scene]:
    server = postgres_servers.start(request.param, quick_settings(WATCHED))
    execute(server, "CREATE TABLE ledger (id int PRIMARY KEY)", "INSERT INTO ledger VALUES (1)")
    scene = Scene(postgres_servers, server)
    scene.back_up()
    yield scene
    postgres_servers.drop(server)


def test_a_moment_after_the_last_commit_of_an_idle_server_is_reached(scene: Scene) -> None:
    insert(scene, 2)
    moment = scene.log.look(scene.server)
    target = scene.locate(Point(Ask.TIME, time=moment))
    assert target.inclusive
    assert target.transaction is not None
    assert target.transaction.at <= moment
    assert scene.rows(target) == 2


def test_an_idle_server_that_wrote_nothing_since_its_backup_is_reached(scene: Scene) -> None:
    moment = scene.log.look(scene.server)
    assert scene.rows(Point(Ask.TIME, time=moment)) == 1
    assert scene.rows(Point(Ask.LATEST)) == 1


def test_the_latest_moment_is_the_last_record(scene: Scene) -> None:
    for number in (2, 3, 4):
        insert(scene, number)
    execute(scene.server, "SELECT pg_switch_wal()")
    scene.log.look(scene.server)
    assert scene.rows(Point(Ask.LATEST)) == 4
    insert(scene, 5)
    scene.log.look(scene.server)
    target = scene.locate(Point(Ask.LATEST))
    assert target.transaction is not None
    assert target.transaction.start <= target.lsn
    assert scene.rows(target) == 5


def test_a_moment_between_two_commits_has_the_first_and_not_the_second(scene: Scene) -> None:
    moments = []
    for number in range(2, 8):
        insert(scene, number)
        time.sleep(0.01)
        moments.append((number, scene.log.look(scene.server, settle=False)))
        time.sleep(0.01)
    insert(scene, 99)
    scene.log.look(scene.server)
    for number, moment in moments[::2]:
        target = scene.locate(Point(Ask.TIME, time=moment))
        assert not target.inclusive
        assert scene.rows(target) == number


def test_the_very_time_of_a_commit_includes_it(scene: Scene) -> None:
    insert(scene, 2)
    insert(scene, 3)
    scene.log.look(scene.server)
    target = scene.locate(Point(Ask.LATEST))
    assert target.transaction is not None
    at = target.transaction.at
    assert scene.rows(Point(Ask.TIME, time=at)) == 3
    assert scene.rows(Point(Ask.TIME, time=at - timedelta(microseconds=1))) == 2


def test_a_transaction_and_a_restore_point_and_a_position_are_reached_with_nothing_after_them(scene: Scene) -> None:
    with psycopg.connect(scene.server.connection_string(), autocommit=True) as connection:
        xids = []
        for number in (2, 3):
            connection.execute("BEGIN")
            connection.execute(f"INSERT INTO ledger VALUES ({number})".encode())
            row = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
            assert row is not None
            xids.append(row[0])
            connection.execute("COMMIT")
        row = connection.execute("SELECT pg_create_restore_point('before the deploy')::text").fetchone()
        assert row is not None
        mark = parse_lsn(row[0])
    scene.log.look(scene.server)
    assert scene.rows(Point(Ask.XID, xid=xids[0])) == 2
    assert scene.rows(Point(Ask.XID, xid=xids[1])) == 3
    assert scene.rows(Point(Ask.NAME, name="before the deploy")) == 3
    assert scene.rows(Point(Ask.LSN, lsn=mark)) == 3
    insert(scene, 4)
    scene.log.look(scene.server)
    assert scene.rows(Point(Ask.LSN, lsn=mark)) == 3
    assert scene.rows(Point(Ask.XID, xid=xids[0])) == 2


def test_a_prepared_transaction_is_undecided_before_its_commit_and_there_after_it(scene: Scene) -> None:
    execute(scene.server, "BEGIN; INSERT INTO ledger VALUES (2); PREPARE TRANSACTION 'one'")
    between = scene.log.look(scene.server, settle=False)
    time.sleep(0.01)
    execute(scene.server, "COMMIT PREPARED 'one'")
    after = scene.log.look(scene.server)
    assert scene.rows(Point(Ask.TIME, time=between)) == 1
    assert scene.rows(Point(Ask.TIME, time=after)) == 2


def test_r4_a_moment_before_a_backups_end_uses_the_backup_before_it(scene: Scene) -> None:
    insert(scene, 2)
    scene.log.look(scene.server)
    moment = scene.log.look(scene.server, settle=False)
    time.sleep(0.01)
    insert(scene, 3)
    newer = scene.back_up()
    insert(scene, 4)
    last = scene.log.look(scene.server)
    target = scene.locate(Point(Ask.TIME, time=moment))
    assert target.backup == scene.bases[0].id
    assert scene.rows(target) == 2
    assert scene.locate(Point(Ask.TIME, time=last)).backup == newer.id
    assert scene.rows(Point(Ask.TIME, time=last)) == 4


def test_r4_a_moment_before_every_backup_is_refused_with_the_nearest(scene: Scene) -> None:
    insert(scene, 2)
    end = scene.log.look(scene.server)
    with pytest.raises(ConfigInvalid) as caught:
        scene.locate(Point(Ask.TIME, time=end - timedelta(hours=1)))
    assert "before the end of the oldest backup" in caught.value.message
    assert "nearest" in caught.value.hint
    with pytest.raises(ConfigInvalid) as caught:
        scene.locate(Point(Ask.LSN, lsn=scene.bases[0].stop - 1))
    assert format_lsn(scene.bases[0].stop) in caught.value.hint


def test_a_moment_behind_the_stored_log_is_refused_with_the_nearest(scene: Scene) -> None:
    insert(scene, 2)
    end = scene.log.look(scene.server)
    with pytest.raises(ConfigInvalid) as caught:
        scene.locate(Point(Ask.TIME, time=end + timedelta(seconds=30)))
    assert "behind the end" in caught.value.message
    assert f"{end:%Y-%m-%dT%H}" in caught.value.hint
    insert(scene, 3)
    with pytest.raises(ConfigInvalid):
        scene.locate(Point(Ask.LSN, lsn=parse_lsn(value(scene.server, "SELECT pg_current_wal_flush_lsn()::text"))))
    with pytest.raises(ConfigInvalid, match="not in the stored log"):
        scene.locate(Point(Ask.NAME, name="never made"))
    with pytest.raises(ConfigInvalid, match="not in the stored log"):
        scene.locate(Point(Ask.XID, xid=4_000_000_000))


def test_what_a_backup_beside_old_recovery_targets_says_does_not_count(postgres_servers: PostgresServers) -> None:
    settings = quick_settings({**WATCHED, "recovery_target_name": "of the source", "recovery_target_inclusive": "off"})
    server = postgres_servers.start(18, settings)
    execute(server, "CREATE TABLE ledger (id int)", "INSERT INTO ledger VALUES (1)")
    scene = Scene(postgres_servers, server)
    scene.back_up()
    insert(scene, 2)
    scene.log.look(server)
    assert scene.rows(Point(Ask.LATEST)) == 2
    postgres_servers.drop(server)


def test_without_samples_a_moment_is_found_by_the_commits_themselves(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a log that was only pushed nobody told when it had reached where."""
    monkeypatch.setattr("holdfast.sources.postgres.wal_search.NEAR_BYTES", 1 << 20)
    monkeypatch.setattr("holdfast.sources.postgres.wal_search.CLOCK_STEP", timedelta(0))
    moments = []
    for number in range(2, 9):
        insert(scene, number)
        time.sleep(0.01)
        moments.append((number, scene.log.look(scene.server, settle=False)))
        time.sleep(0.01)
        execute(scene.server, "SELECT pg_switch_wal()")
    insert(scene, 99)
    scene.log.look(scene.server)
    scene.log.seen = {name: [] for name in scene.log.seen}
    targets = [scene.locate(Point(Ask.TIME, time=moment)) for _, moment in moments]
    assert [target.lsn for target in targets] == sorted({target.lsn for target in targets})
    assert scene.rows(targets[3]) == moments[3][0]
    with pytest.raises(ConfigInvalid):
        scene.locate(Point(Ask.TIME, time=moments[-1][1] + timedelta(minutes=1)))
    assert scene.rows(Point(Ask.LATEST)) == 99
