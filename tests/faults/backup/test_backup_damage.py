"""Damage done to a repository from outside: told by ``check`` with every backup it touches, never restored silently."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.faults.backup.whole_backups import (
    APPLICATION,
    KEY,
    SOURCE,
    FilesSource,
    World,
    area_of,
    content,
    make,
    require_right,
)

from holdfast.application.application import Application, Watcher
from holdfast.backup import packer
from holdfast.config.loading import load_config
from holdfast.model.errors import HoldfastError, IntegrityBroken, KeyInvalid
from holdfast.repository.checking import AreaReport
from holdfast.repository.format import names
from holdfast.repository.format.container import ObjectType, parse_header
from holdfast.repository.repository import open_repository, rotate
from holdfast.sources.port import Tier
from holdfast.storage.folder import FolderStore

OTHER = "other-source"
POSITIONS = 6
SEED = 11
CONFIG = f"""
application: {APPLICATION}
repositories:
  primary: {{url: "repository"}}
keys: {{file: key}}
sources:
  {SOURCE}: {{kind: postgres, dsn: "host=127.0.0.1 port=1"}}
"""


class Place:
    """A folder with a repository, a configuration, and a host's memory."""

    def __init__(self, folder: Path, world: World) -> None:
        self.folder = folder
        self.world = world
        self.root = folder / "repository"

    def store(self) -> FolderStore:
        return FolderStore(self.root)

    def application(self, *, remembers: bool = True, on_notice: Callable[[str], None] = lambda _: None) -> Application:
        state = self.folder / ("state" if remembers else "no-memory")
        path = self.folder / "holdfast.yaml"
        path.write_text(CONFIG.replace('"repository"', f'"file://{self.root}"'))
        return Application(load_config(path, {"HOLDFAST_STATE_DIR": str(state)}), Watcher(on_notice=on_notice))

    def check(self, *, remembers: bool = True, read_percent: float | None = 100.0) -> list[AreaReport]:
        """Check as the command does; what keeps from opening at all is a report too."""
        return self.application(remembers=remembers).check(read_percent)

    def ids(self) -> list[str]:
        return [record.id for record in self.world.listed(self.store())]

    def paths(self, kind: ObjectType) -> list[Path]:
        """Return the files of all objects of a kind, in a fixed order."""
        found = []
        for info in self.store().list(""):
            path = self.root / info.name
            if parse_header(info.name, path.read_bytes()).type is kind:
                found.append(path)
        return sorted(found)

    def history(self, number: int) -> Path:
        return self.root / names.history_entry(area_of(self.store()).keys.area, number)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A repository with three backups, the keys rotated before the last one."""
    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(4) as executor:
        patch.setattr(packer, "PACK_BYTES", 256 << 10)
        world = World(executor, folder)
        store = FolderStore(folder / "repository")
        make(store)
        world.backup(store, 1)
        world.backup(store, 2, Tier.INCREMENTAL)
        rotate(open_repository(store, [KEY]), datetime.now(UTC))
        world.backup(store, 3, Tier.INCREMENTAL)
        (folder / "key").write_text(KEY.secret.reveal() + "\n")
        (folder / "key").chmod(0o600)
        (folder / "host-0").rename(folder / "state")
        yield folder


@pytest.fixture
def place(template: Path, tmp_path: Path, world: World) -> Place:
    copy = tmp_path / "copy"
    shutil.copytree(template, copy)
    return Place(copy, world)


def flip(path: Path, position: int) -> None:
    """Flip one bit of a file in place."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << (position % 8)
    path.write_bytes(data)


def told(check: Callable[[], list[AreaReport]]) -> tuple[bool, set[str]]:
    """Whether damage is told, by findings or by the error that keeps from looking, and the backups it names."""
    try:
        reports = check()
    except IntegrityBroken as error:
        assert error.exit_code == 13
        assert error.hint
        return True, set()
    return any(report.findings for report in reports), {backup for report in reports for backup in report.touched}


def require_never_silent(place: Place, ids: list[str], touched: set[str]) -> None:
    """Require of every backup that reading it gives the right bytes, or an error and a place among those named."""
    try:
        records = place.world.listed(place.store())
    except HoldfastError as error:
        assert isinstance(error, IntegrityBroken), repr(error)
        return
    assert [record.id for record in records] == ids[: len(records)]
    for record in records:
        try:
            require_right(place.world.read_all(place.store(), record))
        except HoldfastError as error:
            assert isinstance(error, IntegrityBroken), repr(error)
            assert record.id in touched


NEVER_ALONE_OR_VOLATILE = ("RECORD", "LEASE", "INDEX", "LOG_GENERATION", "LOG_SPAN")
FLIPPED = [kind for kind in ObjectType if kind.name not in NEVER_ALONE_OR_VOLATILE]


@pytest.mark.parametrize("kind", FLIPPED, ids=lambda kind: kind.name.lower())
def test_one_flipped_bit_anywhere_is_found_and_never_restored_silently(place: Place, kind: ObjectType) -> None:
    ids = place.ids()
    chance = random.Random(f"{SEED} {kind.name}")
    header = [9, 10, 12, 20, 48]  # version, type, epoch, salt, length of the clear part
    for number in range(POSITIONS + len(header)):
        path = chance.choice(place.paths(kind))
        sound = path.read_bytes()
        position = header[number] if number < len(header) else chance.randrange(len(sound))
        flip(path, position)
        found, touched = told(place.check)
        assert found, f"bit {position} of {path}"
        assert touched <= set(ids)
        require_never_silent(place, ids, touched)
        path.write_bytes(sound)
    assert told(place.check) == (False, set())


@pytest.mark.parametrize("kind", [ObjectType.INDEX, ObjectType.LEASE], ids=lambda kind: kind.name.lower())
def test_one_flipped_bit_in_a_cache_or_lease_costs_nothing(place: Place, kind: ObjectType) -> None:
    ids = place.ids()
    chance = random.Random(f"{SEED} {kind.name}")
    for number in range(2 * POSITIONS):
        path = chance.choice(place.paths(kind))
        sound = path.read_bytes()
        flip(path, (9, 10, 12, 20, 48)[number] if number < 5 else chance.randrange(len(sound)))
        assert [record.id for record in place.world.require_sound(place.store())] == ids
        if number % 3 == 0:
            place.world.backup(place.store(), 5)
            ids = place.ids()
        assert told(place.check) == (False, set())
        if path.exists():
            path.write_bytes(sound)


@pytest.mark.parametrize(
    ("kind", "read_percent"),
    [(ObjectType.DATA_PACK, None), (ObjectType.LIST_PACK, 100.0)],
    ids=["data by structure", "lists by reading"],
)
@pytest.mark.parametrize("damage", ["cut", "emptied", "longer", "gone", "swapped", "replaced"])
def test_a_pack_that_is_not_what_it_was_is_found_with_the_backups_it_touches(
    place: Place, damage: str, kind: ObjectType, read_percent: float | None
) -> None:
    ids = place.ids()
    # The first backup's packs: the later ones count on them too, or on some.
    pack, other = sorted(place.paths(kind), key=lambda path: path.stat().st_mtime_ns)[:2]
    data = pack.read_bytes()
    if damage == "swapped":
        pack.write_bytes(other.read_bytes())
        other.write_bytes(data)
    elif damage == "gone":
        pack.unlink()
    else:
        pack.write_bytes(
            {"cut": data[: len(data) // 2], "emptied": b"", "longer": data + b"x", "replaced": other.read_bytes()}[
                damage
            ]
        )
    found, touched = told(lambda: place.check(read_percent=read_percent))
    assert found
    assert ids[0] in touched
    require_never_silent(place, ids, touched)
    # Once the broken packs are set aside, the next backup stores anew what is missing.
    for report in place.check(read_percent=read_percent):
        for finding in report.findings:
            if "/packs/" in finding.subject:
                (place.root / finding.subject).unlink(missing_ok=True)
    taken = place.world.backup(place.store(), 3)
    require_right(place.world.read_all(place.store(), taken.record))
    _, still = told(lambda: place.check(read_percent=read_percent))
    assert taken.record.id not in still


def test_every_index_gone_or_garbage_is_rebuilt_and_is_no_damage(place: Place) -> None:
    ids = place.ids()
    for path in place.paths(ObjectType.INDEX):
        path.write_bytes(b"garbage")
    assert told(place.check) == (False, set())
    for path in place.paths(ObjectType.INDEX):
        path.unlink()
    reports = place.check()
    assert [report.index_rebuilt for report in reports] == [True]
    assert place.paths(ObjectType.INDEX)
    assert [record.id for record in place.world.require_sound(place.store())] == ids
    assert [report.index_rebuilt for report in place.check()] == [False]


def history_of_other_source(place: Place, number: int) -> bytes:
    """Return an entry of that number of another source of the same repository."""
    from dataclasses import replace

    from holdfast.backup.taking import BackupOrder, take_backup

    area = area_of(place.store())
    keys = open_repository(place.store(), [KEY]).keys.area_of(APPLICATION, OTHER)
    other = replace(area, keys=keys, source=OTHER)
    for version in range(number):
        around = place.world.around()
        take_backup(other, FilesSource(content(version)), BackupOrder(Tier.FULL, "physical", "physical"), around)
    return bytes(other.store.get(names.history_entry(keys.area, number)))


def history_of_other_repository(place: Place, number: int) -> bytes:
    """Return the entry of that number of the same source in another repository with the same key file."""
    store = FolderStore(place.folder / "another")
    make(store)
    place.world.move_to_a_new_host()
    for version in range(number):
        place.world.backup(store, version)
    return bytes(store.get(names.history_entry(area_of(store).keys.area, number)))


def history_of_a_twin(place: Place, number: int) -> bytes:
    """Return the entry of that number of another copy of this repository, with a history of its own."""
    from holdfast.repository.repository import carry_repository

    store = FolderStore(place.folder / "twin")
    carry_repository(open_repository(place.store(), [KEY]), store, datetime.now(UTC))
    place.world.move_to_a_new_host()
    for version in range(number):
        place.world.backup(store, version)
    return bytes(store.get(names.history_entry(area_of(store).keys.area, number)))


FOREIGN = {
    "another source": history_of_other_source,
    "another repository": history_of_other_repository,
    "another copy": history_of_a_twin,
    "an older entry": lambda place, number: place.history(number - 1).read_bytes(),
    "garbage": lambda place, number: b"garbage" * number,
    "nothing": lambda place, number: b"",
}


@pytest.mark.parametrize("whose", FOREIGN)
@pytest.mark.parametrize("number", [2, 3, 4], ids=["middle", "newest", "next"])
def test_an_entry_that_does_not_belong_there_is_found_and_nothing_is_written_behind_it(
    place: Place, whose: str, number: int
) -> None:
    ids = place.ids()
    data = FOREIGN[whose](place, number)
    place.history(number).write_bytes(data)
    found, _ = told(place.check)
    assert found
    found, _ = told(lambda: place.check(remembers=False))
    assert found
    require_never_silent(place, ids, set())
    with pytest.raises(HoldfastError) as caught:
        place.world.backup(place.store(), 6)
    assert caught.value.hint
    assert not place.history(5).exists()


def test_a_removed_newest_entry_is_a_rollback_to_a_host_that_remembers(place: Place) -> None:
    place.history(3).unlink()
    found, _ = told(place.check)
    assert found
    reports = place.check()
    assert any("rolled back" in finding.message for report in reports for finding in report.findings)
    with pytest.raises(IntegrityBroken, match="rolled back") as caught:
        place.application().backups()
    assert "copy" in caught.value.hint
    # A host that never saw the newer state cannot tell.
    assert told(lambda: place.check(remembers=False)) == (False, set())


def test_a_whole_older_state_put_back_is_a_rollback_to_a_host_that_remembers(place: Place) -> None:
    older = place.folder / "older"
    shutil.copytree(place.root, older)
    place.world.backup(place.store(), 7)
    place.application().backups()
    shutil.rmtree(place.root)
    older.rename(place.root)
    found, _ = told(place.check)
    assert found
    assert told(lambda: place.check(remembers=False)) == (False, set())


def test_an_entry_replaced_by_another_of_the_same_number_is_found_by_who_remembers(place: Place) -> None:
    """Somebody with the key and the store's rights put the last backup anew: another hash under the same number."""
    place.history(3).unlink()
    place.world.move_to_a_new_host()
    place.world.backup(place.store(), 8)
    reports = place.check()
    assert any("has another entry 3" in finding.message for report in reports for finding in report.findings)
    assert told(lambda: place.check(remembers=False)) == (False, set())


@pytest.mark.parametrize("number", [2, 4], ids=["middle", "next"])
def test_a_broken_history_still_gives_what_can_be_read_to_whoever_names_it(place: Place, number: int) -> None:
    """Section 13 of the format: restores of what was there go on; but nobody is told that some backup is the latest."""
    ids = place.ids()
    place.history(number).write_bytes(b"garbage")
    for act in (lambda: place.application().backups(), lambda: place.application().ls("latest")):
        with pytest.raises(IntegrityBroken) as caught:
            act()
        assert ids[0] in caught.value.hint
        assert ids[2] in caught.value.hint
    told_aside: list[str] = []
    application = place.application(on_notice=told_aside.append)
    assert b"".join(application.cat(ids[2], "note")) == content(3)["note"]
    assert any("broken" in text for text in told_aside)
    if number == 2:
        with pytest.raises(HoldfastError):
            application.ls(ids[1])


def test_a_hole_in_the_history_is_found(place: Place) -> None:
    place.history(2).unlink()
    reports = place.check(remembers=False)
    assert any("history entry 2 is missing" in finding.message for report in reports for finding in report.findings)
    with pytest.raises(IntegrityBroken, match="history entry 2 is missing"):
        place.world.backup(place.store(), 6)


@pytest.mark.parametrize("beside", [True, False], ids=["beside the sound one", "in its place"])
def test_garbage_in_the_catalog_is_found_and_the_next_backup_puts_a_sound_one(place: Place, beside: bool) -> None:
    sound = place.paths(ObjectType.CATALOG)[0]
    garbage = sound.with_name("ab" * 32) if beside else sound
    garbage.write_bytes(b"garbage")
    reports = place.check()
    assert str(garbage).endswith(next(finding.subject for report in reports for finding in report.findings))
    assert len(place.world.require_sound(place.store())) == 3
    place.world.backup(place.store(), 4)
    garbage.unlink()
    assert told(place.check) == (False, set())


def test_garbage_among_the_slots_is_found_and_keeps_nobody_out(place: Place) -> None:
    garbage = place.root / names.SLOTS / ("cd" * 16)
    garbage.write_bytes(b"garbage")
    reports = place.check()
    assert [finding.subject for report in reports for finding in report.findings] == [f"slots/{'cd' * 16}"]
    place.world.backup(place.store(), 4)
    assert len(place.world.require_sound(place.store())) == 4


def test_names_that_are_not_ours_are_passed_over(place: Place) -> None:
    (place.root / "notes.txt").write_text("put here by somebody")
    (place.root / "areas" / "readme").write_text("put here by somebody")
    assert told(place.check) == (False, set())
    place.world.backup(place.store(), 4)


def test_a_wrong_key_is_a_key_error_and_no_damage(place: Place) -> None:
    (place.folder / "key").write_text("holdfast-key-1 " + "77" * 32 + "\n")
    with pytest.raises(KeyInvalid) as caught:
        place.check()
    assert caught.value.exit_code == 12
    with pytest.raises(KeyInvalid):
        place.application().backups()


def test_a_store_without_the_key_shows_no_names_and_no_plain_text(place: Place) -> None:
    secrets = [APPLICATION, SOURCE, "of-secrets", "xyzzy", "secret word", "data/stays", "postgres", "system_identifier"]
    stays = content(1)["data/stays"]
    needles = [word.encode() for word in secrets] + [stays[:32], stays[200_000:200_032], b"incremental", b"physical"]
    for path in sorted(place.root.rglob("*")):
        name = str(path.relative_to(place.root))
        said = name.removeprefix("volatile/").encode()
        held = path.read_bytes() if path.is_file() else b""
        for needle in needles:
            assert needle not in held, f"{needle!r} in {name}"
            if not name.endswith("leases/physical"):  # the lane is named in clear, by the format
                assert needle not in said
