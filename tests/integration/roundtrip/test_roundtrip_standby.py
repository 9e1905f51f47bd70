"""A standby serves as the source, also across its promotion."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import StartPostgres
from tests.integration.postgres_capture.servers import execute, start_standby, value
from tests.integration.roundtrip.engine import backup_id, engine_of
from tests.integration.roundtrip.small import start_copy_of
from tests.servers import PostgresServers

from holdfast.application.application import Watcher
from holdfast.model.events import Progress
from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.port import Tier

MIDDLE_BYTES = 5_000_000


class Once:
    """Promotes a standby when part of its backup has passed."""

    def __init__(self, standby: ThrowawayPostgres) -> None:
        self._standby = standby
        self.done = False

    def __call__(self, _: str, progress: Progress) -> None:
        if progress.done_bytes > MIDDLE_BYTES and not self.done:
            self.done = True
            execute(self._standby, "SELECT pg_promote()")


@pytest.mark.parametrize("postgres_major", [15, 18], indirect=True, ids=["pg15", "pg18"])
def test_a_standby_is_backed_up_unless_it_is_promoted_meanwhile(
    postgres_servers: PostgresServers,
    postgres_server: ThrowawayPostgres,
    postgres_major: int,
    server_folder: Path,
    new_postgres: StartPostgres,
) -> None:
    execute(postgres_server, "CREATE TABLE quiet AS SELECT n AS id FROM generate_series(1, 1000) n")
    standby = start_standby(postgres_server, postgres_servers, postgres_major, new_postgres)
    engine = engine_of(standby, postgres_servers.new_folder)

    taken = engine.backup()
    first = backup_id(taken)
    assert any("standby" in notice for notice in taken.notices)
    promote = Once(standby)
    aborted = engine.backup(Tier.INCREMENTAL, max_rate="8MiB/s", watcher=Watcher(on_progress=promote))
    assert promote.done
    assert aborted.summary is None
    assert aborted.error is not None
    assert "promoted" in aborted.error.message
    assert aborted.error.hint
    assert [backup.id for backup in engine.application().backups()] == [first]
    execute(standby, "INSERT INTO quiet VALUES (1001)")
    second = backup_id(engine.backup(Tier.INCREMENTAL))

    for backup, rows, timeline in ((first, 1000, 2), (second, 1001, 3)):
        target = server_folder / backup / "data"
        outcome = engine.restore(backup, target)
        target.parent.chmod(0o711)
        assert any("taken from a standby" in note for note in outcome.notes) == (backup == first)
        copy = start_copy_of(postgres_servers, postgres_major, target)
        assert value(copy, "SELECT count(*) FROM quiet") == rows
        assert value(copy, "SELECT timeline_id FROM pg_control_checkpoint()") == timeline
        assert value(copy, "SELECT pg_is_in_recovery()") is False
        postgres_servers.drop(copy)
