"""Facts about targets that are refused before anything is written."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from backup_example import DETAILS, Backup

from holdfast.model.errors import ConfigInvalid, Conflict
from holdfast.sources.port import FolderTarget
from holdfast.sources.postgres.refill import PostgresFolderRefill

PID_MAX = 1 << 22
"""Above any process id of Linux."""


def refuse(folder: Path, *locations: tuple[str, Path]) -> None:
    PostgresFolderRefill().refuse_target(FolderTarget(folder, locations))


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    folder = tmp_path / "cluster"
    (folder / "pg_tblspc").mkdir(parents=True)
    (folder / "global").mkdir()
    (folder / "PG_VERSION").write_text("15\n")
    return folder


@pytest.fixture
def running(cluster: Path) -> Iterator[Path]:
    """A process whose working directory is the folder, as a server's is."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], cwd=cluster, stdin=subprocess.PIPE)
    (cluster / "postmaster.pid").write_text(f"{process.pid}\n{cluster}\n")
    try:
        yield cluster
    finally:
        process.communicate()


def test_an_absent_and_an_empty_folder_are_fine(tmp_path: Path) -> None:
    refuse(tmp_path / "absent")
    refuse(tmp_path)


def test_a_folder_on_which_a_server_runs_is_refused(running: Path) -> None:
    with pytest.raises(Conflict, match="runs on"):
        refuse(running)


def test_a_folder_inside_a_running_cluster_is_refused(running: Path) -> None:
    with pytest.raises(Conflict, match="runs on"):
        refuse(running / "base/new")


def test_a_tablespace_inside_a_running_cluster_is_refused(running: Path, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="runs on"):
        refuse(tmp_path / "new", ("/old", running / "space"))


def test_a_link_to_a_running_cluster_is_refused(running: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(running)
    with pytest.raises(Conflict, match="runs on"):
        refuse(tmp_path / "link")


def test_a_lock_file_left_by_a_crash_does_not_count(cluster: Path) -> None:
    (cluster / "postmaster.pid").write_text(f"{PID_MAX + 1}\n{cluster}\n")
    refuse(cluster)


def test_another_process_that_got_the_number_does_not_count(cluster: Path) -> None:
    (cluster / "postmaster.pid").write_text(f"{os.getpid()}\n{cluster}\n")
    refuse(cluster)


@pytest.mark.parametrize("content", ["", "\n", "nonsense\n", "99999999999999999999999\n"])
def test_a_lock_file_without_a_number_does_not_count(cluster: Path, content: str) -> None:
    (cluster / "postmaster.pid").write_text(content)
    refuse(cluster)


@pytest.mark.parametrize("folder", ["/", "/var/lib", "/home", "/etc/../etc"])
def test_folders_of_the_machine_are_refused(folder: str) -> None:
    with pytest.raises(ConfigInvalid, match="folder of the machine"):
        refuse(Path(folder))


def test_a_file_and_a_dangling_link_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(ConfigInvalid, match="not a folder"):
            refuse(tmp_path / name)


def test_a_tablespace_of_a_cluster_is_no_target(tmp_path: Path) -> None:
    (tmp_path / "PG_15_202209061").mkdir()
    with pytest.raises(Conflict, match="tablespace"):
        refuse(tmp_path)


def test_a_tablespace_of_another_cluster_is_not_written_over(cluster: Path, tmp_path: Path) -> None:
    space = tmp_path / "space"
    (space / "PG_15_202209061").mkdir(parents=True)
    with pytest.raises(Conflict, match="another cluster"):
        refuse(cluster, ("/old", space))


def test_a_tablespace_of_the_copy_itself_may_be_written_again(cluster: Path, tmp_path: Path) -> None:
    space = tmp_path / "space"
    (space / "PG_15_202209061").mkdir(parents=True)
    (cluster / "pg_tblspc/16400").symlink_to(space)
    refuse(cluster, ("/old", space))


def test_a_raw_copy_does_not_lead_to_the_tablespaces_of_the_running_original(running: Path, tmp_path: Path) -> None:
    space = tmp_path / "space"
    (space / "PG_15_202209061").mkdir(parents=True)
    (running / "pg_tblspc/16400").symlink_to(space)
    copy = tmp_path / "copy"
    (copy / "pg_tblspc").mkdir(parents=True)
    (copy / "pg_tblspc/16400").symlink_to(space)
    with pytest.raises(Conflict, match="runs on"):
        refuse(copy, (str(space), space))


def test_locations_that_overlap_are_refused_before_the_backup_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="overlaps"):
        refuse(tmp_path, ("/old", tmp_path / "inside"))


def test_a_folder_of_another_system_is_refused_and_one_of_this_system_is_not(cluster: Path) -> None:
    control = cluster / "global/pg_control"
    control.write_bytes(struct.pack("=Q", int(DETAILS.system_identifier)) + bytes(8184))
    Backup().plan(cluster)
    control.write_bytes(struct.pack("=Q", int(DETAILS.system_identifier) + 1) + bytes(8184))
    with pytest.raises(Conflict, match="another cluster"):
        Backup().plan(cluster)


def test_a_half_written_folder_without_pg_control_may_be_written_again(cluster: Path) -> None:
    Backup().plan(cluster)
