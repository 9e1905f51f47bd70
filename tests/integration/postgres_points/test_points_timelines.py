"""Real promotions: restores across the switch, back onto a fork, and the truth about what is missing."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from tests.integration.postgres_capture.servers import execute, value
from tests.integration.postgres_points.scene import WATCHED, Scene
from tests.servers import PostgresServers, quick_settings

from holdfast.model.errors import ConfigInvalid, IntegrityBroken, SourceFailed
from holdfast.model.logs import Stretch
from holdfast.sandbox import PostgresSettings, ThrowawayPostgres
from holdfast.sources.postgres.details import parse_lsn
from holdfast.sources.postgres.locate import Ask, Point

WAIT_SECONDS_MAX = 60
SEGMENT = 16 << 20


@pytest.fixture(params=[15, 18], ids=lambda major: f"pg{major}")
def scene(request: pytest.FixtureRequest, postgres_servers: PostgresServers) -> Iterator[Scene]:
    server = postgres_servers.start(request.param, quick_settings(WATCHED))
    execute(server, "CREATE TABLE ledger (id int PRIMARY KEY)", "INSERT INTO ledger VALUES (1)")
    scene = Scene(postgres_servers, server)
    scene.back_up()
    yield scene
    postgres_servers.drop(server)


def standby_of(scene: Scene, primary: ThrowawayPostgres) -> ThrowawayPostgres:
    """Start a standby from the newest backup, caught up with its primary."""
    folder = scene.restore(Point(Ask.LATEST))
    (folder / "recovery.signal").unlink()
    (folder / "standby.signal").touch()
    auto = folder / "postgresql.auto.conf"
    kept = [line for line in auto.read_text().splitlines() if "recovery_target" not in line and "primary" not in line]
    address = primary.connection_string().replace("'", "''")
    auto.write_text("\n".join([*kept, f"primary_conninfo = '{address}'", "recovery_target_timeline = 'latest'", ""]))
    settings = PostgresSettings(parameters={**quick_settings().parameters, **WATCHED}, standby=True)
    standby = scene.servers.start(primary.programs.major, settings, data_folder=folder)
    catch_up(primary, standby)
    return standby


def catch_up(primary: ThrowawayPostgres, standby: ThrowawayPostgres) -> None:
    position = value(primary, "SELECT pg_current_wal_flush_lsn()::text")
    until(standby, f"SELECT pg_last_wal_replay_lsn() >= '{position}'")


def promote(standby: ThrowawayPostgres) -> None:
    execute(standby, "SELECT pg_promote(true)")
    until(standby, "SELECT NOT pg_is_in_recovery()")
    execute(standby, "CHECKPOINT")


def until(server: ThrowawayPostgres, query: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not value(server, query):
        assert time.monotonic() < deadline, query
        time.sleep(0.05)


def insert(server: ThrowawayPostgres, number: int) -> None:
    execute(server, f"INSERT INTO ledger VALUES ({number})")


def test_w5_w8_a_restore_crosses_two_switches_and_ends_on_the_third_timeline(scene: Scene) -> None:
    insert(scene.server, 2)
    scene.log.look(scene.server, settle=False)
    second = standby_of(scene, scene.server)
    scene.log.look(scene.server, settle=False)
    promote(second)
    insert(second, 3)
    between = scene.log.look(second, settle=False)
    time.sleep(0.01)
    insert(second, 4)
    scene.log.look(second, settle=False)
    third = standby_of(scene, second)
    promote(third)
    insert(third, 5)
    scene.log.look(third)
    latest = scene.locate(Point(Ask.LATEST))
    assert latest.timeline == 3
    assert scene.bases[0].id == latest.backup
    restored = scene.start(latest)
    assert value(restored, "SELECT max(id) FROM ledger") == 5
    assert int(value(restored, "SELECT pg_walfile_name(pg_current_wal_lsn())")[:8], 16) == 4
    assert scene.locate(Point(Ask.TIME, time=between)).timeline == 2
    assert scene.rows(Point(Ask.TIME, time=between)) == 3


def test_w8_without_the_newest_history_the_server_would_not_reach_and_says_so(scene: Scene) -> None:
    second = standby_of(scene, scene.server) if scene.log.look(scene.server) else None
    assert second is not None
    promote(second)
    insert(second, 2)
    scene.log.look(second)
    target = scene.locate(Point(Ask.LATEST))
    folder = scene.restore(target)
    history = folder / "pg_wal" / "00000002.history"
    assert history.is_file()
    history.unlink()
    with pytest.raises(SourceFailed, match="timeline 2 does not exist"):
        scene.servers.start(scene.server.programs.major, quick_settings(), data_folder=folder)


def test_what_the_old_primary_wrote_on_is_reached_only_by_its_own_timeline(scene: Scene) -> None:
    insert(scene.server, 2)
    scene.log.look(scene.server)
    second = standby_of(scene, scene.server)
    promote(second)
    execute(scene.server, "INSERT INTO ledger VALUES (20)")
    scene.log.look(scene.server)
    insert(second, 30)
    moment = scene.log.look(second)
    rows = "SELECT max(id) FROM ledger"
    assert scene.rows(Point(Ask.TIME, time=moment), rows) == 30
    assert scene.rows(Point(Ask.LATEST), rows) == 30
    fork = scene.locate(Point(Ask.LATEST, timeline="1"))
    assert fork.timeline == 1
    assert scene.rows(fork, rows) == 20
    assert scene.rows(Point(Ask.LATEST, timeline="current"), rows) == 20
    with pytest.raises(ConfigInvalid, match="timeline 9 is not stored"):
        scene.locate(Point(Ask.LATEST, timeline="9"))


def test_r4_a_backup_of_an_abandoned_end_is_no_start_for_the_new_timeline(scene: Scene) -> None:
    scene.log.look(scene.server)
    second = standby_of(scene, scene.server)
    promote(second)
    insert(scene.server, 20)
    astray = scene.back_up()
    scene.log.look(scene.server)
    insert(second, 30)
    scene.log.look(second)
    target = scene.locate(Point(Ask.LATEST))
    assert target.backup != astray.id
    assert scene.rows(target, "SELECT max(id) FROM ledger") == 30
    assert scene.locate(Point(Ask.LATEST, timeline="1")).backup == astray.id


def test_w5_a_tail_of_the_old_primary_that_is_missing_ends_the_way_there_and_is_told(scene: Scene) -> None:
    insert(scene.server, 2)
    held = scene.log.look(scene.server)
    scene.log.look(scene.server)
    execute(scene.server, "SELECT pg_switch_wal()")
    insert(scene.server, 3)
    lost = parse_lsn(value(scene.server, "SELECT pg_current_wal_flush_lsn()::text"))
    execute(scene.server, "SELECT pg_switch_wal()")
    insert(scene.server, 4)
    scene.log.look(scene.server)
    second = standby_of(scene, scene.server)
    execute(scene.server, "SELECT pg_switch_wal()")
    insert(scene.server, 5)
    catch_up(scene.server, second)
    promote(second)
    insert(second, 6)
    newest = scene.log.look(second)
    scene.log.drop(1, Stretch(lost - lost % SEGMENT, lost + 3 * SEGMENT))
    target = scene.locate(Point(Ask.LATEST))
    assert any("lacks" in note for note in target.notes)
    assert target.timeline == 1
    assert scene.rows(target) == 2
    assert scene.rows(Point(Ask.TIME, time=held)) == 2
    with pytest.raises(ConfigInvalid) as caught:
        scene.locate(Point(Ask.TIME, time=newest))
    assert "lacks" in caught.value.hint
    renewed = scene.back_up(second)
    insert(second, 7)
    scene.log.look(second)
    after = scene.locate(Point(Ask.LATEST))
    assert after.backup == renewed.id
    assert scene.rows(after) == 7


def test_a_backup_in_the_segment_of_a_switch_is_followed_onto_the_new_timeline(scene: Scene) -> None:
    """The new timeline's first segment is needed whole, though the backup ends within it."""
    base = scene.bases[0]
    scene.log.look(scene.server)
    second = standby_of(scene, scene.server)
    promote(second)
    insert(second, 2)
    scene.log.look(second)
    fork = scene.log.lines[f"{2:032x}"].fork
    assert fork is not None
    target = scene.locate(Point(Ask.LATEST))
    folder = scene.restore(target)
    names = sorted(path.name for path in (folder / "pg_wal").iterdir() if len(path.name) == 24)
    assert names[-1].startswith("00000002")
    assert base.stop <= fork
    server = scene.servers.start(scene.server.programs.major, quick_settings(), data_folder=folder)
    assert value(server, "SELECT max(id) FROM ledger") == 2


def test_w11_a_hole_in_pg_wal_stops_the_server_instead_of_promoting_it(scene: Scene) -> None:
    """The target is the guard: a server that does not find it ends, and nobody takes it for restored."""
    for number in (2, 3, 4):
        execute(scene.server, "SELECT pg_switch_wal()")
        insert(scene.server, number)
    scene.log.look(scene.server)
    folder = scene.restore(Point(Ask.LATEST))
    names = sorted(path for path in (folder / "pg_wal").iterdir() if len(path.name) == 24)
    names[-2].unlink()
    with pytest.raises(SourceFailed, match="recovery ended before configured recovery target was reached"):
        scene.servers.start(scene.server.programs.major, quick_settings(), data_folder=folder)
    assert (folder / "recovery.signal").is_file()


def test_w13_an_idle_server_is_backed_up_and_reached_at_once(scene: Scene) -> None:
    """Its backup ends with a segment that is never filled: nothing waits for one more record."""
    begun = time.monotonic()
    scene.back_up()
    moment = scene.log.look(scene.server)
    target = scene.locate(Point(Ask.TIME, time=moment))
    assert scene.rows(target) == 1
    assert time.monotonic() - begun < WAIT_SECONDS_MAX


def test_w3_a_restored_copy_takes_no_timeline_number_that_is_stored(scene: Scene) -> None:
    scene.log.look(scene.server)
    second = standby_of(scene, scene.server)
    promote(second)
    insert(second, 2)
    scene.log.look(second)
    copy = scene.start(Point(Ask.LATEST, timeline="1"))
    taken = int(value(copy, "SELECT pg_walfile_name(pg_current_wal_lsn())")[:8], 16)
    assert taken not in {1, 2}
    assert value(copy, "SHOW archive_mode") == "off"


def test_r8_log_bytes_in_the_wrong_order_are_no_log(scene: Scene) -> None:
    insert(scene.server, 2)
    execute(scene.server, "CREATE TABLE wide AS SELECT n, repeat('x', 500) FROM generate_series(1, 2000) n")
    scene.log.look(scene.server)
    held = scene.log.held[f"{1:032x}"]
    start, content = held[-1]
    middle = -(-scene.bases[0].stop // SEGMENT) * SEGMENT + 20 * 8192
    at = middle - start
    swapped = content[:at] + content[at + 8192 : at + 16384] + content[at : at + 8192] + content[at + 16384 :]
    target = scene.locate(Point(Ask.LATEST))
    held[-1] = (start, swapped)
    with pytest.raises(IntegrityBroken, match="no page of the log"):
        scene.locate(Point(Ask.LATEST))
    folder = scene.restore(target)
    with pytest.raises(SourceFailed, match="recovery ended before configured recovery target was reached"):
        scene.servers.start(scene.server.programs.major, quick_settings(), data_folder=folder)
