"""Facts about the plan that turns a backup into a data folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from backup_example import FILES, Backup, auto_settings, generated, written
from hypothesis import given
from hypothesis import strategies as st

from holdfast.model.errors import IntegrityBroken
from holdfast.sources.port import Entry, EntryType, FolderTarget

TARGET = Path("/restored/cluster")


def test_pg_control_comes_last_and_alone() -> None:
    plan = Backup().plan(TARGET)
    assert [step.path for step in plan.last] == [TARGET / "global/pg_control"]
    assert TARGET / "global/pg_control" not in {step.path for step in plan.files}


def test_recovery_signal_is_always_written_even_if_the_source_had_none() -> None:
    plan = Backup().plan(TARGET)
    assert generated(plan, "recovery.signal") == b""


def test_a_standby_gives_a_copy_that_is_no_standby() -> None:
    backup = Backup().with_paths({"standby.signal": b"", "recovery.signal": b""}).with_details(in_recovery=True)
    plan = backup.plan(TARGET)
    assert TARGET / "standby.signal" not in written(plan)
    assert [path for path in sorted(written(plan)) if path.name == "recovery.signal"] == [TARGET / "recovery.signal"]


def test_slots_locks_and_the_lock_file_of_the_source_are_not_restored() -> None:
    backup = Backup().with_paths(
        {
            "postmaster.pid": b"1",
            "postmaster.opts": b"",
            "pg_replslot/other/state": b"slot",
            "pg_notify/0000": b"",
            "pg_subtrans/0000": b"",
        }
    )
    backup = replace(backup, more=(Entry("pg_replslot/other", EntryType.FOLDER),))
    plan = backup.plan(TARGET)
    assert {path for path in written(plan) if "pg_replslot" in path.parts} == set()
    assert TARGET / "pg_replslot" in dict(plan.folders)
    assert TARGET / "pg_replslot/other" not in dict(plan.folders)
    assert TARGET / "postmaster.pid" not in written(plan)
    assert TARGET / "pg_notify/0000" not in written(plan)


def test_the_manifest_lies_where_pg_verifybackup_looks() -> None:
    assert TARGET / "backup_manifest" in written(Backup().plan(TARGET))


def test_settings_kept_beside_do_not_go_into_the_folder() -> None:
    plan = Backup().with_paths({"@settings/postgresql.conf": b"port = 1"}).plan(TARGET)
    assert not [path for path in written(plan) if "@" in str(path)]


def test_nothing_of_ours_is_added_but_what_pg_verifybackup_overlooks() -> None:
    plan = Backup().plan(TARGET)
    extra = {path.relative_to(TARGET).as_posix() for path in written(plan)} - set(FILES)
    assert {path for path in extra if not path.startswith("pg_wal/")} == {"recovery.signal"}


@pytest.mark.parametrize("missing", ["backup_label", "global/pg_control", "PG_VERSION"])
def test_a_backup_without_what_a_start_needs_is_refused(missing: str) -> None:
    with pytest.raises(IntegrityBroken, match=missing):
        Backup().without(missing).plan(TARGET)


@pytest.mark.parametrize("path", ["/etc/passwd", "base/../../etc/passwd", "..", "base//1", "base/1/", "a\0b"])
def test_a_path_that_leaves_the_folder_is_refused(path: str) -> None:
    with pytest.raises(IntegrityBroken, match="path"):
        Backup().with_paths({path: b"x"}).plan(TARGET)


def test_a_path_held_twice_is_refused() -> None:
    with pytest.raises(IntegrityBroken, match="twice"):
        replace(Backup(), more=(Entry("PG_VERSION"),)).plan(TARGET)


def test_group_access_of_the_source_is_kept() -> None:
    private = Backup().plan(TARGET)
    shared = replace(Backup(), folder_mode=0o750).plan(TARGET)
    assert {mode for _, mode in private.folders} == {0o700}
    assert dict(shared.folders)[TARGET] == 0o750
    assert {mode for path, _, mode in private.generated} == {0o600}
    assert {mode for path, _, mode in shared.generated} == {0o640}


def test_a_folder_is_never_open_to_others() -> None:
    plan = replace(Backup(), more=(Entry("base/9", EntryType.FOLDER, 0o40777),)).plan(TARGET)
    assert dict(plan.folders)[TARGET / "base/9"] == 0o750


def test_a_file_keeps_its_permissions_without_other_bits() -> None:
    plan = replace(Backup(), more=(Entry("server.key", mode=0o104600),)).plan(TARGET)
    assert {step.mode for step in plan.files if step.path.name == "server.key"} == {0o600}


def test_pg_wal_that_was_a_link_becomes_a_folder() -> None:
    link = Entry("pg_wal", EntryType.LINK, 0o777, link_target="/fast/wal")
    plan = replace(Backup(), more=(link,)).plan(TARGET)
    assert TARGET / "pg_wal" in dict(plan.folders)
    assert plan.links == ()


def test_another_link_of_the_source_is_left_out_and_told() -> None:
    plan = replace(Backup(), more=(Entry("pg_log", EntryType.LINK, link_target="/var/log"),)).plan(TARGET)
    assert plan.links == ()
    assert any("pg_log" in note for note in plan.notes)


def test_unlogged_tables_are_said_to_be_empty() -> None:
    assert any("unlogged tables are empty" in note for note in Backup().plan(TARGET).notes)
    assert not any("unlogged" in note for note in Backup().without("base/5/16384_init").plan(TARGET).notes)


def test_a_relative_target_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Backup().plan(Path("here/../there")).roots == (tmp_path / "there",)


NAMES = st.text(st.characters(exclude_characters="/\0@", exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name not in {".", ".."}
)


@given(st.sets(st.lists(NAMES, min_size=1, max_size=3).map("/".join), max_size=8), st.booleans())
def test_every_file_has_its_folders_before_it_and_lies_in_a_root(names: set[str], tablespace: bool) -> None:
    inside = {f"base/x{name}": b"data" for name in names}
    backup = Backup().with_paths(inside)
    if tablespace:
        backup = backup.with_tablespace(16400, "/srv/space")
    plan = backup.plan_at(FolderTarget(TARGET))
    folders = [path for path, _ in plan.folders]
    assert len(folders) == len(set(folders))
    for path in (*written(plan), *folders):
        assert any(path == root or path.is_relative_to(root) for root in plan.roots) or path.name.endswith(
            ".tablespaces"
        )
        if path not in plan.roots and any(path.is_relative_to(root) for root in plan.roots):
            assert path.parent in folders
    order = {path: position for position, path in enumerate(folders)}
    for path in folders:
        if path.parent in order:
            assert order[path.parent] < order[path]
    steps = [step.path for step in (*plan.files, *plan.last)] + [path for path, _, _ in plan.generated]
    assert len(steps) == len(set(steps))
    assert {PurePosixPath(name).name for name in inside} <= {path.name for path in steps}


def test_auto_conf_keeps_what_alter_system_set() -> None:
    assert auto_settings(Backup().plan(TARGET))["work_mem"] == "8MB"
