"""Making, opening and re-keying a repository in a store (docs/format.md, section 4)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count

from holdfast.model.documents import JsonObject, encode_document, format_time
from holdfast.model.errors import Conflict, IntegrityBroken, KeyInvalid, NotFound, RepositoryAbsent
from holdfast.repository import keyring
from holdfast.repository.area import fetch
from holdfast.repository.format import names
from holdfast.repository.format.container import Claim, ContainerBuilder, ObjectType, broken, open_whole, prove_hash
from holdfast.repository.format.keys import KEY_BYTES, key_id
from holdfast.repository.format.names import AreaId, RepositoryId, SlotId, StoreId
from holdfast.repository.keyring import AreaEpoch, KeyRing, OpenedSlot, SlotContent, SlotInfo, Unlock
from holdfast.storage.port import Data, Store


@dataclass(frozen=True, slots=True)
class Repository:
    """An opened repository. Holds no connection of its own; the store is closed by whoever opened it."""

    store: Store
    id: RepositoryId
    store_id: StoreId
    keys: KeyRing
    slots: tuple[OpenedSlot, ...]
    trouble: tuple[IntegrityBroken, ...] = ()


def _id_in_clear(what: str, data: Data, field: str) -> bytes:
    """Return an id from the clear part of an object; raises ``IntegrityBroken``. Proved only when a key opens it."""
    prove_hash(what, data)
    try:
        found = bytes.fromhex(str(keyring.clear_document(what, data).get(field, "")))
    except ValueError:
        found = b""
    if len(found) != 16:
        raise broken(what, f"it names no {field}")
    return found


def read_identity(store: Store) -> tuple[RepositoryId, Data]:
    """Return the id a store's identity claims, and the object; raises ``RepositoryAbsent``."""
    try:
        data = fetch(store, "the identity", ObjectType.IDENTITY, names.IDENTITY)
    except NotFound as error:
        raise RepositoryAbsent(
            f"there is no repository at {store.url}",
            hint="Check the address; `holdfast init` creates a repository there.",
        ) from error
    return RepositoryId(_id_in_clear("the identity", data, "repository")), data


def open_repository(store: Store, unlocks: Sequence[Unlock]) -> Repository:
    """Open the repository of a store; raises ``RepositoryAbsent``, ``KeyInvalid`` or ``IntegrityBroken``."""
    repository, identity = read_identity(store)
    slots = keyring.read_slots(store)
    if not slots:
        # Slots are put before the identity: one that has none was robbed of them, or the listing is not the store's.
        raise broken(f"the repository at {store.url}", "none of its key slots is listed")
    opened, trouble = keyring.open_slots(repository, slots, list(unlocks))
    if not opened:
        if trouble:
            raise trouble[0]
        raise KeyInvalid(
            f"no key slot of {store.url} opens with the passphrase or key file given",
            hint="Use the passphrase this repository was made with (or one that `holdfast key add` added); "
            "nothing was changed.",
        )
    keys = keyring.ring_of(repository, keyring.read_links(store), opened)
    try:
        place = fetch(store, "the store object", ObjectType.STORE, names.STORE)
    except NotFound as error:
        raise broken(f"the repository at {store.url}", "its store object is missing") from error
    if keys.roots is not None:
        root = keys.roots.roots[1]
        open_whole("the identity", Claim(ObjectType.IDENTITY, repository), lambda _: root, identity)
        open_whole("the store object", Claim(ObjectType.STORE, repository), lambda _: root, place)
    store_id = StoreId(_id_in_clear("the store object", place, "store"))
    return Repository(store, repository, store_id, keys, tuple(opened), tuple(trouble))


def create_repository(store: Store, unlock: Unlock, label: str, now: datetime) -> tuple[Repository, bool]:
    """Make a repository, or open the one that is there; return it and whether it was made.

    May be repeated: a run that died between slot and identity leaves a slot that belongs to nothing. Raises
    ``KeyInvalid`` where a repository exists that the secret does not open (nothing is added then).
    """
    try:
        return open_repository(store, [unlock]), False
    except RepositoryAbsent:
        pass
    repository, root = RepositoryId(os.urandom(16)), os.urandom(KEY_BYTES)
    put_slot(store, repository, unlock, SlotContent(label, {1: root}), now)
    try:
        _put_store_object(store, repository, root, now)
    except Conflict:
        # Another init was here first and may be dead by now: what it began is brought to its end.
        repository, root = _begun(store, unlock)
    clear: JsonObject = {"format": 1, "repository": repository.hex()}
    made = True
    try:
        # The identity comes last: a repository exists when it does. Losing this race means that another init won.
        store.create(names.IDENTITY, _root_object(ObjectType.IDENTITY, repository, root, clear, now))
    except Conflict:
        made = False
    return open_repository(store, [unlock]), made


def _begun(store: Store, unlock: Unlock) -> tuple[RepositoryId, bytes]:
    """Return id and root of the repository a store object speaks of; raises ``Conflict`` where it is another's."""
    there = fetch(store, "the store object", ObjectType.STORE, names.STORE)
    repository = RepositoryId(_id_in_clear("the store object", there, "repository"))
    opened, _ = keyring.open_slots(repository, keyring.read_slots(store), [unlock])
    root = next((slot.content.roots[1] for slot in opened if 1 in slot.content.roots), None)
    if root is None:
        raise Conflict(
            f"{store.url} holds a repository half made with another passphrase or key file",
            hint="Run `holdfast init` with the secret it was begun with, or choose an empty place.",
        )
    open_whole("the store object", Claim(ObjectType.STORE, repository), lambda _: root, there)
    return repository, root


def _root_object(kind: ObjectType, repository: RepositoryId, root: bytes, clear: JsonObject, now: datetime) -> Data:
    builder = ContainerBuilder(Claim(kind, repository), root, 1, clear=encode_document(clear))
    builder.add_plain(encode_document({"created_at": format_time(now)}))
    return builder.finish()[0]


def _put_store_object(store: Store, repository: RepositoryId, root: bytes, now: datetime) -> None:
    """Tell this copy from the others; a store object that is there already and is this repository's stays."""
    clear: JsonObject = {"repository": repository.hex(), "store": os.urandom(16).hex()}
    try:
        store.create(names.STORE, _root_object(ObjectType.STORE, repository, root, clear, now))
    except Conflict:
        there = fetch(store, "the store object", ObjectType.STORE, names.STORE)
        if _id_in_clear("the store object", there, "repository") != repository:
            raise


def carry_repository(origin: Repository, store: Store, now: datetime) -> bool:
    """Make ``store`` a copy of the same repository: slots and epochs first, identity last; return whether it was new.

    Raises ``Conflict`` where another repository is there already.
    """
    try:
        there, _ = read_identity(store)
    except RepositoryAbsent:
        there = None
    if there is not None and there != origin.id:
        raise Conflict(
            f"{store.url} holds another repository than {origin.store.url}",
            hint="Each repository of one configuration is a copy of the first; choose an empty place for this one.",
        )
    for prefix in (names.SLOTS, names.EPOCHS):
        for info in origin.store.list(prefix):
            store.create(info.name, origin.store.get(info.name))
    _put_store_object(store, origin.id, origin.keys.whole().roots[1], now)
    store.create(names.IDENTITY, origin.store.get(names.IDENTITY))
    return there is None


def put_slot(store: Store, repository: RepositoryId, unlock: Unlock, content: SlotContent, now: datetime) -> SlotId:
    """Add a slot and return its id."""
    slot_id = SlotId(os.urandom(16))
    store.create(names.slot(slot_id), keyring.slot_object(repository, slot_id, unlock, content, now))
    return slot_id


def add_slot(
    opened: Repository, unlock: Unlock, label: str, now: datetime, only: tuple[str, str] | None = None
) -> SlotId:
    """Add a slot for the whole repository, or for one (application, source) ``only``."""
    roots = opened.keys.whole()
    if only is None:
        return put_slot(opened.store, opened.id, unlock, SlotContent(label, dict(roots.roots)), now)
    area = roots.area_keys(roots.area_id(*only))
    epochs = {
        epoch: AreaEpoch(key, key_id(roots.roots[epoch], opened.id), area.upkeep[epoch])
        for epoch, key in area.keys.items()
    }
    content = SlotContent(label, {}, area.area, only[0], only[1], epochs)
    return put_slot(opened.store, opened.id, unlock, content, now)


def list_slots(opened: Repository) -> list[SlotInfo]:
    """Return every slot that belongs to this repository; what cannot be read among them is for ``check`` to tell."""
    found = []
    for slot_id, data, modified_at in keyring.read_slots(opened.store):
        try:
            clear = keyring.clear_document(f"key slot {slot_id.hex()[:8]}", data)
        except IntegrityBroken:
            continue  # garbage that somebody put there is no slot of this repository
        if clear.get("repository") == opened.id.hex():
            found.append(SlotInfo(slot_id, str(clear.get("kind")), str(clear.get("scope")), len(data), modified_at))
    return found


def remove_slot(opened: Repository, slot_id: SlotId) -> None:
    """Delete a slot; raises ``Conflict`` for the last one that opens the whole repository."""
    others = [slot for slot in list_slots(opened) if slot.scope == "repository" and slot.id != slot_id]
    if not others:
        raise Conflict(
            f"key slot {slot_id.hex()[:8]} is the last that opens the whole repository",
            hint="Add another with `holdfast key add` first: without any, nothing can ever be restored.",
        )
    opened.store.delete(names.slot(slot_id))


def rotate(opened: Repository, now: datetime) -> tuple[int, tuple[SlotId, ...]]:
    """Begin a new epoch; return its number and the slots that stay behind, because their secret is not at hand.

    Slots with the new root come first, ``epochs/<e>`` next, and only then the old slots of the same secrets go:
    dying in between leaves more slots than needed and nothing unopenable. Raises ``Conflict`` where another
    rotation won.
    """
    roots = opened.keys.whole()
    if roots.current_epoch not in roots.roots:
        raise KeyInvalid(
            f"the key at hand does not open the current epoch {roots.current_epoch}",
            hint="Rotate with a passphrase or key file that the last rotation re-wrapped.",
        )
    # Names that somebody filled with garbage are spent: the next free number serves as well.
    taken = {info.name for info in opened.store.list(names.EPOCHS)}
    epoch = next(number for number in count(roots.current_epoch + 1) if names.epoch(number) not in taken)
    root = os.urandom(KEY_BYTES)
    mine = [slot for slot in opened.slots if slot.content.area is None]
    for slot in mine:
        content = SlotContent(slot.content.label, {**roots.roots, epoch: root})
        put_slot(opened.store, opened.id, slot.unlock, content, now)
    opened.store.create(names.epoch(epoch), keyring.epoch_object(opened.id, epoch, root, roots, now))
    for slot in mine:
        opened.store.delete(names.slot(slot.id))
    reopened = open_repository(opened.store, [slot.unlock for slot in mine])
    rewrapped = {slot.id for slot in reopened.slots}
    return epoch, tuple(slot.id for slot in list_slots(opened) if slot.id not in rewrapped)


def area_ids(store: Store) -> list[AreaId]:
    """Return every area that a catalog entry names."""
    found = (names.parse_catalog(info.name) for info in store.list(names.CATALOG))
    return list(dict.fromkeys(area for area in found if area is not None))
