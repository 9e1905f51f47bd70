"""Key slots and epochs: from a passphrase or key file to the keys of a repository (docs/format.md, section 4)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from holdfast.model.documents import JsonObject, encode_document, format_time
from holdfast.model.errors import IntegrityBroken, KeyInvalid, NotFound
from holdfast.model.secrets import Secret
from holdfast.repository.area import fetch
from holdfast.repository.format import names
from holdfast.repository.format.container import (
    SIZE_MAX,
    Claim,
    ContainerBuilder,
    ObjectType,
    broken,
    open_whole,
    parse_header,
    prove_hash,
    read_frames,
)
from holdfast.repository.format.keys import (
    FORMAT_LABEL,
    KEY_BYTES,
    AreaKeys,
    Argon2Parameters,
    RootKeys,
    derive,
    is_signed_by,
    join,
    key_id,
    passphrase_secret,
    upkeep_key,
    upkeep_public,
)
from holdfast.repository.format.names import AreaId, RepositoryId, SlotId
from holdfast.repository.format.record import refuse_needs
from holdfast.storage.port import Data, Store

TRIED_MAX = {"passphrase": 64, "keyfile": 4096}
"""How many slots of each kind are tried; a passphrase slot costs an Argon2id."""
LISTED_MAX = 10_000
KEY_FILE = re.compile(r"holdfast-key-1 ([0-9a-f]{64})\s*")


class Unlock(Protocol):
    """Something that may open slots of one kind."""

    @property
    def kind(self) -> str:
        """The kind of slot it opens."""
        ...

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
class AreaEpoch:
    """What a slot of one area holds of an epoch: the area's key, the root's id, and who may sign removals."""

    key: bytes
    key_id: bytes
    upkeep: bytes


@dataclass(frozen=True, slots=True, repr=False)
class SlotContent:
    """What a slot opens: every root by epoch, or (``area`` set) what one area has of each epoch."""

    label: str
    roots: Mapping[int, bytes]
    area: AreaId | None = None
    application: str = ""
    source: str = ""
    area_epochs: Mapping[int, AreaEpoch] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SlotInfo:
    """What anyone can see of a slot."""

    id: SlotId
    kind: str
    scope: str
    size_bytes: int
    created_at: datetime


def _commitment(secret: bytes, slot_id: SlotId) -> str:
    """Return what a slot tells beforehand about its secret: AES-GCM alone opens under more than one key."""
    return derive(secret, b"commit", slot_id)[:16].hex()


def slot_object(
    repository: RepositoryId, slot_id: SlotId, unlock: Unlock, content: SlotContent, created_at: datetime
) -> Data:
    """Return the bytes of a new slot."""
    scope = "repository" if content.area is None else "area"
    clear: JsonObject = {"repository": repository.hex(), "scope": scope, "kind": unlock.kind, **unlock.clear_part()}
    secret = unlock.secret_for(clear)
    clear["commit"] = _commitment(secret, slot_id)
    document: JsonObject = {"label": content.label, "created_at": format_time(created_at)}
    if content.area is None:
        document["roots"] = {str(epoch): root.hex() for epoch, root in content.roots.items()}
    else:
        document |= {"area": content.area.hex(), "application": content.application, "source": content.source}
        document["keys"] = {
            str(epoch): {"area": held.key.hex(), "key_id": held.key_id.hex(), "upkeep": held.upkeep.hex()}
            for epoch, held in content.area_epochs.items()
        }
    builder = ContainerBuilder(
        Claim(ObjectType.SLOT, repository, b"", slot_id), secret, 0, clear=encode_document(clear)
    )
    builder.add_plain(encode_document(document))
    return builder.finish()[0]


def clear_document(what: str, data: Data) -> JsonObject:
    """Return the clear part of an object as a document; nothing of it is proved yet."""
    try:
        document = json.loads(parse_header(what, data).clear or b"{}")
    except (ValueError, RecursionError) as error:
        raise broken(what, "its clear part is not JSON") from error
    if not isinstance(document, dict):
        raise broken(what, "its clear part is no document")
    return document


def _open_slot(
    repository: RepositoryId, slot_id: SlotId, unlock: Unlock, clear: JsonObject, data: Data
) -> SlotContent | None:
    """Open a slot; None where it is another secret's."""
    what = f"key slot {slot_id.hex()[:8]}"
    secret = unlock.secret_for(clear)
    if clear.get("commit") != _commitment(secret, slot_id):
        return None
    opener = open_whole(what, Claim(ObjectType.SLOT, repository, b"", slot_id), lambda _: secret, data)
    try:
        document = json.loads(read_frames(opener, data)[0])
        refuse_needs(what, document)
        if "roots" in document:
            roots = {int(epoch): bytes.fromhex(root) for epoch, root in document["roots"].items()}
            return SlotContent(str(document["label"]), roots)
        epochs = {
            int(epoch): AreaEpoch(*(bytes.fromhex(held[name]) for name in ("area", "key_id", "upkeep")))
            for epoch, held in document["keys"].items()
        }
        area = AreaId(bytes.fromhex(document["area"]))
        names_of = str(document["application"]), str(document["source"])
        return SlotContent(str(document["label"]), {}, area, *names_of, epochs)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise broken(what, "its document cannot be read") from error


@dataclass(frozen=True, slots=True)
class OpenedSlot:
    id: SlotId
    unlock: Unlock
    content: SlotContent


def read_slots(store: Store) -> list[tuple[SlotId, Data, datetime]]:
    """Return the slot objects, oldest first: what somebody else throws in later cannot crowd them out."""
    listed = []
    for info in store.list(names.SLOTS):
        text = info.name.removeprefix(names.SLOTS)
        if re.fullmatch(r"[0-9a-f]{32}", text) and info.size_bytes <= SIZE_MAX[ObjectType.SLOT]:
            listed.append((info.modified_at, text, info.name))
    found: list[tuple[SlotId, Data, datetime]] = []
    for modified_at, text, name in sorted(listed)[:LISTED_MAX]:
        try:
            found.append(
                (SlotId(bytes.fromhex(text)), fetch(store, f"key slot {text[:8]}", ObjectType.SLOT, name), modified_at)
            )
        except NotFound:
            continue  # removed between the listing and now
    return found


def open_slots(
    repository: RepositoryId, slots: list[tuple[SlotId, Data, datetime]], unlocks: list[Unlock]
) -> tuple[list[OpenedSlot], list[IntegrityBroken]]:
    """Return every slot of this repository that one of the secrets opens, and what was found broken on the way."""
    opened: list[OpenedSlot] = []
    trouble: list[IntegrityBroken] = []
    tried: dict[str, int] = {}
    for slot_id, data, _ in slots:
        try:
            # Hash first: a slot that rotted must not look like another's, or like a wrong passphrase.
            prove_hash(f"key slot {slot_id.hex()[:8]}", data)
            clear = clear_document(f"key slot {slot_id.hex()[:8]}", data)
            if clear.get("repository") != repository.hex():
                continue
            for unlock in unlocks:
                tried[unlock.kind] = tried.get(unlock.kind, 0) + (clear.get("kind") == unlock.kind)
                if clear.get("kind") != unlock.kind or tried[unlock.kind] > TRIED_MAX[unlock.kind]:
                    continue
                content = _open_slot(repository, slot_id, unlock, clear, data)
                if content is not None:
                    opened.append(OpenedSlot(slot_id, unlock, content))
                    break
        except IntegrityBroken as error:
            trouble.append(error)
    return opened, trouble


@dataclass(frozen=True, slots=True)
class EpochLink:
    """What anyone can read of an epoch from 2 on, and prove with the public key of the one before."""

    number: int
    previous: int
    key_id: bytes
    upkeep: bytes
    signature: bytes

    def message(self, repository: RepositoryId) -> bytes:
        numbers = [number.to_bytes(4, "little") for number in (self.previous, self.number)]
        return join(FORMAT_LABEL, b"epoch", repository, *numbers, self.key_id, self.upkeep)


def epoch_object(repository: RepositoryId, number: int, root: bytes, older: RootKeys, at: datetime) -> Data:
    """Return the bytes of ``epochs/<number>``: the older roots under the new one, signed by the current one."""
    previous = older.current_epoch
    link = EpochLink(number, previous, key_id(root, repository), upkeep_public(root, repository), b"")
    signature = upkeep_key(older.roots[previous], repository).sign(link.message(repository))
    clear: JsonObject = {
        "previous": previous,
        "key_id": link.key_id.hex(),
        "upkeep": link.upkeep.hex(),
        "signature": signature.hex(),
    }
    claim = Claim(ObjectType.EPOCH, repository, b"", number.to_bytes(4, "little"))
    builder = ContainerBuilder(claim, root, number, clear=encode_document(clear))
    roots: JsonObject = {str(epoch): key.hex() for epoch, key in older.roots.items()}
    builder.add_plain(encode_document({"created_at": format_time(at), "roots": roots}))
    return builder.finish()[0]


def read_links(store: Store) -> list[EpochLink]:
    """Return what the ``epochs/`` objects say, in order of number; garbage among them is passed over."""
    links: list[EpochLink] = []
    for info in store.list(names.EPOCHS):
        text = info.name.removeprefix(names.EPOCHS)
        if not re.fullmatch(r"[0-9]{8}", text) or len(links) >= LISTED_MAX:
            continue
        try:
            clear = clear_document(f"epoch {text}", fetch(store, f"epoch {text}", ObjectType.EPOCH, info.name))
            keys = [bytes.fromhex(str(clear[name])) for name in ("key_id", "upkeep", "signature")]
            links.append(EpochLink(int(text), int(str(clear["previous"])), *keys))
        except (IntegrityBroken, KeyError, ValueError):
            continue  # proves nothing: it has no right signature either
    return links


def epoch_chain(repository: RepositoryId, links: Sequence[EpochLink], first_public: bytes) -> list[EpochLink]:
    """Return the epochs that count after the first: each signed by the one before; pure."""
    chain: list[EpochLink] = []
    current, public = 1, first_public
    for link in sorted(links, key=lambda each: each.number):
        follows = link.number > current and link.previous == current
        if follows and is_signed_by(public, link.signature, link.message(repository)):
            chain.append(link)
            current, public = link.number, link.upkeep
    return chain


def ring_of(repository: RepositoryId, links: Sequence[EpochLink], opened: Sequence[OpenedSlot]) -> KeyRing:
    """Return the keys that slots give together: roots where one has them, else those of an area."""
    roots: dict[int, bytes] = {}
    for slot in opened:
        if slot.content.area is None and 1 in slot.content.roots:
            chain = epoch_chain(repository, links, upkeep_public(slot.content.roots[1], repository))
            ids = {link.number: link.key_id for link in chain}
            current = chain[-1].number if chain else 1
            roots |= {
                epoch: root
                for epoch, root in slot.content.roots.items()
                if epoch == 1 or ids.get(epoch) == key_id(root, repository)
            }
    if roots:
        return KeyRing(repository, current, RootKeys(repository, roots, current))
    content = opened[0].content
    if content.area is None or 1 not in content.area_epochs:
        raise broken("the key slot at hand", "it holds no key of the first epoch")
    chain = epoch_chain(repository, links, content.area_epochs[1].upkeep)
    ids = {1: content.area_epochs[1].key_id, **{link.number: link.key_id for link in chain}}
    current = chain[-1].number if chain else 1
    sound = {epoch: held for epoch, held in content.area_epochs.items() if ids.get(epoch) == held.key_id}
    area = AreaKeys(
        repository,
        content.area,
        {epoch: held.key for epoch, held in sound.items()},
        current,
        {epoch: held.upkeep for epoch, held in sound.items()},
    )
    return KeyRing(repository, current, None, area, content.application, content.source)


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
