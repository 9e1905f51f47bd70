"""Slots, epochs and what a key may do; making, carrying and re-keying a repository."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.unit.repository.repository_examples import (
    NOW,
    backup_entry,
    contents,
    entry_like,
    in_folder,
    key_file,
    live,
    memory,
    object_names,
    settled,
    take,
)

from holdfast.model.errors import Conflict, HoldfastError, IntegrityBroken, KeyInvalid, RepositoryAbsent
from holdfast.model.secrets import Secret
from holdfast.repository import history as histories
from holdfast.repository import keyring
from holdfast.repository.area import Area
from holdfast.repository.format import names
from holdfast.repository.format.container import HEADER, MAGIC, VERSION, Claim, ContainerBuilder, ObjectType
from holdfast.repository.format.entry import EntryKind
from holdfast.repository.format.keys import Argon2Parameters, RootKeys
from holdfast.repository.format.names import RepositoryId, SlotId
from holdfast.repository.index.lookup import open_index
from holdfast.repository.keyring import KeyFile, Passphrase, SlotContent, Unlock, slot_object
from holdfast.repository.repository import (
    Repository,
    add_slot,
    carry_repository,
    create_repository,
    list_slots,
    open_repository,
    remove_slot,
    rotate,
)
from holdfast.storage.faulty import Died, Fault, FaultKind, FaultyStore
from holdfast.storage.port import Store


def made(store: Store, unlock: Unlock | None = None) -> Repository:
    repository, new = create_repository(store, unlock or key_file(), "first", NOW)
    assert new
    return repository


def area_in(repository: Repository, application: str = "shop", source: str = "orders") -> Area:
    keys = repository.keys.area_of(application, source)
    return Area(repository.store, repository.store_id, keys, application, source)


def test_a_passphrase_opens_its_slot_in_every_unicode_form_and_no_other_does() -> None:
    store = memory()
    repository = made(store, Passphrase(Secret("caf\u00e9 \u212b")))
    again = open_repository(store, [Passphrase(Secret("cafe\u0301 A\u030a"))])
    assert again.id == repository.id
    assert again.keys.whole().roots == repository.keys.whole().roots
    with pytest.raises(KeyInvalid, match="no key slot"):
        open_repository(store, [Passphrase(Secret("cafe"))])
    with pytest.raises(KeyInvalid, match="no key slot"):
        open_repository(store, [key_file()])


def test_making_a_repository_again_opens_it_and_another_secret_changes_nothing() -> None:
    store = memory()
    repository = made(store)
    before = object_names(store)
    again, new = create_repository(store, key_file(), "second", NOW)
    assert (again.id, new) == (repository.id, False)
    with pytest.raises(KeyInvalid):
        create_repository(store, key_file(2), "stranger", NOW)
    assert object_names(store) == before


def test_a_key_file_of_another_form_is_refused() -> None:
    store = memory()
    made(store)
    for text in ("", "holdfast-key-1 12", "holdfast-key-2 " + "11" * 32, "11" * 32):
        with pytest.raises(KeyInvalid, match="key file"):
            open_repository(store, [KeyFile(Secret(text))])
    assert open_repository(store, [KeyFile(Secret(keyring.new_key_file_text())), key_file()]).slots


def test_slots_are_added_listed_and_removed_but_never_the_last() -> None:
    store = memory()
    repository = made(store)
    first = repository.slots[0].id
    second = add_slot(repository, key_file(2), "second", NOW)
    assert {slot.id for slot in list_slots(repository)} == {first, second}
    assert open_repository(store, [key_file(2)]).id == repository.id
    remove_slot(repository, first)
    with pytest.raises(KeyInvalid):
        open_repository(store, [key_file(1)])
    with pytest.raises(Conflict, match="the last that opens the whole repository"):
        remove_slot(repository, second)


def test_an_area_slot_does_not_count_as_one_that_opens_the_whole() -> None:
    store = memory()
    repository = made(store)
    add_slot(repository, key_file(2), "host", NOW, ("shop", "orders"))
    with pytest.raises(Conflict):
        remove_slot(repository, repository.slots[0].id)


def test_an_area_slot_backs_up_and_restores_its_source_and_nothing_else(executor: Executor) -> None:
    store = memory()
    repository = made(store)
    add_slot(repository, key_file(2), "host", NOW, ("shop", "orders"))
    host = open_repository(store, [key_file(2)])
    taken = take(area_in(host), {"a": b"content"}, executor)
    assert contents(area_in(repository), taken.record, executor) == {"a": b"content"}
    assert contents(area_in(host), taken.record, executor) == {"a": b"content"}
    with pytest.raises(KeyInvalid, match="opens shop/orders only, not shop/customers"):
        area_in(host, "shop", "customers")
    with pytest.raises(KeyInvalid):
        host.keys.whole()
    with pytest.raises(KeyInvalid):
        rotate(host, NOW)
    with pytest.raises(KeyInvalid):
        add_slot(host, key_file(3), "more", NOW)


@pytest.mark.parametrize(
    "kind", [EntryKind.EXPIRE, EntryKind.RELEASE, EntryKind.VOID, EntryKind.ADOPT, EntryKind.PRUNE]
)
def test_an_area_slot_cannot_sign_what_takes_away(kind: EntryKind, executor: Executor) -> None:
    store = memory()
    repository = made(store)
    add_slot(repository, key_file(2), "host", NOW, ("shop", "orders"))
    host = area_in(open_repository(store, [key_file(2)]))
    entry = backup_entry(host)
    history = histories.append(host, histories.read_history(host, executor, None), lambda _: entry)
    identity = (("system_identifier", "8"),)
    removing = entry_like(kind, entry.backups, identity=identity)
    with pytest.raises(KeyInvalid, match="may add backups and not remove any"):
        histories.append(host, history, lambda _: removing)
    # The owner of the whole can, and the host sees that it counts.
    owner = area_in(repository)
    histories.append(owner, histories.read_history(owner, executor, None), lambda _: removing)
    seen = histories.read_history(host, executor, None)
    assert [each.counts for each, _ in seen.entries] == [True, True]


def test_a_slot_bound_to_another_name_is_not_opened() -> None:
    store = memory()
    repository = made(store)
    slot = repository.slots[0].id
    data = bytes(store.get(names.slot(slot)))
    store.create(names.slot(SlotId(bytes(16))), data)
    store.delete(names.slot(slot))
    with pytest.raises(HoldfastError) as caught:
        open_repository(store, [key_file()])
    assert isinstance(caught.value, IntegrityBroken | KeyInvalid)


def test_a_slot_of_another_repository_is_not_tried() -> None:
    store = memory()
    repository = made(store)
    stranger = slot_object(
        RepositoryId(bytes(16)), SlotId(bytes(16)), key_file(9), SlotContent("stranger", {1: bytes(32)}), NOW
    )
    store.create(names.slot(SlotId(bytes(16))), stranger)
    with pytest.raises(KeyInvalid):
        open_repository(store, [key_file(9)])
    assert [slot.id for slot in list_slots(repository)] == [repository.slots[0].id]


def clear_only(kind: int, clear: bytes) -> bytes:
    """Return bytes that begin like an object with this clear part: what anybody can make."""
    return HEADER.pack(MAGIC, VERSION, kind, 0, 0, bytes(32), len(clear), bytes(12)) + clear + bytes(200)


def junk_clear_parts(repository: Repository) -> list[bytes]:
    own = repository.id.hex()
    kdf = {"name": "argon2id", "memory_kib": 1 << 40, "passes": 99, "lanes": 9, "salt": "00"}
    return [
        b"",
        b"{",
        b"[]",
        b"[" * 60000,
        b"{}",
        json.dumps({"repository": own, "kind": "passphrase", "scope": "repository"}).encode(),
        json.dumps({"repository": own, "kind": "passphrase", "scope": "repository", "kdf": kdf}).encode(),
        json.dumps({"repository": own, "kind": "keyfile", "scope": "repository", "commit": "00" * 16}).encode(),
        json.dumps({"repository": own, "kind": ["keyfile"], "scope": 5}).encode(),
        json.dumps({"repository": own, "kind": "age", "scope": "repository"}).encode(),
    ]


def test_a_hundred_junk_slots_lock_nobody_out() -> None:
    store = memory()
    repository = made(store)
    clears = junk_clear_parts(repository)
    for number in range(100):
        junk = clear_only(2, clears[number % len(clears)]) if number % 3 else bytes([number]) * 3
        store.create(names.slot(SlotId(number.to_bytes(16, "big"))), junk)
    store.create("slots/not-a-slot", b"")
    store.create(names.slot(SlotId(bytes([255] * 16))), bytes(1 << 17))
    again = open_repository(store, [key_file()])
    assert again.id == repository.id
    second = add_slot(again, key_file(2), "second", NOW)
    assert second in {slot.id for slot in list_slots(again)}
    epoch, _ = rotate(again, NOW)
    assert open_repository(store, [key_file()]).keys.current_epoch == epoch == 2
    with pytest.raises(HoldfastError):
        open_repository(store, [key_file(7)])
    remove_slot(open_repository(store, [key_file()]), second)


def test_junk_passphrase_slots_cannot_be_put_before_the_older_one() -> None:
    store = memory()
    repository = made(store, Passphrase(Secret("right")))
    kdf = {"name": "argon2id", "memory_kib": 16384, "passes": 1, "lanes": 1, "salt": "00" * 16}
    clear = {"repository": repository.id.hex(), "kind": "passphrase", "scope": "repository", "commit": "", "kdf": kdf}
    for number in range(70):
        store.create(names.slot(SlotId(number.to_bytes(16, "big"))), clear_only(2, json.dumps(clear).encode()))
    assert open_repository(store, [Passphrase(Secret("right"))]).id == repository.id


def test_hostile_argon2_parameters_are_refused_before_they_are_used() -> None:
    for memory_kib, passes, lanes in [
        (1 << 14, 17, 1),
        ((1 << 20) + 1, 1, 1),
        (1 << 14, 0, 1),
        (16383, 1, 1),
        (1 << 14, 1, 17),
    ]:
        with pytest.raises(IntegrityBroken, match="argon2id"):
            Argon2Parameters(bytes(16), memory_kib, passes, lanes)


def test_after_a_rotation_new_objects_do_not_open_with_an_old_slot_and_old_ones_do(executor: Executor) -> None:
    store = memory()
    repository = made(store)
    add_slot(repository, key_file(2), "left behind", NOW)
    add_slot(repository, key_file(3), "host", NOW, ("shop", "orders"))
    first = take(area_in(repository), {"a": b"before"}, executor)
    epoch, behind = rotate(repository, NOW)
    assert epoch == 2
    assert len(behind) == 2
    fresh = open_repository(store, [key_file(1)])
    assert fresh.keys.current_epoch == 2
    old, host = open_repository(store, [key_file(2)]), open_repository(store, [key_file(3)])
    for each in (old, host):
        assert live(area_in(each), executor) == [first.record]
        assert contents(area_in(each), first.record, executor) == {"a": b"before"}
        with pytest.raises(KeyInvalid, match="epoch 2"):
            take(area_in(each), {"a": b"more"}, executor)
    second = take(area_in(fresh), {"a": b"after"}, executor)
    assert contents(area_in(fresh), second.record, executor) == {"a": b"after"}
    for each in (old, host):
        with pytest.raises(KeyInvalid, match="epoch 2"):
            histories.read_history(area_in(each), executor, None)
        # Packs of the new epoch beside the old ones do not keep from reading what is older.
        assert contents(area_in(each), first.record, executor) == {"a": b"before"}


def test_deduplication_survives_a_rotation(executor: Executor) -> None:
    store = memory()
    repository = made(store)
    content = bytes(range(256)) * 8192
    take(area_in(repository), {"a": content}, executor)
    packs = len(area_in(repository).list_packs())
    rotate(repository, NOW)
    again = take(area_in(open_repository(store, [key_file()])), {"a": content}, executor)
    assert again.record.stored_bytes == 0
    assert len(area_in(repository).list_packs()) == packs


def test_a_slot_added_after_a_rotation_opens_everything(executor: Executor) -> None:
    store = memory()
    first = take(area_in(made(store)), {"a": b"before"}, executor)
    rotate(open_repository(store, [key_file()]), NOW)
    rotated = open_repository(store, [key_file()])
    add_slot(rotated, key_file(2), "late", NOW)
    add_slot(rotated, key_file(3), "late host", NOW, ("shop", "orders"))
    for byte in (2, 3):
        late = open_repository(store, [key_file(byte)])
        assert late.keys.current_epoch == 2
        assert contents(area_in(late), first.record, executor) == {"a": b"before"}
        take(area_in(late), {"b": bytes([byte])}, executor)
    assert len(live(area_in(rotated), executor)) == 3


class Pausing:
    """A store whose creates below a prefix wait for each other: two racers reach the same step together."""

    def __init__(self, inner: Store, prefix: str, parties: int) -> None:
        self._inner = inner
        self._prefix = prefix
        self._barrier = threading.Barrier(parties, timeout=20)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def create(self, name: str, data: bytes) -> None:
        if name.startswith(self._prefix):
            self._barrier.wait()
        self._inner.create(name, data)


def test_of_two_rotations_at_once_one_wins_and_the_loser_still_opens_everything(executor: Executor) -> None:
    plain = memory()
    first = made(plain)
    add_slot(first, key_file(2), "second", NOW)
    before = take(area_in(first), {"a": b"before"}, executor)
    racing: Store = Pausing(plain, names.EPOCHS, 2)  # type: ignore[assignment]

    def attempt(byte: int) -> bool:
        try:
            rotate(open_repository(racing, [key_file(byte)]), NOW)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        won = list(pool.map(attempt, (1, 2)))
    assert sorted(won) == [False, True]
    winner, loser = (key_file(1), key_file(2)) if won[0] else (key_file(2), key_file(1))
    assert open_repository(plain, [winner]).keys.current_epoch == 2
    left = open_repository(plain, [loser])
    assert contents(area_in(left), before.record, executor) == {"a": b"before"}
    with pytest.raises(KeyInvalid):
        take(area_in(left), {"a": b"more"}, executor)
    # A slot of the winner's makes the loser whole again; the root that lost is never used.
    add_slot(open_repository(plain, [winner]), loser, "again", NOW)
    taken = take(area_in(open_repository(plain, [loser])), {"a": b"more"}, executor)
    assert contents(area_in(open_repository(plain, [winner])), taken.record, executor) == {"a": b"more"}


def put_entry(repository: Repository, backup: str, executor: Executor) -> None:
    area = area_in(repository)
    entry = backup_entry(area, backup)
    histories.append(area, histories.read_history(area, executor, None), lambda _: entry)


def listed(repository: Repository, executor: Executor) -> list[str]:
    return [record.id for record in live(area_in(repository), executor)]


def death_points(work: Callable[[Store], object], prepare: Callable[[], Store]) -> int:
    counting = FaultyStore(prepare())
    work(settled(counting))
    return len(counting.points)


def test_a_rotation_may_die_at_every_step_and_be_begun_again(executor: Executor) -> None:
    def prepare() -> Store:
        store = memory()
        put_entry(made(store), "aa" * 16, executor)
        return store

    def work(store: Store) -> object:
        return rotate(open_repository(store, [key_file()]), NOW)

    for point in range(death_points(work, prepare)):
        store = prepare()
        with pytest.raises(Died):
            work(settled(FaultyStore(store, (Fault(FaultKind.DIE, point=point),))))
        survived = open_repository(store, [key_file()])
        assert listed(survived, executor) == ["aa" * 16]
        epoch, _ = rotate(survived, NOW)
        whole = open_repository(store, [key_file()])
        assert whole.keys.current_epoch == epoch
        put_entry(whole, "bb" * 16, executor)
        assert listed(open_repository(store, [key_file()]), executor) == ["aa" * 16, "bb" * 16]


@pytest.mark.parametrize(
    "name", ["epochs/00000002", "epochs/99999999", "epochs/garbage", "epochs/00000000", "epochs/123456789"]
)
@pytest.mark.parametrize("junk", [b"", b"junk", clear_only(3, b"[" * 50000), clear_only(3, b'{"previous":1}')])
def test_junk_among_the_epochs_is_passed_over_and_does_not_stop_a_rotation(name: str, junk: bytes) -> None:
    store = memory()
    repository = made(store)
    store.create(name, junk)
    again = open_repository(store, [key_file()])
    assert (again.id, again.keys.current_epoch) == (repository.id, 1)
    epoch, _ = rotate(again, NOW)
    rotated = open_repository(store, [key_file()])
    assert rotated.keys.current_epoch == epoch > 1
    assert len(rotated.slots) == 1


def test_an_epoch_that_is_not_signed_by_the_one_before_does_not_count() -> None:
    store = memory()
    repository = made(store)
    forged = keyring.epoch_object(
        repository.id, 2, bytes([5] * 32), RootKeys(repository.id, {1: bytes([6] * 32)}, 1), NOW
    )
    store.create(names.epoch(2), bytes(forged))
    assert open_repository(store, [key_file()]).keys.current_epoch == 1
    epoch, _ = rotate(open_repository(store, [key_file()]), NOW)
    assert epoch == 3
    assert open_repository(store, [key_file()]).keys.current_epoch == 3


def test_the_successor_of_an_epoch_is_the_lowest_that_names_it() -> None:
    repository = RepositoryId(bytes(16))
    first = RootKeys(repository, {1: bytes([1] * 32)}, 1)

    def link(number: int, root: bytes, older: RootKeys) -> keyring.EpochLink:
        store = memory()
        store.create(names.epoch(number), bytes(keyring.epoch_object(repository, number, root, older, NOW)))
        return keyring.read_links(store)[0]

    second = RootKeys(repository, {1: bytes([1] * 32), 3: bytes([3] * 32)}, 3)
    links = [
        link(5, bytes([5] * 32), second),
        link(3, bytes([3] * 32), first),
        link(4, bytes([4] * 32), first),
        link(7, bytes([7] * 32), second),
    ]
    public = first.area_keys(first.area_id("shop", "orders")).upkeep[1]
    assert [each.number for each in keyring.epoch_chain(repository, links, public)] == [3, 5]


def test_a_repository_is_carried_to_another_store_with_its_slots_and_epochs(executor: Executor) -> None:
    store, copy = memory(), memory()
    repository = made(store)
    rotate(repository, NOW)
    repository = open_repository(store, [key_file()])
    assert carry_repository(repository, copy, NOW) is True
    assert carry_repository(repository, copy, NOW) is False
    carried = open_repository(copy, [key_file()])
    assert (carried.id, carried.keys.current_epoch) == (repository.id, 2)
    assert carried.keys.whole().roots == repository.keys.whole().roots
    assert carried.store_id != repository.store_id
    taken = take(area_in(carried), {"a": b"in the copy"}, executor)
    assert contents(area_in(carried), taken.record, executor) == {"a": b"in the copy"}
    assert live(area_in(repository), executor) == []


def test_a_store_that_holds_another_repository_is_not_made_a_copy() -> None:
    store, other = memory(), memory()
    repository = made(store)
    stranger = made(other, key_file(2))
    before = object_names(other)
    with pytest.raises(Conflict, match="another repository"):
        carry_repository(repository, other, NOW)
    assert object_names(other) == before
    assert open_repository(other, [key_file(2)]).id == stranger.id


def test_there_is_no_repository_in_an_empty_store() -> None:
    with pytest.raises(RepositoryAbsent):
        open_repository(memory(), [key_file()])


@pytest.mark.parametrize("kind", ["memory", "folder"])
@pytest.mark.parametrize("round_number", range(3))
def test_eight_that_make_a_repository_at_once_make_one_and_all_open_it(
    kind: str, round_number: int, tmp_path: Path
) -> None:
    store = memory() if kind == "memory" else in_folder(tmp_path / "repository")
    barrier = threading.Barrier(8, timeout=20)

    def attempt(number: int) -> tuple[bytes, bytes, bool]:
        barrier.wait()
        repository, new = create_repository(store, key_file(), f"racer {number}", NOW)
        return repository.id, repository.keys.whole().roots[1], new

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(attempt, range(8)))
    assert len({(identity, root) for identity, root, _ in found}) == 1
    assert sum(new for _, _, new in found) == 1
    assert open_repository(store, [key_file()]).id == found[0][0]


def test_making_a_repository_may_die_at_every_step_and_be_begun_again(executor: Executor) -> None:
    def work(store: Store) -> object:
        return create_repository(store, key_file(), "first", NOW)

    for point in range(death_points(work, memory)):
        store = memory()
        with pytest.raises(Died):
            work(settled(FaultyStore(store, (Fault(FaultKind.DIE, point=point),))))
        repository, _ = create_repository(store, key_file(), "second", NOW)
        put_entry(repository, "aa" * 16, executor)
        assert listed(open_repository(store, [key_file()]), executor) == ["aa" * 16]


def test_a_half_made_repository_of_another_secret_is_told_and_left_alone() -> None:
    store = memory()
    counting = FaultyStore(memory())
    create_repository(settled(counting), key_file(1), "first", NOW)
    point = counting.points.index("before create identity")
    with pytest.raises(Died):
        create_repository(settled(FaultyStore(store, (Fault(FaultKind.DIE, point=point),))), key_file(1), "first", NOW)
    with pytest.raises(Conflict, match="half made"):
        create_repository(store, key_file(2), "other", NOW)
    repository, _ = create_repository(store, key_file(1), "first", NOW)
    assert open_repository(store, [key_file(1)]).id == repository.id


def test_the_identity_and_the_store_object_are_proved_by_the_root() -> None:
    for name in (names.IDENTITY, names.STORE):
        store, other = memory(), memory()
        repository = made(store)
        kind = ObjectType.IDENTITY if name == names.IDENTITY else ObjectType.STORE
        clear = {"repository": repository.id.hex(), "store": "77" * 16, "format": 1}
        builder = ContainerBuilder(Claim(kind, repository.id), bytes(32), 1, clear=json.dumps(clear).encode())
        builder.add_plain(b"{}")
        for info in store.list(""):
            other.create(info.name, bytes(builder.finish()[0]) if info.name == name else store.get(info.name))
        with pytest.raises(IntegrityBroken):
            open_repository(other, [key_file()])


def test_garbage_packs_leases_and_segments_of_an_epoch_that_is_not_there_only_cost_time(executor: Executor) -> None:
    store = memory()
    area = area_in(made(store))
    record = take(area, {"a": b"content"}, executor).record
    builder = ContainerBuilder(area.pack_claim(is_list=False), bytes(32), 77)
    builder.add_plain(b"garbage")
    data, digest = builder.finish(bytes(32))
    store.create(names.pack(area.keys.area, names.PackName(digest)), bytes(data))
    segment = ContainerBuilder(area.claim(ObjectType.INDEX), bytes(32), 77)
    segment.add_plain(b"{}")
    garbage, name = segment.finish()
    store.put(names.index_segment(area.keys.area, name), bytes(garbage))
    store.put(names.lease(area.keys.area, "physical"), bytes(garbage))
    catalog = ContainerBuilder(area.claim(ObjectType.CATALOG), bytes(32), 77).finish()[0]
    store.create(names.catalog_entry(area.keys.area, bytes(32)), bytes(catalog))
    open_index(area, frozenset(), executor).close()
    assert contents(area, record, executor) == {"a": b"content"}
    again = take(area, {"a": b"content"}, executor)
    assert contents(area, again.record, executor) == {"a": b"content"}
