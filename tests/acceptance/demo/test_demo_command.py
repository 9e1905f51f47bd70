"""``holdfast demo`` as a new user runs it: a process, in full size, and stopped by Ctrl-C."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.servers import processes_below

SECONDS_MAX = 600
CLUSTER_MEGABYTES_MIN = 500


def start(folder: Path) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-m", "holdfast", "demo", "--folder", str(folder)]
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def test_the_command_ends_well_shows_its_table_and_leaves_nothing(server_folder: Path) -> None:
    process = start(server_folder)
    said, complaints = process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == 0, said + complaints
    found = re.search(r"^ *([\d,]+) MB on 127\.0\.0\.1:\d+", said, re.MULTILINE)
    assert found is not None, said
    assert int(found[1].replace(",", "")) >= CLUSTER_MEGABYTES_MIN
    for step in ("full backup", "incremental backup", "restore", "compare", "check --read-data", "all of it"):
        assert re.search(rf"^ *{re.escape(step)} +\d+\.\d s", said, re.MULTILINE), step
    assert "NOT SO" not in said
    assert said.count("proved: ") >= 8
    assert "holdfast init --application" in said
    assert not processes_below(server_folder)
    assert not list(server_folder.iterdir())


def test_an_interrupted_command_leaves_nothing_and_ends_with_130(server_folder: Path) -> None:
    process = start(server_folder)
    until = time.monotonic() + SECONDS_MAX
    while not any("postgres" in command.split()[0] for _, command in processes_below(server_folder)):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == 130, complaints
    assert not [command for _, command in processes_below(server_folder)]
    assert not list(server_folder.iterdir())
