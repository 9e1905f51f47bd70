"""A restore that dies leaves programs that still work for it: the next one does not wait for them, nor trip on them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.integration.postgres_capture.servers import execute, value
from tests.integration.postgres_live import shop
from tests.integration.postgres_live.conftest import Live
from tests.integration.postgres_live.kept_folder import keep

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import sys
from pathlib import Path
from dataclasses import replace
from tests.integration.postgres_live.kept_folder import FolderContent
from holdfast.sources.postgres.logical.names import Selection
from holdfast.sources.postgres.logical.refill import PostgresServerRefill, ServerTarget
from holdfast.sources.postgres.settings import settings_from_dsn
folder, address, programs = sys.argv[1:]
settings = replace(settings_from_dsn(address), programs=Path(programs))
target, refill = ServerTarget(settings, "slow", Selection("slow"), in_place=True), PostgresServerRefill()
content = FolderContent(Path(folder))
refill.run(content, target, refill.plan(content, target))
"""
SLOW = (
    "CREATE FUNCTION slow(id int) RETURNS int IMMUTABLE LANGUAGE plpgsql "
    "AS 'BEGIN IF current_database() LIKE ''holdfast%'' THEN PERFORM pg_sleep(0.1); END IF; RETURN id; END'",
    "CREATE TABLE t AS SELECT generate_series(1, 25) AS id",
    "CREATE INDEX t_slow ON t (slow(id))",
)
BUILDS = "SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'holdfast%' AND query LIKE '%CREATE INDEX%'"
LOOKS_MAX = 600


def test_an_index_that_is_being_built_for_a_dead_restore_is_given_up(live: Live, tmp_path: Path) -> None:
    execute(live.server, "CREATE DATABASE slow")
    execute(live.server, *SLOW, database="slow")
    backup = Live(live.server, keep(shop.settings_of(live.server), tmp_path / "kept", "slow"))
    command = [sys.executable, "-c", PROGRAM, str(backup.folder), live.server.connection_string()]
    surroundings = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PATH": os.defpath, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([*command, str(live.server.programs.folder)], env=surroundings) as process:
        for _ in range(LOOKS_MAX):
            if value(live.server, BUILDS):
                break
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    assert value(live.server, BUILDS) == 1
    left = shop.databases(live.server) - {"shop", "slow"}
    report = backup.restore(backup.target("slow", in_place=True, only="slow"))
    assert report.differences == ()
    assert len(left) == 1
    assert any(next(iter(left)) in note and "dropped" in note for note in report.notes), report.notes
    assert shop.databases(live.server) == {"shop", "slow", report.kept_as}
