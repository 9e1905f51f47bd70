"""Where a mark lies: for a role that may make restore points, for one that may not, on a standby."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.integration.postgres_capture.servers import execute, start_standby, value
from tests.integration.postgres_points.scene import WATCHED, Scene
from tests.servers import PostgresServers, quick_settings

from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.postgres.details import parse_lsn
from holdfast.sources.postgres.locate import Ask, Point
from holdfast.sources.postgres.mark import MarkPosition, take_mark
from holdfast.sources.postgres.settings import settings_from_dsn

TOKEN = "0123456789abcdef" * 2


@pytest.fixture(params=[15, 18], ids=lambda major: f"pg{major}")
def scene(request: pytest.FixtureRequest, postgres_servers: PostgresServers) -> Iterator[Scene]:
    server = postgres_servers.start(request.param, quick_settings(WATCHED))
    execute(server, "CREATE TABLE ledger (id int)", "CREATE ROLE holdfast LOGIN REPLICATION")
    scene = Scene(postgres_servers, server)
    scene.back_up()
    yield scene
    postgres_servers.drop(server)


def mark_as(server: ThrowawayPostgres, role: str) -> MarkPosition:
    settings = settings_from_dsn(f"host=127.0.0.1 port={server.port} user={role} dbname=postgres")
    return take_mark(settings, TOKEN)


def back_at(scene: Scene, mark: MarkPosition) -> int:
    point = Point(Ask.LSN, lsn=mark.lsn, timeline=str(mark.timeline), system=mark.system_identifier)
    return scene.rows(point, "SELECT count(*) FROM ledger")


def test_a_mark_is_a_restore_point_in_the_log(scene: Scene) -> None:
    execute(scene.server, "INSERT INTO ledger VALUES (1)")
    mark = mark_as(scene.server, "postgres")
    assert (mark.restore_point, mark.notice, mark.timeline) == (f"holdfast:{TOKEN}", None, 1)
    scene.log.look(scene.server)
    assert back_at(scene, mark) == 1
    execute(scene.server, "INSERT INTO ledger VALUES (2)")
    scene.log.look(scene.server)
    assert back_at(scene, mark) == 1
    assert scene.locate(Point(Ask.NAME, name=f"holdfast:{TOKEN}")).lsn < mark.lsn


def test_a_role_that_may_not_make_one_marks_a_position_and_is_told_the_grant(scene: Scene) -> None:
    execute(scene.server, "INSERT INTO ledger VALUES (1)")
    mark = mark_as(scene.server, "holdfast")
    assert mark.restore_point is None
    assert mark.notice is not None
    assert "GRANT EXECUTE ON FUNCTION pg_create_restore_point(text)" in mark.notice
    execute(scene.server, "INSERT INTO ledger VALUES (2)")
    scene.log.look(scene.server)
    assert back_at(scene, mark) == 1
    execute(scene.server, "GRANT EXECUTE ON FUNCTION pg_create_restore_point(text) TO holdfast")
    assert mark_as(scene.server, "holdfast").notice is None


def test_a_mark_right_behind_a_switch_of_segments_lies_before_the_next_header(scene: Scene) -> None:
    execute(scene.server, "INSERT INTO ledger VALUES (1)", "SELECT pg_switch_wal()")
    mark = mark_as(scene.server, "holdfast")
    scene.log.look(scene.server)
    assert back_at(scene, mark) == 1


def test_a_mark_of_a_standby_is_what_it_has_replayed(postgres_servers: PostgresServers) -> None:
    primary = postgres_servers.start(18, quick_settings(WATCHED))
    standby = start_standby(primary, postgres_servers, 18, postgres_servers.start)
    mark = mark_as(standby, "postgres")
    assert mark.restore_point is None
    assert mark.notice is not None
    assert "standby" in mark.notice
    assert mark.lsn <= parse_lsn(value(primary, "SELECT pg_current_wal_insert_lsn()::text"))
    assert mark.system_identifier == value(primary, "SELECT system_identifier::text FROM pg_control_system()")
    postgres_servers.drop(standby)
    postgres_servers.drop(primary)
