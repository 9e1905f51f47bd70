"""``check`` tells exactly what is broken and which backups that touches; no restore returns wrong bytes silently."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.unit.repository.repository_examples import (
    NOW,
    File,
    area_keys,
    area_of,
    backup_entry,
    contents,
    entry_like,
    flipped,
    in_folder,
    live,
    memory,
    object_names,
    replace_object,
    take,
)

from holdfast.model.errors import IntegrityBroken
from holdfast.repository import history as histories
from holdfast.repository.area import Area
from holdfast.repository.checking import AreaReport, check_area
from holdfast.repository.format import names
from holdfast.repository.format.container import ContainerBuilder, ObjectType
from holdfast.repository.format.entry import EntryKind, encode_entry
from holdfast.repository.format.names import BackupId, PackName, RepositoryId, StoreId
from holdfast.repository.format.record import BackupRecord
from holdfast.repository.remembered import Remembered
from holdfast.sources.port import Layout


def pages(byte: int, count: int) -> bytes:
    return b"".join(bytes([byte, number]) * 65536 for number in range(count))


FIRST_FILES: dict[str, File | bytes] = {"shared": File(pages(1, 3), Layout.PAGES), "first": b"only in the first"}
SECOND_FILES: dict[str, File | bytes] = {"shared": File(pages(1, 3), Layout.PAGES), "second": b"only in the second"}


def plain(files: dict[str, File | bytes]) -> dict[str, bytes]:
    return {path: given.content if isinstance(given, File) else given for path, given in files.items()}


@dataclass(frozen=True, slots=True)
class World:
    """An area with two backups: the first one's packs hold what both need, the second one's only its own."""

    area: Area
    executor: Executor
    first: BackupRecord
    second: BackupRecord
    packs: dict[str, str]
    """Names of packs by what they are: "first data", "first list", "second data", "second list"."""

    def check(self, percent: float | None = None, remembered: Remembered | None = None) -> AreaReport:
        return check_area(self.area, self.executor, remembered, lambda _: None, percent)

    def subjects(self, percent: float | None = None) -> dict[str, tuple[BackupId, ...]]:
        return {finding.subject: finding.backups for finding in self.check(percent).findings}

    def entry(self, number: int) -> str:
        return names.history_entry(self.area.keys.area, number)

    def break_pack(self, which: str, change: Callable[[bytes], bytes]) -> str:
        name = self.packs[which]
        replace_object(self.area.store, name, change(bytes(self.area.store.get(name))))
        return name

    def restored(self, record: BackupRecord) -> bool:
        """Whether a backup comes back exactly; wrong bytes without an error fail the test."""
        expected = plain(FIRST_FILES if record == self.first else SECOND_FILES)
        try:
            back = contents(self.area, record, self.executor)
        except IntegrityBroken:
            return False
        assert back == expected
        return True


def two_backups(area: Area, executor: Executor) -> World:
    def data_and_list(known: set[PackName]) -> tuple[str, str]:
        fresh = [name for name in area.list_packs() if name not in known]
        tables = [area.read_pack_table(name, area.list_packs()[name])[0] for name in fresh]
        (data,) = [facts.name for facts in tables if not facts.is_list]
        (lists,) = [facts.name for facts in tables if facts.is_list]
        return names.pack(area.keys.area, data), names.pack(area.keys.area, lists)

    first = take(area, FIRST_FILES, executor).record
    known = set(area.list_packs())
    first_packs = data_and_list(set())
    second = take(area, SECOND_FILES, executor).record
    second_packs = data_and_list(known)
    which = ("first data", "first list", "second data", "second list")
    packs = dict(zip(which, (*first_packs, *second_packs), strict=True))
    return World(area, executor, first, second, packs)


@pytest.fixture
def world(executor: Executor) -> World:
    return two_backups(area_of(), executor)


def backup(record: BackupRecord) -> str:
    return f"backup {record.id}"


def test_a_sound_repository_has_no_findings(world: World) -> None:
    for percent in (None, 0.0, 100.0):
        report = world.check(percent)
        assert (report.findings, report.touched) == ((), ())
        assert (report.backups, report.packs, report.index_rebuilt) == (2, 4, False)
        assert report.stored_bytes == sum(world.area.list_packs().values())
        assert report.read_bytes == (report.stored_bytes if percent == 100.0 else 0)
    assert world.restored(world.first)
    assert world.restored(world.second)


def flip_at(place: Callable[[bytes], int]) -> Callable[[bytes], bytes]:
    return lambda data: flipped(data, 8 * place(data))


def toc_of(data: bytes) -> int:
    return int.from_bytes(data[-64:-56], "little")


def test_a_flipped_bit_in_data_that_both_need_touches_both(world: World) -> None:
    name = world.break_pack("first data", flip_at(lambda _: 80))
    assert world.subjects() == {}  # structure is sound; only reading shows it
    report = world.check(100.0)
    found = {finding.subject: finding.backups for finding in report.findings}
    assert found == {
        name: (),
        backup(world.first): (world.first.id,),
        backup(world.second): (world.second.id,),
    }
    assert report.touched == (world.first.id, world.second.id)
    assert not world.restored(world.first)
    assert not world.restored(world.second)


def test_a_flipped_bit_in_data_of_one_touches_that_one(world: World) -> None:
    # The last chunk of the first pack is the file that only the first backup has.
    name = world.break_pack("first data", flip_at(lambda data: toc_of(data) - 1))
    assert world.subjects(100.0) == {name: (), backup(world.first): (world.first.id,)}
    assert not world.restored(world.first)
    assert world.restored(world.second)


@pytest.mark.parametrize("percent", [None, 100.0])
@pytest.mark.parametrize(
    "change",
    [
        flip_at(lambda data: toc_of(data) + 5),
        flip_at(lambda _: 0),
        flip_at(lambda _: 20),
        flip_at(lambda data: len(data) - 50),
        flip_at(lambda data: len(data) - 1),
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda _: b"",
        lambda data: data + b"\0",
        lambda data: bytes(len(data)),
    ],
    ids=["toc", "magic", "salt", "trailer", "hash", "cut by one", "cut in half", "empty", "longer", "zeros"],
)
def test_a_pack_whose_table_does_not_open_touches_who_needs_it(
    world: World, change: Callable[[bytes], bytes], percent: float | None
) -> None:
    name = world.break_pack("second data", change)
    assert world.subjects(percent) == {name: (), backup(world.second): (world.second.id,)}
    assert world.restored(world.first)
    world.restored(world.second)  # right, where the cached index still tells what the table told; or refused


@pytest.mark.parametrize("percent", [None, 100.0])
def test_swapped_packs_touch_who_needs_either(world: World, percent: float | None) -> None:
    one, two = world.packs["first data"], world.packs["second data"]
    data = bytes(world.area.store.get(one)), bytes(world.area.store.get(two))
    replace_object(world.area.store, one, data[1])
    replace_object(world.area.store, two, data[0])
    assert world.subjects(percent) == {
        one: (),
        two: (),
        backup(world.first): (world.first.id,),
        backup(world.second): (world.second.id,),
    }
    assert not world.restored(world.first)
    assert not world.restored(world.second)


@pytest.mark.parametrize(
    ("which", "touched"), [("first data", "both"), ("second data", "second"), ("second list", "second")]
)
def test_a_missing_pack_touches_who_needs_it(world: World, which: str, touched: str) -> None:
    world.area.store.delete(world.packs[which])
    expected = [world.first, world.second] if touched == "both" else [world.second]
    assert world.subjects() == {backup(record): (record.id,) for record in expected}
    assert world.subjects(100.0) == {backup(record): (record.id,) for record in expected}
    assert world.restored(world.first) is (world.first not in expected)
    assert not world.restored(world.second)


def test_a_broken_list_is_told_for_the_backup_whose_it_is(world: World) -> None:
    name = world.break_pack("second list", flip_at(lambda _: 70))
    assert world.subjects() == {backup(world.second): (world.second.id,)}
    assert world.subjects(100.0) == {name: (), backup(world.second): (world.second.id,)}


def test_a_pack_that_nobody_needs_may_be_broken_and_is_told_all_the_same(world: World) -> None:
    builder = world.area.builder(world.area.pack_claim(is_list=False))
    builder.add_plain(b"of a run that died")
    data, digest = builder.finish(world.area.keys.chunk_id(b"of a run that died", data=True))
    name = names.pack(world.area.keys.area, PackName(digest))
    world.area.store.create(name, flipped(data, 8 * 70))
    assert world.subjects() == {}
    assert world.subjects(100.0) == {name: ()}
    assert world.check(100.0).touched == ()


def test_a_chunk_that_lies_in_a_second_pack_is_not_missed(world: World, executor: Executor) -> None:
    saved = {name: bytes(world.area.store.get(name)) for name in world.packs.values()}
    for name in (*saved, *object_names(world.area.store, "volatile/")):
        world.area.store.delete(name)
    take(world.area, FIRST_FILES | SECOND_FILES, executor)
    for name, data in saved.items():
        world.area.store.create(name, data)
    name = world.break_pack("first data", flip_at(lambda _: 80))
    assert world.subjects(100.0) == {name: ()}
    assert world.restored(world.first)


def index_names(area: Area) -> list[str]:
    return object_names(area.store, names.index(area.keys.area))


def lose(area: Area) -> None:
    for name in index_names(area):
        area.store.delete(name)


def garble(area: Area) -> None:
    for name in index_names(area):
        area.store.put(name, b"garbage")


def flip_index(area: Area) -> None:
    for name in index_names(area):
        data = bytes(area.store.get(name))
        area.store.put(name, flipped(data, 8 * (len(data) // 2)))


@pytest.mark.parametrize("damage", [lose, garble, flip_index], ids=["missing", "garbage", "flipped"])
def test_an_index_that_is_missing_or_broken_is_no_finding_and_made_anew(
    damage: Callable[[Area], None], executor: Executor, tmp_path: Path
) -> None:
    world = two_backups(area_of(in_folder(tmp_path / "store")), executor)
    damage(world.area)
    assert world.restored(world.first)
    report = world.check()
    assert (report.findings, report.index_rebuilt) == ((), True)
    assert len(index_names(world.area)) == 1
    again = world.check()
    assert (again.findings, again.index_rebuilt) == ((), False)
    assert world.restored(world.second)


def test_a_stale_index_is_no_finding_and_made_anew(executor: Executor, tmp_path: Path) -> None:
    area = area_of(in_folder(tmp_path / "store"))
    take(area, {"old": b"old"}, executor)
    stale = {name: bytes(area.store.get(name)) for name in index_names(area)}
    take(area, FIRST_FILES, executor)
    lose(area)
    for name, data in stale.items():
        area.store.put(name, data)
    report = check_area(area, executor, None, lambda _: None)
    assert (report.findings, report.index_rebuilt) == ((), True)


def foreign(world: World, origin: str) -> Area:
    area = world.area
    return {
        "another source": area_of(memory(), "shop", "customers"),
        "another repository": replace(area, keys=area_keys(repository=RepositoryId(bytes(16))), store=memory()),
        "another copy": replace(area, store_id=StoreId(bytes(16)), store=memory()),
    }[origin]


@pytest.mark.parametrize("origin", ["another source", "another repository", "another copy"])
def test_an_entry_from_elsewhere_is_told_and_touches_nothing(world: World, origin: str) -> None:
    other = foreign(world, origin)
    history = histories.History()
    for letter in "abc":
        entry = backup_entry(other, letter * 32)
        history = histories.append(other, history, lambda _, entry=entry: entry)  # type: ignore[misc]
    world.area.store.create(world.entry(3), other.store.get(names.history_entry(other.keys.area, 3)))
    assert world.subjects() == {world.entry(3): ()}
    assert world.restored(world.first)
    assert world.restored(world.second)


@pytest.mark.parametrize("number", [3, 4, 10**12 - 1])
def test_garbage_under_a_later_number_is_told(world: World, number: int) -> None:
    world.area.store.create(world.entry(number), b"garbage")
    assert world.entry(number) in world.subjects()
    assert world.check().touched == ()


def test_an_entry_of_an_epoch_that_is_not_there_is_told(world: World) -> None:
    builder = ContainerBuilder(world.area.claim(ObjectType.HISTORY), bytes(32), 77)
    builder.add_plain(b"{}")
    world.area.store.create(world.entry(3), bytes(builder.finish()[0]))
    pack = ContainerBuilder(world.area.pack_claim(is_list=False), bytes(32), 77)
    data, digest = pack.finish()
    name = names.pack(world.area.keys.area, PackName(digest))
    world.area.store.create(name, bytes(data))
    assert set(world.subjects()) == {world.entry(3), name}
    assert set(world.subjects(100.0)) == {world.entry(3), name}


def test_an_old_entry_put_back_under_a_later_number_is_told(world: World) -> None:
    world.area.store.create(world.entry(3), world.area.store.get(world.entry(1)))
    assert world.subjects() == {world.entry(3): ()}


def test_a_broken_entry_is_told_with_the_hole_it_leaves(world: World) -> None:
    replace_object(world.area.store, world.entry(1), flipped(bytes(world.area.store.get(world.entry(1))), 8 * 90))
    found = {finding.subject: finding.message for finding in world.check().findings}
    assert set(found) == {world.entry(1), names.history(world.area.keys.area)}
    assert "history entry 1 is missing" in found[names.history(world.area.keys.area)]
    assert world.restored(world.first)


def test_a_hole_in_the_history_is_told(world: World) -> None:
    world.area.store.delete(world.entry(1))
    (finding,) = world.check().findings
    assert "history entry 1 is missing" in finding.message


def test_a_live_backup_whose_entry_is_gone_below_a_checkpoint_is_named(world: World, executor: Executor) -> None:
    history = histories.read_history(world.area, executor, None)
    live_now = history.state.live
    point = replace(entry_like(EntryKind.PRUNE).checkpoint, live=live_now)
    histories.append(world.area, history, lambda _: entry_like(EntryKind.PRUNE, checkpoint=point))
    world.area.store.delete(world.entry(1))
    report = world.check()
    assert "history entry 1 of a live backup is missing" in report.findings[0].message
    assert report.touched == (world.first.id,)


def test_a_record_that_does_not_open_touches_its_backup(executor: Executor) -> None:
    area = area_of()
    area.catalog("postgres", NOW)
    good = backup_entry(area, "aa" * 16)
    assert good.record is not None
    damaged = replace(good, record=flipped(good.record, 8 * 90))
    histories.append(area, histories.History(), lambda _: damaged)
    report = check_area(area, executor, None, lambda _: None)
    assert [(finding.subject, finding.backups) for finding in report.findings] == [
        ("backup " + "aa" * 16, ("aa" * 16,))
    ]
    with pytest.raises(IntegrityBroken):
        live(area, executor)


def test_the_record_of_another_backup_touches_the_one_it_stands_for(executor: Executor) -> None:
    area = area_of()
    other = backup_entry(area, "bb" * 16)
    histories.append(area, histories.History(), lambda _: replace(other, backups=(BackupId("aa" * 16),)))
    report = check_area(area, executor, None, lambda _: None)
    assert report.touched == ("aa" * 16,)


def test_a_removed_newest_entry_shows_on_a_host_that_saw_it(world: World, executor: Executor, tmp_path: Path) -> None:
    remembered = Remembered(tmp_path / "memory")
    histories.read_history(world.area, executor, remembered)
    assert world.check(remembered=remembered).findings == ()
    newest = bytes(world.area.store.get(world.entry(2)))
    world.area.store.delete(world.entry(2))
    (finding,) = world.check(remembered=remembered).findings
    assert "ends at entry 1; this host has seen entry 2: it was rolled back" in finding.message
    assert world.check().findings == ()  # a host that never saw more cannot tell
    take(world.area, {"x": b"somebody goes on"}, executor)
    (finding,) = world.check(remembered=remembered).findings
    assert "has another entry 2 than it had" in finding.message
    replace_object(world.area.store, world.entry(2), newest)
    assert world.check(remembered=remembered).findings == ()


def test_an_unsigned_removal_is_told_and_takes_nothing_away(world: World, executor: Executor) -> None:
    history = histories.read_history(world.area, executor, None)
    expire = entry_like(EntryKind.EXPIRE, [world.first.id], number=3, previous=history.head_hash)
    claim = world.area.claim(ObjectType.HISTORY, world.area.store_id + (3).to_bytes(8, "little"))
    data, _ = world.area.seal(claim, encode_entry(expire))
    world.area.store.create(world.entry(3), data)
    (finding,) = world.check().findings
    assert finding.subject == world.entry(3)
    assert "is not signed: it does not count" in finding.message
    assert world.check().backups == 2


@pytest.fixture(scope="module")
def small() -> Iterator[World]:
    with ThreadPoolExecutor(2) as pool:
        yield two_backups(area_of(), pool)


@pytest.mark.parametrize("which", ["second data", "second list"])
def test_no_flipped_bit_of_a_pack_is_restored_silently_or_missed_by_reading(small: World, which: str) -> None:
    name = small.packs[which]
    sound = bytes(small.area.store.get(name))
    step = max(1, 8 * len(sound) // 30) | 1
    for bit in range(0, 8 * len(sound), step):
        replace_object(small.area.store, name, flipped(sound, bit))
        assert small.check(100.0).findings
        small.restored(small.second)  # right, or refused
    replace_object(small.area.store, name, sound)
    assert small.restored(small.second)


@pytest.mark.parametrize("in_a_folder", [True, False])
def test_a_backup_after_damage_was_found_does_not_count_on_the_broken_pack(
    in_a_folder: bool, tmp_path: Path, executor: Executor
) -> None:
    world = two_backups(area_of(in_folder(tmp_path) if in_a_folder else None), executor)
    name = world.break_pack("first data", flip_at(lambda _: 80))
    assert name in world.subjects(100.0)
    assert world.check().findings == ()  # looking at the structure does not forget what reading found
    third = take(world.area, SECOND_FILES, executor).record
    assert contents(world.area, third, executor) == plain(SECOND_FILES)
    report = world.check(100.0)
    # What both need lies in a new pack now: the broken one is still told, and touches no backup any more.
    assert {finding.subject for finding in report.findings} == {name}
    assert report.touched == ()
    assert world.restored(world.first)


def test_a_pack_found_sound_again_counts_again(tmp_path: Path, executor: Executor) -> None:
    world = two_backups(area_of(in_folder(tmp_path)), executor)
    sound = bytes(world.area.store.get(world.packs["first data"]))
    name = world.break_pack("first data", flip_at(lambda _: 80))
    assert world.check(100.0).findings
    replace_object(world.area.store, name, sound)
    assert world.check(100.0).findings == ()
    assert take(world.area, SECOND_FILES, executor).record.stored_bytes < len(sound)


def test_a_small_share_of_a_small_repository_still_reads_a_pack(world: World) -> None:
    assert world.check(0.01).read_bytes > 0
