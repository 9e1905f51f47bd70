"""Key slots and epochs: from a passphrase or key file to the keys of a repository (docs/format.md, section 4)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from holdfast.model.documents import JsonObject, encode_document, format_time
from holdfast.model.errors import IntegrityBroken, KeyInvalid, NotFound
from holdfast.model.secrets import Secret
from holdfast.repository.format import names
from holdfast.repository.format.container import (
    Claim,
    ContainerBuilder,
    DoesNotOpen,
    ObjectType,
    broken,
    open_whole,
    parse_header,
    read_frames,
)
from holdfast.repository.format.keys import (
    KEY_BYTES,
    AreaKeys,
    Argon2Parameters,
    RootKeys,
    passphrase_secret,
)
from holdfast.repository.format.names import AreaId, RepositoryId, SlotId
from holdfast.storage.port import Data, Store

SLOTS_MAX = 64
EPOCHS_MAX = 10_000
KEY_FILE = re.compile(r"holdfast-key-1 ([0-9a-f]{64})\s*")


class Unlock(Protocol):
    """Something that may open slots of one kind."""

    kind: str

    def secret_for(self, clear: JsonObject) -> bytes:
        """Return the slot's input key from its clear part."""
        ...

    def clear_part(self) -> JsonObject:
        """Return the kind's own clear part for a new slot."""
        ...


@dataclass(frozen=True, slots=True)
class Passphrase:
    """A passphrase, stretched by Argon2id with each slot's own salt."""

    secret: Secret
    kind: str = "passphrase"

    def secret_for(self, clear: JsonObject) -> bytes:
        kdf = clear.get("kdf")
        if not isinstance(kdf, dict) or kdf.get("name") != "argon2id":
            raise broken("a key slot", "it names no way from a passphrase to a key that this version knows")
        try:
            numbers = [int(str(kdf[name])) for name in ("memory_kib", "passes", "lanes")]
            parameters = Argon2Parameters(bytes.fromhex(str(kdf["salt"])), *numbers)
        except (KeyError, ValueError) as error:
            raise broken("a key slot", "its parameters cannot be read") from error
        return passphrase_secret(self.secret.reveal(), parameters)

    def clear_part(self) -> JsonObject:
        parameters = Argon2Parameters(os.urandom(16))
        return {
            "kdf": {
                "name": "argon2id",
                "memory_kib": parameters.memory_kib,
                "passes": parameters.passes,
                "lanes": parameters.lanes,
                "salt": parameters.salt.hex(),
            }
        }


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The content of a key file: one line with 32 random bytes in hexadecimal."""

    secret: Secret
    kind: str = "keyfile"

    def secret_for(self, clear: JsonObject) -> bytes:
        match = KEY_FILE.fullmatch(self.secret.reveal())
        if match is None:
            raise KeyInvalid(
                "the key file is not one line of `holdfast-key-1` and 64 hexadecimal digits",
                hint="Use the file that `holdfast key add --new-key-file` or `holdfast key export` wrote.",
            )
        return bytes.fromhex(match[1])

    def clear_part(self) -> JsonObject:
        return {}


def new_key_file_text() -> str:
    return f"holdfast-key-1 {os.urandom(KEY_BYTES).hex()}\n"


@dataclass(frozen=True, slots=True, repr=False)
class SlotContent:
    """What a slot opens: every root, or the keys of one area (``area`` set), by epoch."""

    label: str
    keys: Mapping[int, bytes]
    area: AreaId | None = None
    application: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class SlotInfo:
    """What anyone can see of a slot."""

    id: SlotId
    kind: str
    scope: str
    size_bytes: int
    created_at: datetime


def slot_object(
    repository: RepositoryId, slot_id: SlotId, unlock: Unlock, content: SlotContent, created_at: datetime
) -> Data:
    """Return the bytes of a new slot."""
    scope = "repository" if content.area is None else "area"
    clear: JsonObject = {"repository": repository.hex(), "scope": scope, "kind": unlock.kind, **unlock.clear_part()}
    keys: JsonObject = {str(epoch): key.hex() for epoch, key in content.keys.items()}
    document: JsonObject = {"label": content.label, "created_at": format_time(created_at)}
    if content.area is None:
        document["roots"] = keys
    else:
        document |= {"area": content.area.hex(), "application": content.application, "source": content.source}
        document["keys"] = keys
    builder = ContainerBuilder(
        Claim(ObjectType.SLOT, repository, b"", slot_id), unlock.secret_for(clear), 0, clear=encode_document(clear)
    )
    builder.add_plain(encode_document(document))
    return builder.finish()[0]


def clear_document(what: str, data: Data) -> JsonObject:
    """Return the clear part of an object as a document; nothing of it is proved yet."""
    try:
        document = json.loads(parse_header(what, data).clear or b"{}")
    except ValueError as error:
        raise broken(what, "its clear part is not JSON") from error
    if not isinstance(document, dict):
        raise broken(what, "its clear part is no document")
    return document


def _open_slot(repository: RepositoryId, slot_id: SlotId, secret: bytes, data: Data) -> SlotContent | None:
    what = f"key slot {slot_id.hex()[:8]}"
    claim = Claim(ObjectType.SLOT, repository, b"", slot_id)
    try:
        opener = open_whole(what, claim, lambda _: secret, data)
    except DoesNotOpen:
        return None  # its hash is right: another secret's slot, not damage
    document = json.loads(read_frames(opener, data)[0])
    field = "roots" if "roots" in document else "keys"
    keys = {int(epoch): bytes.fromhex(key) for epoch, key in document[field].items()}
    if field == "roots":
        return SlotContent(str(document["label"]), keys)
    area = AreaId(bytes.fromhex(document["area"]))
    return SlotContent(str(document["label"]), keys, area, str(document["application"]), str(document["source"]))


@dataclass(frozen=True, slots=True)
class OpenedSlot:
    id: SlotId
    unlock: Unlock
    content: SlotContent


def read_slots(store: Store) -> list[tuple[SlotId, Data, datetime]]:
    """Return every slot object; raises ``IntegrityBroken`` where there are impossibly many."""
    found: list[tuple[SlotId, Data, datetime]] = []
    for info in store.list(names.SLOTS):
        if len(found) >= SLOTS_MAX:
            raise IntegrityBroken(
                f"{store.url} has more than {SLOTS_MAX} key slots",
                hint="Someone fills the store. Remove slots that `holdfast key list` does not know.",
            )
        text = info.name.removeprefix(names.SLOTS)
        if re.fullmatch(r"[0-9a-f]{32}", text) and info.size_bytes < 1 << 20:
            try:
                found.append((SlotId(bytes.fromhex(text)), store.get(info.name), info.modified_at))
            except NotFound:
                continue  # removed between the listing and now
    return found


def open_slots(
    repository: RepositoryId, slots: list[tuple[SlotId, Data, datetime]], unlocks: list[Unlock]
) -> tuple[list[OpenedSlot], list[IntegrityBroken]]:
    """Return every slot of this repository that one of the secrets opens, and what was found broken on the way."""
    opened: list[OpenedSlot] = []
    trouble: list[IntegrityBroken] = []
    for slot_id, data, _ in slots:
        try:
            clear = clear_document(f"key slot {slot_id.hex()[:8]}", data)
            if clear.get("repository") != repository.hex():
                continue
            for unlock in unlocks:
                if clear.get("kind") == unlock.kind:
                    content = _open_slot(repository, slot_id, unlock.secret_for(clear), data)
                    if content is not None:
                        opened.append(OpenedSlot(slot_id, unlock, content))
                        break
        except IntegrityBroken as error:
            trouble.append(error)
    return opened, trouble


def epoch_object(repository: RepositoryId, epoch: int, root: bytes, older: Mapping[int, bytes], at: datetime) -> Data:
    """Return the bytes of ``epochs/<epoch>``: the older roots under the new one."""
    builder = ContainerBuilder(Claim(ObjectType.EPOCH, repository, b"", epoch.to_bytes(4, "little")), root, epoch)
    roots: JsonObject = {str(number): key.hex() for number, key in older.items()}
    builder.add_plain(encode_document({"created_at": format_time(at), "roots": roots}))
    return builder.finish()[0]


def current_epoch(store: Store) -> int:
    """Return the highest epoch there is."""
    highest = 1
    for info in store.list(names.EPOCHS):
        text = info.name.removeprefix(names.EPOCHS)
        if re.fullmatch(r"[0-9]{8}", text):
            highest = max(highest, int(text))
    if highest > EPOCHS_MAX:
        raise IntegrityBroken(
            f"{store.url} has an epoch {highest}",
            hint="That was not written by holdfast; see who can write to the store.",
        )
    return highest


def proved_roots(
    repository: RepositoryId, claimed: Mapping[int, bytes], highest: int, read: Callable[[str], Data]
) -> dict[int, bytes]:
    """Return the roots that count: an epoch from 2 on only with an ``epochs/`` object that its root opens."""
    for epoch in sorted(claimed, reverse=True):
        if epoch == 1:
            return {1: claimed[1]}
        if epoch > highest:
            continue  # a rotation that put its slots and went no further
        what = f"epoch {epoch}"
        data = read(names.epoch(epoch))
        claim = Claim(ObjectType.EPOCH, repository, b"", epoch.to_bytes(4, "little"))
        try:
            opener = open_whole(what, claim, lambda _, key=claimed[epoch]: key, data)  # type: ignore[misc]
        except DoesNotOpen:
            continue  # the candidate of a rotation that lost
        document = json.loads(read_frames(opener, data)[0])
        older = {int(number): bytes.fromhex(key) for number, key in document["roots"].items()}
        return {**older, epoch: claimed[epoch]}
    return {}


@dataclass(frozen=True, slots=True, repr=False)
class KeyRing:
    """The keys at hand: all of a repository (``roots``), or those of one area."""

    repository: RepositoryId
    current_epoch: int
    roots: RootKeys | None
    area: AreaKeys | None = None
    application: str = ""
    source: str = ""

    def area_of(self, application: str, source: str) -> AreaKeys:
        """Return the keys of an area; raises ``KeyInvalid`` where the slot at hand is another source's."""
        if self.roots is not None:
            return self.roots.area_keys(self.roots.area_id(application, source))
        if self.area is not None and (self.application, self.source) == (application, source):
            return self.area
        raise KeyInvalid(
            f"the key at hand opens {self.application}/{self.source} only, not {application}/{source}",
            hint="Use a passphrase or key file of the whole repository.",
        )

    def whole(self) -> RootKeys:
        """Return the roots; raises ``KeyInvalid`` where only one source's keys are at hand."""
        if self.roots is None:
            raise KeyInvalid(
                f"the key at hand opens {self.application}/{self.source} only",
                hint="This needs a passphrase or key file of the whole repository.",
            )
        return self.roots
