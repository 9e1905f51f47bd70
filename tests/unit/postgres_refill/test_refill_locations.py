"""Facts about where tablespaces go, and that the source's places are left alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from backup_example import Backup, written

from holdfast.model.errors import ConfigInvalid, IntegrityBroken
from holdfast.sources.port import Entry, EntryType, FolderTarget

TARGET = Path("/restored/cluster")
TWO = Backup().with_tablespace(16400, "/srv/fast").with_tablespace(16401, "/srv/odd name=[#]")


def test_tablespaces_land_beside_the_target_by_default() -> None:
    plan = TWO.plan(TARGET)
    beside = Path("/restored/cluster.tablespaces")
    assert plan.roots == (TARGET, beside / "16400", beside / "16401")
    assert plan.links == (
        (TARGET / "pg_tblspc/16400", str(beside / "16400")),
        (TARGET / "pg_tblspc/16401", str(beside / "16401")),
    )
    assert beside / "16400/PG_15_202209061/5/16390" in written(plan)
    assert beside / "16400/PG_15_202209061" in dict(plan.folders)


def test_nothing_is_ever_written_to_the_places_of_the_source() -> None:
    plan = TWO.plan(TARGET)
    places = (*written(plan), *dict(plan.folders), *plan.roots, *(Path(to) for _, to in plan.links))
    assert not [place for place in places if place.is_relative_to("/srv")]
    assert any("/srv/fast is not touched" in note for note in plan.notes)


def test_a_mapping_moves_one_tablespace_and_leaves_the_other_beside() -> None:
    plan = TWO.plan_at(FolderTarget(TARGET, (("/srv/fast/", Path("/new/fast")),)))
    assert dict(plan.links)[TARGET / "pg_tblspc/16400"] == "/new/fast"
    assert plan.roots[2] == Path("/restored/cluster.tablespaces/16401")
    assert Path("/new/fast/PG_15_202209061/5/16390") in written(plan)


def test_a_tablespace_known_only_by_its_link_is_placed_too() -> None:
    plan = TWO.with_details(tablespaces=()).plan(TARGET)
    assert len(plan.links) == 2


def test_an_empty_tablespace_gets_its_link_and_its_folder() -> None:
    plan = TWO.without("pg_tblspc/16400/PG_15_202209061/5/16390").plan(TARGET)
    assert TARGET / "pg_tblspc/16400" in dict(plan.links)
    assert Path("/restored/cluster.tablespaces/16400/PG_15_202209061") in dict(plan.folders)


def test_the_map_of_the_source_is_not_restored_for_the_server_would_link_to_it() -> None:
    plan = TWO.with_paths({"tablespace_map": b"16400 /srv/fast\n"}).plan(TARGET)
    assert TARGET / "tablespace_map" not in written(plan)
    assert any("--ignore=tablespace_map" in note for note in plan.notes)


def test_a_mapping_of_an_unknown_place_names_those_there_are() -> None:
    with pytest.raises(ConfigInvalid, match="no tablespace at /srv/slow") as caught:
        TWO.plan_at(FolderTarget(TARGET, (("/srv/slow", Path("/new")),)))
    assert "/srv/fast" in caught.value.hint


@pytest.mark.parametrize(
    "locations",
    [
        (("/srv/fast", TARGET / "inside"),),
        (("/srv/fast", TARGET),),
        (("/srv/fast", TARGET.parent),),
        (("/srv/fast", Path("/new")), ("/srv/odd name=[#]", Path("/new"))),
        (("/srv/fast", Path("/new")), ("/srv/odd name=[#]", Path("/new/inner"))),
        (("/srv/fast", Path("/new/../restored/cluster/x")),),
        (("/srv/fast", Path("/restored/cluster.tablespaces/16401")),),
    ],
)
def test_folders_that_overlap_are_refused(locations: tuple[tuple[str, Path], ...]) -> None:
    with pytest.raises(ConfigInvalid, match="overlaps"):
        TWO.plan_at(FolderTarget(TARGET, locations))


@pytest.mark.parametrize("pair", [("/srv/fast", Path("new")), ("srv/fast", Path("/new")), ("/", Path("/new"))])
def test_only_absolute_paths_are_mapped(pair: tuple[str, Path]) -> None:
    with pytest.raises(ConfigInvalid, match="absolute"):
        TWO.plan_at(FolderTarget(TARGET, (pair,)))


def test_a_tablespace_mapped_twice_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match="twice"):
        TWO.plan_at(FolderTarget(TARGET, (("/srv/fast", Path("/a")), ("/srv/fast/", Path("/b")))))


def test_files_of_a_tablespace_nobody_knows_are_refused() -> None:
    backup = replace(Backup(), more=(Entry("pg_tblspc/99", EntryType.FOLDER),))
    with pytest.raises(IntegrityBroken, match="no such tablespace"):
        backup.plan(TARGET)
