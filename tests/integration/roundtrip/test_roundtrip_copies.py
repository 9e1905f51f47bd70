"""What was backed up under load comes back: verified, sound, equal where nobody wrote, alone (PostgreSQL 15 to 18)."""

from __future__ import annotations

from pathlib import Path

from tests.integration.postgres_capture.servers import execute, value
from tests.integration.roundtrip.cluster import (
    LARGE_OBJECTS,
    ODD_CONTENT,
    ODD_FILE,
    balances,
    check_indexes,
    digests,
    transfers,
)
from tests.integration.roundtrip.engine import backup_id
from tests.integration.roundtrip.story import SLOT, Copy, Story


def test_the_load_changed_much_while_each_backup_was_taken(story: Story) -> None:
    assert min(story.rounds) > 2
    assert all(least < most for least, most in story.counted.values())
    for outcome in (story.full, story.incremental):
        backup_id(outcome)
        assert outcome.damage == ()
        assert any("unlogged" in notice for notice in outcome.notices)


def test_pg_verifybackup_agrees_with_the_manifest_before_the_start(copy: Copy) -> None:
    assert copy.verified.returncode == 0, copy.verified.stderr
    assert copy.stored_manifest == copy.manifest


def test_tables_that_nobody_wrote_to_are_equal(story: Story, copy: Copy) -> None:
    assert digests(copy.server) == story.quiet
    assert value(copy.server, "SELECT count(*) FROM pg_largeobject_metadata") == LARGE_OBJECTS


def test_the_sums_of_pgbench_are_equal(copy: Copy) -> None:
    accounts, tellers, branches, history = balances(copy.server)
    assert accounts == tellers == branches == history


def test_a_copy_holds_what_was_committed_before_its_backup_and_nothing_after(story: Story, copy: Copy) -> None:
    least, most = story.counted[copy.restored.plan.backup.tier]
    assert least <= transfers(copy.server) <= most


def test_every_index_of_every_database_is_sound(copy: Copy) -> None:
    check_indexes(copy.server)


def test_unlogged_tables_are_empty_and_take_rows(copy: Copy) -> None:
    assert any("unlogged" in note for note in copy.restored.notes)
    assert value(copy.server, "SELECT count(*) FROM fleeting") == 0
    execute(copy.server, "INSERT INTO fleeting (word) VALUES ('again')", "DELETE FROM fleeting")


def test_tablespaces_lie_where_they_were_mapped_or_beside_the_copy(story: Story, copy: Copy) -> None:
    folder = copy.server.data_folder
    oids = {
        name: value(copy.server, f"SELECT oid::int FROM pg_tablespace WHERE spcname = '{name}'")
        for name in ("first", "second")
    }
    lies = {name: Path(value(copy.server, f"SELECT pg_tablespace_location({oid})")) for name, oid in oids.items()}
    assert lies["first"] == folder.with_name("data.tablespaces") / str(oids["first"])
    assert lies["second"] == folder.parent / "mapped"
    assert copy.restored.plan.places == tuple(
        (str(old), lies[name]) for name, old in zip(("first", "second"), story.places, strict=True)
    )


def test_a_file_whose_name_is_not_text_comes_back(copy: Copy) -> None:
    assert copy.odd_content == {ODD_FILE: ODD_CONTENT}


def test_a_copy_is_on_a_timeline_of_its_own_without_slots(story: Story, copy: Copy) -> None:
    assert value(story.server, "SELECT count(*) FROM pg_replication_slots") == 1
    assert value(story.server, "SELECT slot_name FROM pg_replication_slots") == SLOT
    assert copy.slots == []
    assert value(copy.server, "SELECT count(*) FROM pg_replication_slots") == 0
    assert value(copy.server, "SELECT timeline_id FROM pg_control_checkpoint()") == 2
    assert value(story.server, "SELECT timeline_id FROM pg_control_checkpoint()") == 1


def test_a_copy_archives_nothing_where_its_source_does(story: Story, copy: Copy) -> None:
    execute(copy.server, "CREATE TABLE of_the_copy AS SELECT 1 AS id", "SELECT pg_switch_wal()", "CHECKPOINT")
    execute(copy.server, "DROP TABLE of_the_copy")
    assert (copy.server.data_folder / "postgresql.conf").read_bytes() == (
        story.server.data_folder / "postgresql.conf"
    ).read_bytes()
    assert b"archive_mode = 'off'" in (copy.server.data_folder / "postgresql.auto.conf").read_bytes()
    archived = sorted(path.name for path in story.archive.iterdir())
    assert archived
    assert {name[:8] for name in archived} == {"00000001"}


def test_an_incremental_stores_only_what_changed(story: Story) -> None:
    full, later = story.full.summary, story.incremental.summary
    assert full is not None
    assert later is not None
    assert later.parent == full.id
    assert full.parent is None
    assert later.size_bytes > full.size_bytes / 2
    assert later.stored_bytes < full.stored_bytes


def test_every_byte_of_the_repository_is_right(story: Story) -> None:
    [report] = story.engine.application().check(100)
    assert report.findings == ()
