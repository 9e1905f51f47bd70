"""A copy that was used, damaged or never finished is brought back to the backup, and only what differs is written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.postgres_capture.servers import execute, value
from tests.integration.roundtrip.cluster import verify_backup
from tests.integration.roundtrip.engine import SOURCE
from tests.integration.roundtrip.small import DIGEST, Small, facts_of_tree, open_to_server, start_copy_of
from tests.servers import PostgresServers

from holdfast.model.errors import ConfigInvalid, SourceFailed
from holdfast.sources.postgres.refill_locations import beside

OLDEST_AND_NEWEST = pytest.mark.parametrize("small", [15, 18], indirect=True, ids=["pg15", "pg18"])
RESTORE_SECONDS_MAX = 120
WAL_SEGMENT_BYTES = 16 << 20

DYING_RESTORE = """
import os, signal, sys
from pathlib import Path
from holdfast.application.application import Watcher, open_application

def die_in_the_middle(source, progress):
    if progress.done_bytes > progress.expected_bytes * float(sys.argv[5]):
        os.kill(os.getpid(), signal.SIGKILL)

application = open_application(sys.argv[1], watcher=Watcher(on_progress=die_in_the_middle))
plan = application.plan_restore(sys.argv[2], sys.argv[3], Path(sys.argv[4]), delta=Path(sys.argv[4]).exists())
application.restore(plan)
"""


def use_and_damage(small: Small, servers: PostgresServers, folder: Path) -> None:
    """Do to a copy what happens to copies."""
    server = start_copy_of(servers, small.major, folder)
    execute(
        server,
        "UPDATE kept SET word = 'changed' WHERE id % 1000 = 0",
        "CREATE TABLE of_the_copy AS SELECT generate_series(1, 1000) AS id",
        "CREATE TABLE of_the_copy_too TABLESPACE beside AS SELECT 1 AS id",
        "DROP TABLE placed",
        "ALTER SYSTEM SET work_mem = '5MB'",
        "CREATE DATABASE other",
    )
    servers.drop(server)
    with (folder / small.path).open("r+b") as file:
        file.seek(100_000)
        file.write(b"damaged")
    (folder / "PG_VERSION").unlink()
    (folder / "stray file").write_text("not of the backup")
    (folder / "base" / "stray folder").mkdir()
    (folder / "base" / "stray folder" / "file").write_text("not of the backup")
    (folder / "global" / "stray link").symlink_to(folder.parent)


def test_r2_a_used_and_damaged_copy_is_brought_back_exactly(
    small: Small, postgres_servers: PostgresServers, server_folder: Path
) -> None:
    target = server_folder / "data"
    small.engine.restore(small.backup, target)
    fresh = facts_of_tree(target, beside(target))
    use_and_damage(small, postgres_servers, target)
    assert facts_of_tree(target, beside(target)) != fresh
    with pytest.raises(ConfigInvalid, match="not empty") as refused:
        small.engine.restore(small.backup, target)
    assert "--delta" in refused.value.hint

    outcome = small.engine.restore(small.backup, target, delta=True)

    assert facts_of_tree(target, beside(target)) == fresh
    assert outcome.kept_bytes + outcome.written_bytes == outcome.size_bytes
    assert outcome.written_bytes < outcome.size_bytes / 3
    assert outcome.removed > 4
    verified = verify_backup(small.server, target)
    assert verified.returncode == 0, verified.stderr
    copy = start_copy_of(postgres_servers, small.major, target)
    assert value(copy, DIGEST) == small.digest
    assert value(copy, "SELECT count(*) FROM placed") == 5000
    assert value(copy, "SELECT count(*) FROM pg_database WHERE datname = 'other'") == 0


@OLDEST_AND_NEWEST
def test_a_right_copy_is_kept_as_it_is(small: Small, server_folder: Path) -> None:
    target = server_folder / "data"
    small.engine.restore(small.backup, target)
    fresh = facts_of_tree(target, beside(target))
    outcome = small.engine.restore(small.backup, target, delta=True)
    assert outcome.written_bytes <= WAL_SEGMENT_BYTES  # the last one, whose end the copy holds as zeros
    assert facts_of_tree(target, beside(target)) == fresh


def restore_and_die(small: Small, target: Path, share: float) -> None:
    """Restore in a process of its own that is killed when that share of the bytes is in place."""
    arguments = [str(small.engine.config), SOURCE, small.backup, str(target), str(share)]
    small.engine.application()
    done = subprocess.run(
        [sys.executable, "-c", DYING_RESTORE, *arguments],
        env={**small.engine.environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=RESTORE_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == -9


@OLDEST_AND_NEWEST
def test_r7_a_restore_that_was_killed_does_not_start_and_is_finished_by_a_delta(
    small: Small, postgres_servers: PostgresServers, server_folder: Path
) -> None:
    target = server_folder / "data"
    restore_and_die(small, target, 0.5)
    assert not (target / "global" / "pg_control").exists()
    open_to_server(target)
    with pytest.raises(SourceFailed, match=r"pg_control|PG_VERSION"):
        postgres_servers.start(small.major, data_folder=target)

    outcome = small.engine.restore(small.backup, target, delta=True)

    assert outcome.kept_bytes > 0
    assert verify_backup(small.server, target).returncode == 0
    assert value(start_copy_of(postgres_servers, small.major, target), DIGEST) == small.digest


@OLDEST_AND_NEWEST
def test_a_delta_that_was_killed_does_not_start_either(
    small: Small, postgres_servers: PostgresServers, server_folder: Path
) -> None:
    target = server_folder / "data"
    small.engine.restore(small.backup, target)
    restore_and_die(small, target, 0.9)
    assert not (target / "global" / "pg_control").exists()
    open_to_server(target)
    with pytest.raises(SourceFailed, match="pg_control"):
        postgres_servers.start(small.major, data_folder=target)
    small.engine.restore(small.backup, target, delta=True)
    assert value(start_copy_of(postgres_servers, small.major, target), DIGEST) == small.digest
