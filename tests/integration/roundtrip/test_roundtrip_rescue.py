"""The stand-alone reader brings a physical backup back, and the cluster starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.postgres_capture.servers import value
from tests.integration.roundtrip.cluster import verify_backup
from tests.integration.roundtrip.engine import APPLICATION, PASSPHRASE, SOURCE
from tests.integration.roundtrip.small import DIGEST, Small, facts_of_tree, start_copy_of
from tests.servers import PostgresServers

RESCUE = Path(__file__).resolve().parents[3] / "rescue" / "holdfast_rescue.py"
RESCUE_SECONDS_MAX = 120


@pytest.mark.parametrize("small", [15, 18], indirect=True, ids=["pg15", "pg18"])
def test_what_the_stand_alone_reader_restores_starts(
    small: Small, postgres_servers: PostgresServers, server_folder: Path
) -> None:
    target = server_folder / "data"
    place = facts_of_tree(small.place)
    # Isolated: it finds the packages that are installed, but nothing of this project's folder.
    command = [sys.executable, "-I", str(RESCUE), str(small.engine.repository), f"{APPLICATION}/{SOURCE}"]
    done = subprocess.run(
        [*command, small.backup, str(target)],
        env={"PATH": os.environ["PATH"], "HOLDFAST_PASSPHRASE": PASSPHRASE},
        cwd=server_folder,
        capture_output=True,
        text=True,
        timeout=RESCUE_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    verified = verify_backup(small.server, target)
    assert verified.returncode == 0, verified.stderr

    copy = start_copy_of(postgres_servers, small.major, target)

    assert value(copy, DIGEST) == small.digest
    assert value(copy, "SELECT count(*) FROM placed") == 5000
    assert value(copy, "SELECT count(*) FROM fleeting") == 0
    assert value(copy, "SELECT timeline_id FROM pg_control_checkpoint()") == 2
    assert facts_of_tree(small.place) == place
