#!/usr/bin/env python3
"""Restores from a holdfast repository in a folder, without holdfast: an independent reading of docs/format.md.

Needs Python 3.11, zstandard, blake3 and cryptography (44 or newer), and HOLDFAST_PASSPHRASE or HOLDFAST_KEY_FILE set. It
writes only to TARGET, TARGET.tablespaces and TARGET.beside. Numbers in brackets are sections of the page. What it restores
was proven: each object opens under its own name only, each chunk has the id that its list states. Where it meets damage
it goes on as far as that can be done, says so, and ends with 13; 1 is failed, 2 usage, 10 no repository, 12 no key.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import struct
import sys
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

FAILED, USAGE, NO_REPOSITORY, KEY, BROKEN = 1, 2, 10, 12, 13
IDENTITY, SLOT, EPOCH, CATALOG, DATA_PACK, LIST_PACK, HISTORY, RECORD, STORE = 1, 2, 3, 4, 5, 6, 7, 8, 14
SMALL_MAX, EPOCH_OBJECT_MAX, OBJECT_MAX, PLAIN_MAX, FRAMES_MAX = 65536, 1 << 20, 64 << 20, 16 << 20, 1 << 22
PASSPHRASE_SLOTS_MAX, KEY_FILE_SLOTS_MAX, LEAF_ROWS_MAX, TREE_LINE_MAX = 64, 4096, 512, 16 << 20
WORKERS, OPEN_PACKS_MAX, WARNINGS_MAX, SHOWN_MAX, TOC_COUNTER = 4, 64, 50, 20, (1 << 64) - 1
HEX_BYTE, HEX_ID, HEX_HASH = (re.compile(rf"[0-9a-f]{{{digits}}}") for digits in (2, 32, 64))
HISTORY_NAME, EPOCH_NAME, SPACE = re.compile("[0-9]{12}"), re.compile("[0-9]{8}"), re.compile("pg_tblspc/[0-9]{1,10}")
SIGNED = ("expire", "release", "void", "adopt", "prune")
NOT_RESTORED = ("postmaster.pid", "postmaster.opts", "standby.signal", "recovery.signal", "tablespace_map")
UNSET = "recovery_target_name recovery_target_time recovery_target_xid recovery_target_lsn recovery_end_command "
UNSET += "archive_cleanup_command synchronous_standby_names primary_conninfo primary_slot_name"
RECOVERY = "recovery_target = 'immediate'\nrecovery_target_timeline = 'current'\nrecovery_target_action = 'promote'\n"
RECOVERY += "restore_command = 'false'\narchive_mode = off\nrecovery_min_apply_delay = 0\n"
KEPT = "max_connections max_worker_processes max_wal_senders max_prepared_transactions max_locks_per_transaction "
KEPT += "wal_level shared_preload_libraries"
HBA = "local all all peer\nhost all all 127.0.0.1/32 scram-sha-256\nhost all all ::1/128 scram-sha-256\n"
ELSEWHERE = rb"(?im)^(?=[ \t]*(data_directory|config_file|hba_file|ident_file|external_pid_file|include\w*|ssl\w*)\b)"

Document = dict[str, Any]


class Trouble(Exception):
    """Why it cannot go on: a message, what to do about it, and the exit code."""

    def __init__(self, message: str, hint: str = "read another copy of the repository", code: int = BROKEN) -> None:
        super().__init__(message)
        self.hint, self.code = hint, code


def check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Trouble(otherwise)


@functools.lru_cache(maxsize=WARNINGS_MAX)
def warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def parse_json(what: str, data: bytes) -> Document:
    try:
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Trouble(f"{what} is not a JSON document") from error
    return document if isinstance(document, dict) else {}


def need(document: Document, key: str, kind: type, what: str) -> Any:
    value = document.get(key)
    possible = isinstance(value, kind) and not isinstance(value, bool) and not (isinstance(value, int) and value < 0)
    check(possible, f"{what} has no usable {key!r}")
    return value


def from_hex(text: object, length: int, what: str) -> bytes:
    possible = isinstance(text, str) and len(text) == 2 * length and re.fullmatch("[0-9a-f]*", text)
    check(bool(possible), f"{what} is not {length} bytes in lower-case hexadecimal")
    return bytes.fromhex(str(text))


def join(*parts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def derive(key: bytes, *parts: bytes, salt: bytes = bytes(32)) -> bytes:
    return HKDF(SHA256(), 32, salt, join(b"holdfast/v1", *parts)).derive(key)


def signed_by(key: bytes, signature: bytes, *parts: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, join(b"holdfast/v1", *parts))
    except (InvalidSignature, ValueError):
        return False
    return True


def slot_secret(clear: Document) -> bytes | None:
    """Return what the environment holds for a slot: by its kind the key file, or the passphrase stretched [4]."""
    passphrase, key_file = os.environ.get("HOLDFAST_PASSPHRASE"), os.environ.get("HOLDFAST_KEY_FILE")
    if clear.get("kind") == "keyfile" and key_file:
        line = Path(key_file).read_text("ascii", "replace").strip()
        return from_hex(line.removeprefix("holdfast-key-1 "), 32, f"what follows holdfast-key-1 in {key_file}")
    if clear.get("kind") != "passphrase" or not passphrase:
        return None
    kdf = need(clear, "kdf", dict, "it")
    memory, passes, lanes = (need(kdf, key, int, "it") for key in ("memory_kib", "passes", "lanes"))
    possible = 16384 <= memory <= 1 << 20 and 1 <= passes <= 16 and 1 <= lanes <= 16 and kdf.get("name") == "argon2id"
    check(possible, "it asks for a derivation that is refused")
    secret, salt = unicodedata.normalize("NFC", passphrase), from_hex(kdf.get("salt"), 16, "its salt")
    argon2id = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory)
    return argon2id.derive(secret.encode("utf-8", "surrogateescape"))


class Container:
    """One object [3]: its layout is checked at once, its table when it is opened, a frame when it is read."""

    def __init__(self, what: str, size: int, read: Callable[[int, int], bytes]) -> None:
        self.what, self.size, self.read = what, size, read
        check(128 <= size <= OBJECT_MAX, f"{what} has {size} bytes, which no such object has")
        header, trailer = self.exactly(0, 64), self.exactly(size - 64, 64)
        magic, version, self.kind, zero, self.epoch, self.salt, clear, gap = struct.unpack("<8sHBBI32sI12s", header)
        self.toc_offset, self.toc_length, count, end_magic, rest, self.hash = struct.unpack("<QII8s8s32s", trailer)
        whole = (magic, end_magic) == (b"HOLDFAST", b"HFTRAIL1")
        check(whole, f"{what} is not a holdfast object, or its beginning or end is gone")
        if version != 1:
            raise Trouble(f"{what} has format {version}, this reader knows 1", "use that of a newer holdfast", FAILED)
        self.row_length = 44 if self.kind in (DATA_PACK, LIST_PACK) else 12
        fits = self.toc_offset >= 64 + clear and self.toc_offset + self.toc_length + 64 == size
        fits = fits and clear <= SMALL_MAX and count <= FRAMES_MAX and self.toc_length == 20 + count * self.row_length
        check(fits and not zero and not any(rest + gap), f"{what} has impossible values in its header or trailer")
        self.head, self.tail = header + self.exactly(64, clear), trailer[:8] + trailer[12:16]
        self.frames: list[tuple[int, int, int, int, bytes]] = []  # algorithm, plain, stored, offset, chunk id

    def exactly(self, offset: int, length: int) -> bytes:
        data = self.read(offset, length)
        check(len(data) == length, f"{self.what} ends too early")
        return data

    def is_sound(self) -> bool:
        return bool(blake3(self.exactly(0, self.size - 32)).digest() == self.hash)

    def open(self, ikm: bytes, repository: bytes, area: bytes, claim: bytes) -> Container:
        """Open the table of contents; that proves header, clear part, type, place and claim."""
        place = bytes([self.kind]), repository, area, claim
        self.cipher = AESGCM(derive(ikm, b"container", *place, salt=self.salt))
        sealed = self.exactly(self.toc_offset, self.toc_length)
        toc, offset = self.unseal(TOC_COUNTER, 0, len(sealed) - 16, sealed, self.head + self.tail), len(self.head)
        rows = (len(toc) - 4) // self.row_length
        for row in range(rows):
            algorithm, zero, zeros, plain, stored = struct.unpack_from("<BBHII", toc, 4 + 12 * row)
            possible = algorithm <= 1 and not zero and not zeros and plain <= PLAIN_MAX and 16 <= stored <= plain + 16
            check(possible, f"frame {row} of {self.what} has impossible values")
            ids = 4 + 12 * rows + 32 * row
            self.frames.append((algorithm, plain, stored, offset, toc[ids : ids + 32]))
            offset += stored
        fits = offset == self.toc_offset and int.from_bytes(toc[:4], "little") == rows
        check(fits, f"the frames of {self.what} do not fill the place before its table of contents")
        return self

    def unseal(self, counter: int, algorithm: int, plain: int, data: bytes, more: bytes = b"") -> bytes:
        number = struct.pack("<Q", counter)
        try:
            return self.cipher.decrypt(bytes(4) + number, data, number + struct.pack("<BI", algorithm, plain) + more)
        except InvalidTag as error:
            raise Trouble(f"{self.what} does not open: altered, misplaced, or sealed with another key") from error

    def frame(self, number: int) -> bytes:
        check(number < len(self.frames), f"{self.what} has no frame {number}")
        algorithm, plain, stored, offset, _ = self.frames[number]
        data = self.unseal(number, algorithm, plain, self.exactly(offset, stored))
        try:
            if algorithm == 1:
                fits = zstandard.frame_content_size(data) in (plain, -1)
                data = zstandard.ZstdDecompressor().decompress(data, max_output_size=plain) if fits else b""
        except zstandard.ZstdError as error:
            raise Trouble(f"frame {number} of {self.what} does not decompress") from error
        check(len(data) == plain, f"frame {number} of {self.what} does not have the length it states")
        return data

    def clear(self) -> Document:
        return parse_json(f"the clear part of {self.what}", self.head[64:])

    def document(self) -> Document:
        return parse_json(self.what, self.frame(0))

    @staticmethod
    def of(what: str, data: bytes) -> Container:
        found = Container(what, len(data), lambda offset, length: data[offset : offset + length])
        check(found.is_sound(), f"{what} does not have the hash it ends with: bytes have changed")
        return found


class Repository:
    """A folder with a repository [2, 4], unlocked with the passphrase or key file of the environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.roots, self.upkeep = dict[int, bytes](), dict[int, bytes]()
        self.area_keys, self.area_names = dict[tuple[bytes, int], bytes](), dict[bytes, str]()
        self.epochs = dict[int, tuple[Container, bytes, bytes, bytes]]()  # with key id, upkeep key, signature
        if not (folder / "identity").is_file():
            hint = "name the folder that holds the file `identity`; is its disk mounted?"
            raise Trouble(f"there is no repository at {folder}", hint, NO_REPOSITORY)
        self.identity, self.store = self.container("identity"), self.container("store")
        clear, store = self.identity.clear(), self.store.clear()
        self.id = from_hex(clear.get("repository"), 16, "the repository id")
        self.store_id = from_hex(store.get("store"), 16, "the store id")
        known = clear.get("format") == 1 and not clear.get("needs") and store.get("repository") == self.id.hex()
        check(known, "the identity asks for a newer reader, or the store object is that of another repository")
        self.read_epochs()
        self.unlock()

    def names(self, prefix: str, pattern: re.Pattern[str]) -> list[str]:
        folder = self.folder / prefix
        return sorted(e.name for e in folder.iterdir() if pattern.fullmatch(e.name)) if folder.is_dir() else []

    def container(self, name: str, most: int = SMALL_MAX) -> Container:
        with (self.folder / name).open("rb") as file:
            data = file.read(most + 1)
        check(len(data) <= most, f"{name} is larger than any such object")
        return Container.of(name, data)

    def open_pack(self, area: bytes, name: str) -> Container:
        path = self.folder / f"areas/{area.hex()}/packs/{name[:2]}/{name}"

        def read(offset: int, length: int) -> bytes:
            with path.open("rb", buffering=0) as file:
                return os.pread(file.fileno(), length, offset)

        return self.open(Container(f"pack {name}", path.stat().st_size, read), (DATA_PACK, LIST_PACK), area)

    def open(self, found: Container, kinds: tuple[int, ...], area: bytes, claim: bytes = b"") -> Container:
        check(found.kind in kinds, f"{found.what} says it is an object of type {found.kind}")
        return found.open(self.area_key(area, found.epoch), self.id, area, claim)

    def area_key(self, area: bytes, epoch: int) -> bytes:
        if epoch in self.roots:
            return derive(self.roots[epoch], b"area key", self.id, area)
        if (area, epoch) not in self.area_keys:
            hint = "use a passphrase or key file added for this source, or after the last `key rotate`"
            raise Trouble(f"this key does not open what was written under epoch {epoch} of the keys", hint, KEY)
        return self.area_keys[area, epoch]

    def area_id(self, application: str, source: str) -> bytes:
        names = (unicodedata.normalize("NFC", name).encode("utf-8", "surrogateescape") for name in (application, source))
        return blake3(join(*names), key=derive(self.roots[1], b"name key", self.id)).digest()[:16]

    def read_epochs(self) -> None:
        for name in self.names("epochs", EPOCH_NAME):
            try:
                found = self.container(f"epochs/{name}", EPOCH_OBJECT_MAX)
                check((found.kind, found.epoch) == (EPOCH, int(name)), "it says it is something else")
                fields = (("key_id", 16), ("upkeep", 32), ("signature", 64))
                key_id, upkeep, signature = (from_hex(found.clear().get(key), size, key) for key, size in fields)
                self.epochs[int(name)] = found, key_id, upkeep, signature
            except (Trouble, OSError) as error:
                warn(f"epochs/{name} is passed over: {error}")

    def follow_epochs(self, first: bytes) -> dict[int, bytes]:
        """Keep the upkeep keys of the epochs that count, each signed by the one before; return their key ids."""
        self.upkeep, ids = {1: first}, dict[int, bytes]()
        for epoch, (found, key_id, upkeep, signature) in sorted(self.epochs.items()):
            last = max(self.upkeep)
            parts = b"epoch", self.id, struct.pack("<I", last), struct.pack("<I", epoch), key_id, upkeep
            if found.clear().get("previous") == last and signed_by(self.upkeep[last], signature, *parts):
                self.upkeep[epoch], ids[epoch] = upkeep, key_id
        return ids

    def unlock(self) -> None:
        """Try the slots of this repository, the oldest first, until one leads to the current epoch."""
        left, tried = {"passphrase": PASSPHRASE_SLOTS_MAX, "keyfile": KEY_FILE_SLOTS_MAX}, list[str]()
        for name in sorted(self.names("slots", HEX_ID), key=lambda n: (self.folder / "slots" / n).stat().st_mtime_ns):
            try:
                slot = self.container(f"slots/{name}")
                clear, slot_id = slot.clear(), bytes.fromhex(name)
                left[str(clear.get("kind"))] = left.get(str(clear.get("kind")), 0) - 1
                ours = (clear.get("repository"), slot.kind) == (self.id.hex(), SLOT) and not clear.get("needs")
                ours = ours and left[str(clear.get("kind"))] >= 0 and not (self.roots and max(self.upkeep) in self.roots)
                secret = slot_secret(clear) if ours else None
                if secret and derive(secret, b"commit", slot_id)[:16].hex() == clear.get("commit"):
                    self.take(slot.open(secret, self.id, b"", slot_id).document())
            except (Trouble, OSError) as error:
                tried.append(f"slots/{name}: {error}")
        if not self.roots and not self.area_keys:
            hint = "; ".join(["is it set, spelt right, and of this repository?", *tried])
            raise Trouble("no key slot opens with HOLDFAST_PASSPHRASE or HOLDFAST_KEY_FILE", hint, KEY)
        if max(self.upkeep) not in self.roots and (self.roots or max(self.upkeep) not in {e for _, e in self.area_keys}):
            warn("this key is older than the last `key rotate`: newer objects stay closed")

    def take(self, document: Document) -> None:
        """Keep the roots, or the keys of one area, that belong to epochs that count."""
        roots = {int(epoch): from_hex(root, 32, "a root") for epoch, root in document.get("roots", {}).items()}
        for epoch in sorted(roots.keys() & self.epochs.keys(), reverse=True):
            found, key_id, _, _ = self.epochs[epoch]
            if derive(roots[epoch], b"key id", self.id)[:16] == key_id:
                below = found.open(roots[epoch], self.id, b"", struct.pack("<I", epoch)).document().get("roots", {})
                roots |= {int(epoch): from_hex(root, 32, "a root") for epoch, root in below.items()}
                break
        keys = {int(epoch): key for epoch, key in document.get("keys", {}).items()}
        upkeep = b"" if 1 in roots else from_hex(keys.get(1, {}).get("upkeep"), 32, "the upkeep key of a slot")
        if 1 in roots:
            for proven in (self.identity, self.store):
                proven.open(roots[1], self.id, b"", b"")
            seed = derive(roots[1], b"upkeep key", self.id)
            upkeep = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        ids = self.follow_epochs(upkeep)
        right = {e: root for e, root in roots.items() if e == 1 or derive(root, b"key id", self.id)[:16] == ids.get(e)}
        self.roots |= right
        for epoch, key in keys.items():
            if epoch == 1 or from_hex(key.get("key_id"), 16, "a key id") == ids.get(epoch):
                area = from_hex(document.get("area"), 16, "the area id of a slot")
                self.area_keys[area, epoch] = from_hex(key.get("area"), 32, "an area key")
                self.area_names[area] = f"{document.get('application')}/{document.get('source')}"

    def sources(self) -> dict[bytes, str]:
        """Return `application/source` of every area that this key opens and whose name is stored."""
        known = dict(self.area_names)
        areas = self.names("catalog", HEX_ID) if self.roots else []
        for area, name in [(bytes.fromhex(a), f"{a}/{n}") for a in areas for n in self.names(f"catalog/{a}", HEX_HASH)]:
            try:
                found = self.open(self.container(f"catalog/{name}"), (CATALOG,), area).document()
                names = need(found, "application", str, "it"), need(found, "source", str, "it")
                check(self.area_id(*names) == area, "it names a source that has another area")
                known[area] = "/".join(names)
            except (Trouble, OSError) as error:
                warn(f"catalog/{name} does not count: {error}")
        return known

    def find_area(self, text: str) -> bytes:
        known, (application, slash, source) = self.sources(), text.partition("/")
        if slash and self.roots:  # found without the catalog too
            known[self.area_id(application, source)] = text
        named = [area for area, name in known.items() if text in (name, name.partition("/")[2])]
        found = [area for area in named if (self.folder / f"areas/{area.hex()}").is_dir()]
        if len(found) != 1:
            reason = f"more than one source is called {text}" if found else f"there is no source {text}"
            choice = ", ".join(self.sources().values()) or "none whose name is stored; try application/source"
            raise Trouble(reason, f"sources here: {choice}", USAGE if found else FAILED)
        return found[0]


def live_backups(entries: dict[int, Document], problems: list[str]) -> dict[str, Document]:
    """Return the live backups by id [8, rules 3 and 4], oldest entry first; add what breaks rule 5 to the problems."""
    mark = max((number for number, entry in entries.items() if entry["kind"] == "prune"), default=0)
    named = {(pair[0], pair[1]) for pair in entries[mark]["live"]} if mark else set()
    removed, found = dict[str, int](), dict[str, Document]()
    for number, entry in entries.items():
        before, previous = entries.get(number - 1), entry.get("previous")
        if number > max(mark, 1) and not before:
            problems.append(f"entry {number - 1} of the history is missing or unreadable")
        elif number >= mark and before and (previous != before["hash"] or entry["epoch"] < before["epoch"]):
            problems.append(f"entry {number} of the history does not follow the one before it")
        if entry["kind"] in ("expire", "void"):
            removed |= dict.fromkeys(entry.get("backups", [entry.get("backup")]), number)
    for number, entry in entries.items():
        backup = str(entry.get("backup"))
        exists = entry["kind"] == "backup" and (number > mark or (number, backup) in named)
        if exists and removed.get(backup, 0) < number:
            found.setdefault(backup, entry)
    lost = [backup for number, backup in named if number not in entries and backup not in removed]
    problems += [f"the entry of the live backup {backup} is missing" for backup in lost]
    return found


class Area:
    """What is kept of one source: its history and records [7, 8] and, after `find_packs`, its content [5, 6]."""

    def __init__(self, repository: Repository, area: bytes) -> None:
        self.repository, self.area, self.problems, self.records = repository, area, list[str](), list[Document]()
        self.entries = self.read_history()
        for backup, entry in live_backups(self.entries, self.problems).items():
            try:
                self.records.append(self.read_record(from_hex(backup, 16, "the id of a backup"), entry))
            except Trouble as error:
                self.problems.append(str(error))
        self.records.sort(key=lambda record: str(record["ended_at"]))

    def read_history(self) -> dict[int, Document]:
        """Open every entry under its number; add to its document its object hash, epoch and further frames."""
        entries, repository = dict[int, Document](), self.repository
        for name in repository.names(f"areas/{self.area.hex()}/history", HISTORY_NAME):
            place = repository.store_id, struct.pack("<Q", int(name))
            try:
                found = repository.container(f"areas/{self.area.hex()}/history/{name}", OBJECT_MAX)
                entry = repository.open(found, (HISTORY,), self.area, b"".join(place)).document()
                frames, kind = [found.frame(n) for n in range(len(found.frames))], need(entry, "kind", str, name)
                check(entry.get("number") == int(name), f"{found.what} has the number of another entry")
                signature = frames.pop() if kind in SIGNED else b""
                parts = repository.id, self.area, *place, *(blake3(frame).digest() for frame in frames)
                right = kind not in SIGNED or signed_by(repository.upkeep[found.epoch], signature, b"entry", *parts)
                if not right or (entry.get("needs") and kind != "backup"):
                    warn(f"{found.what} means nothing: it is signed by nobody who may, or for newer readers")
                    kind = ""
                entries[int(name)] = entry | {"kind": kind, "hash": found.hash.hex(), "frames": frames, "epoch": found.epoch}
            except (Trouble, OSError) as error:
                warn(str(error))
        return entries

    def read_record(self, backup: bytes, entry: Document) -> Document:
        data, what = b"".join(entry["frames"][1:2]), f"the record of backup {backup.hex()}"
        check(len(data) <= SMALL_MAX, f"{what} is too long")
        record = self.repository.open(Container.of(what, data), (RECORD,), self.area, backup).document()
        names = [need(record, key, str, what) for key in ("application", "source", "ended_at")]
        ours = not self.repository.roots or self.repository.area_id(*names[:2]) == self.area
        check(ours and record.get("id") == backup.hex(), f"{what} is that of another backup or source")
        return record | {"needs": record.get("needs") or entry.get("needs")}

    def find_packs(self) -> None:
        """Read the table of every pack; condemned packs come last, chunks are taken from them only in need."""
        key, folder = self.repository.area_key(self.area, 1), f"areas/{self.area.hex()}/packs"
        self.id_keys = {kind: derive(key, b"chunk id", kind) for kind in (b"data", b"list")}
        lists = [frame for e in self.entries.values() if e["kind"] == "prune" for frame in e["frames"][1:]]
        self.condemned = {frame[at : at + 32].hex() for frame in lists for at in range(0, len(frame), 32)}
        self.open_pack = functools.lru_cache(OPEN_PACKS_MAX)(functools.partial(self.repository.open_pack, self.area))
        self.places, self.hashed = dict[bytes, tuple[int, ...]](), set[str]()
        names = self.repository.names
        packs = [name for start in names(folder, HEX_BYTE) for name in names(f"{folder}/{start}", HEX_HASH)]
        self.packs = sorted(packs, key=lambda name: name in self.condemned)
        for number, name in enumerate(self.packs):
            try:
                for place, (*_, chunk) in enumerate(self.open_pack(name).frames, number * FRAMES_MAX):
                    self.places[chunk] = (*self.places.get(chunk, ()), place)
            except (Trouble, OSError) as error:
                warn(str(error))

    def chunk(self, chunk: bytes, length: int | None, kind: bytes) -> bytes:
        """Return a chunk from the first pack where it is sound; each proves itself, even in a damaged pack."""
        for number, row in (divmod(place, FRAMES_MAX) for place in self.places.get(chunk, ())):
            try:
                pack, name = self.open_pack(self.packs[number]), self.packs[number]
                if name not in self.hashed:
                    self.hashed.add(name)
                    if pack.hash.hex() != name or not pack.is_sound() or name in self.condemned:
                        warn(f"pack {name} is needed, but damaged or named for deletion: copy the repository now")
                data = pack.frame(row)
            except (Trouble, OSError) as error:
                warn(str(error))
                continue
            if length in (None, len(data)) and blake3(data, key=self.id_keys[kind]).digest() == chunk:
                return data
            warn(f"pack {name} holds something else in place of chunk {chunk.hex()}")
        raise Trouble(f"chunk {chunk.hex()} is in none of the packs, or damaged")

    def rows(self, chunk: bytes, layout: str, size: int, most: int) -> list[tuple[bytes, int]]:
        data = self.chunk(chunk, None, b"list")
        complete = len(data) % struct.calcsize(layout) == 0
        rows: list[tuple[bytes, int]] = list(struct.iter_unpack(layout, data)) if complete else []
        fits = 1 <= len(rows) <= most and sum(length for _, length in rows) == size
        check(fits, f"list {chunk.hex()} does not add up to what it stands for")
        return rows

    def stream(self, reference: Document, kind: bytes = b"data") -> Iterator[bytes]:
        """Yield the content that a reference stands for [6]; it has the stated size, or this ends with an error."""
        size = need(reference, "size", int, "a reference")
        if "id" not in reference and size == 0:
            return
        top = from_hex(reference.get("id"), 32, "the id of a reference")
        depth = need(reference, "depth", int, "a reference")
        check(depth <= 2 and size > 0, f"the reference to {top.hex()} is of no known form")
        for leaf, below in self.rows(top, "<32sQ", size, PLAIN_MAX) if depth == 2 else [(top, size)]:
            for chunk, length in self.rows(leaf, "<32sI", below, LEAF_ROWS_MAX) if depth else [(leaf, below)]:
                yield self.chunk(chunk, length, kind)

    def read_tree(self, record: Document) -> list[Document]:
        """Return the entries of a backup: as many and as large as recorded, and no path runs through a file or link."""
        items, rest = list[Document](), b""
        for data in self.stream(need(record.get("streams", {}), "tree", dict, "the record"), b"list"):
            *lines, rest = (rest + data).split(b"\n")
            items += map(read_item, lines)
            check(len(rest) <= TREE_LINE_MAX, "a line of the tree is too long")
        items += [read_item(rest)] if rest else []
        paths = {item["path"]: item["type"] == "folder" or bool(SPACE.fullmatch(item["path"])) for item in items}
        straight = all(paths.get(str(above), True) for path in paths for above in PurePosixPath(path).parents)
        sound = len(paths) == len(items) == record.get("entries") and straight
        sound = sound and sum(item["size"] for item in items) == record.get("size_bytes")
        check(sound, "the tree has not the entries or size of its record, or a path twice or through a file or link")
        return items


def read_item(line: bytes) -> Document:
    """Return an entry of the tree [6], with its paths as this system spells them."""
    item, paths = parse_json("a line of the tree", line), list[str]()
    for key in ("path", "link")[: 1 + (item.get("type") == "link")]:
        as_hex = str(item.get(f"{key}_hex"))
        hidden = f"{key}_hex" in item
        raw = from_hex(as_hex, len(as_hex) // 2, "a path") if hidden else need(item, key, str, "it").encode("utf-8", "replace")
        item[key] = os.fsdecode(raw)
        ...


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


class Restore:
    """Writes a backup into new folders; of PostgreSQL the control file last: what is not whole does not start [12]."""

    def __init__(self, area: Area, record: Document, target: Path) -> None:
        self.area, self.target, self.failures = area, target.absolute(), list[str]()
        self.spaces, self.beside = (self.target.with_name(target.name + end) for end in (".tablespaces", ".beside"))
        for folder in (self.target, self.spaces, self.beside):
            if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
                raise Trouble(f"{folder} is not an empty folder", "name a target that does not exist yet", USAGE)
        self.details, items = record.get("details"), area.read_tree(record)
        self.postgres = (record.get("kind"), record.get("form")) == ("postgres", "physical")
        links = {item["path"] for item in items if self.postgres and item["type"] == "link"}
        self.linked = {path for path in links if SPACE.fullmatch(path)}
        left_out = (links | {*NOT_RESTORED}) - self.linked if self.postgres else set()
        self.items = [item for item in items if item["path"] not in left_out]

    def place(self, path: str) -> Path:
        in_space = "/".join(path.split("/")[:2]) in self.linked
        top = self.beside if path.startswith("@") else self.spaces if in_space else self.target
        return top / (path.removeprefix("pg_tblspc/") if in_space else path)

    def run(self) -> None:
        folders, files, links = ([i for i in self.items if i["type"] == t] for t in ("folder", "file", "link"))
        last = [item for item in files if self.postgres and item["path"] == "global/pg_control"]
        for place in (self.target, *(self.place(item["path"]) for item in folders + (links if self.postgres else []))):
            place.mkdir(parents=True, exist_ok=True)
        self.target.chmod(0o700)
        with ThreadPoolExecutor(WORKERS) as pool:
            try:
                for done in as_completed([pool.submit(self.write, item) for item in files if item not in last]):
                    done.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        for item in links:  # after all files: nothing is written through a link
            place = self.place(item["path"])
            link = self.target / item["path"] if self.postgres else place
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(place if self.postgres else item["link"])
        if self.postgres and not self.failures:
            self.prepare_postgres()
        for folder in [f for top in (self.target, self.spaces, self.beside) for f, _, _ in os.walk(top)]:
            sync(Path(folder))
        for item in last if not self.failures else []:
            self.write(item)
            sync(self.target / "global")
        sync(self.target.parent)
        for item in [] if self.postgres else reversed(folders):
            self.place(item["path"]).chmod(item["mode"])
        damaged = f"{len(self.failures)} files are damaged and were left out: {'; '.join(self.failures[:SHOWN_MAX])}"
        check(not self.failures, damaged)

    def write(self, item: Document) -> None:
        """Write one file to the disk; what cannot be proven whole is not left there."""
        path, mtime = self.place(item["path"]), item.get("mtime")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("xb") as file:
                file.writelines(self.area.stream(item["ref"]))
        except Trouble as error:
            path.unlink()
            self.failures.append(f"{item['path']}: {error}")
            return
        sync(path)
        path.chmod(0o600 if self.postgres else item["mode"])
        if isinstance(mtime, int):
            os.utime(path, (mtime, mtime))

    def prepare_postgres(self) -> None:
        """End the WAL where the backup ends, and write the configuration of one recovery up to there."""
        details = self.details if isinstance(self.details, dict) else {}
        size, timeline = (need(details, key, int, "details") for key in ("wal_segment_size", "stop_timeline"))
        stop = re.fullmatch("([0-9A-F]{1,8})/([0-9A-F]{1,8})", str(details.get("stop_lsn")))
        if not stop or size not in [1 << power for power in range(20, 31)]:
            raise Trouble("the details of the backup hold no possible end of its WAL")
        number, end = divmod((int(stop[1], 16) << 32 | int(stop[2], 16)) - 1, size)
        wal = self.target / "pg_wal" / "{:08X}{:08X}{:08X}".format(timeline, *divmod(number, (1 << 32) // size))
        check(wal.is_file() and wal.stat().st_size > end, f"{wal} does not reach the end of the backup at {stop[0]}")
        for length in (end + 1, size):
            os.truncate(wal, length)
        sync(wal)
        kept = [(k, str(v).replace("\\", "\\\\").replace("'", "''")) for k, v in details.get("settings", [])]
        minimal = "".join(f"{name} = '{value}'\n" for name, value in kept if name in KEPT.split())
        for name, text in (("postgresql.conf", minimal), ("pg_hba.conf", HBA)):
            if not (self.target / name).exists():
                raw = sorted(self.beside.rglob(name))
                (self.target / name).write_bytes(re.sub(ELSEWHERE, b"#", raw[0].read_bytes() if raw else text.encode()))
                made = "copied from @settings, less what points elsewhere" if raw else "made, with few settings"
                warn(f"{name} lay outside the data folder and was {made}: read it before you start the server")
        auto = self.target / "postgresql.auto.conf"
        before = auto.read_text(errors="surrogateescape") if auto.exists() else ""
        unset = "".join(f"{name} = ''\n" for name in UNSET.split())
        auto.write_text(f"{before}\n# added by holdfast_rescue\n{unset}{RECOVERY}", errors="surrogateescape")
        (self.target / "recovery.signal").touch()
        for name in ("postgresql.conf", "pg_hba.conf", "postgresql.auto.conf", "recovery.signal"):
            sync(self.target / name)


def run(options: argparse.Namespace) -> None:
    repository = Repository(Path(options.repository))
    if options.source is None:
        return print(*sorted(repository.sources().values()), sep="\n")
    area = Area(repository, repository.find_area(options.source), options.damaged)
    shown = ("id", "ended_at", "tier", "size_bytes", "position")
    lines = ["\t".join(str(record.get(key)) for key in shown) for record in area.records]
    if options.backup is None:
        return print(*lines, sep="\n")
    named = [record for record in area.records if str(record["id"]).startswith(options.backup)]
    found = area.records[-1:] if options.backup == "latest" else named
    if len(found) != 1:
        hint = "\n".join(["backups here:", *lines])
        raise Trouble(f"{len(found)} backups are called {options.backup}", hint, USAGE if found else FAILED)
    for note in found[0].get("damage", []) + found[0].get("notices", []):
        warn(f"the backup itself states: {note}")
    area.find_packs()
    if options.target is not None:
        Restore(area, found[0], Path(options.target)).run()
        return print(f"restored {found[0]['id']} of {found[0]['ended_at']} to {options.target}, all of it proven")
    items = area.read_tree(found[0])
    if options.cat is None:
        return print(*(f"{i['type']}\t{i['size']}\t{i['path']}" for i in items), sep="\n")
    references = [item["ref"] for item in items if item["path"] == options.cat and item["type"] == "file"]
    if not references:
        raise Trouble(f"the backup holds no file {options.cat}", "leave --cat out to list what it holds", FAILED)
    sys.stdout.buffer.writelines(area.stream(references[0]))
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository")
    for name in ("source", "backup", "target"):
        parser.add_argument(name, nargs="?", help="without it, what there is to choose from is listed")
    parser.add_argument("--cat", metavar="PATH", help="write this file of the backup to standard output")
    parser.add_argument("--damaged", action="store_true", help="go on past a broken history")
    options = parser.parse_args()
    os.umask(0o077)
    try:
        run(options)
    except (Trouble, OSError) as error:
        hint = getattr(error, "hint", "look at permissions, free space and the disk, then start again")
        print(f"error: {error}\nhint: {hint}", file=sys.stderr)
        return int(getattr(error, "code", FAILED))
    return 0


if __name__ == "__main__":
    sys.exit(main())
