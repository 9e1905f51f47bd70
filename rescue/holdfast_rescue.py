#!/usr/bin/env python3
"""Restores from a holdfast repository in a folder, without holdfast: an independent reading of docs/format.md.

Needs Python 3.11, zstandard, blake3, cryptography 44, and HOLDFAST_PASSPHRASE or HOLDFAST_KEY_FILE set. Writes
only to TARGET, TARGET.tablespaces and TARGET.beside. Numbers in brackets are sections of the page. What it restores was
proven: each object opens under its own name only, each chunk has the id that its list states. Where it meets damage it
goes on as far as that can be done, says so, and ends with 13; 1 is failed, 2 usage, 10 no repository, 12 no key.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hmac
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
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

FAILED, USAGE, NO_REPOSITORY, KEY, BROKEN = 1, 2, 10, 12, 13
IDENTITY, SLOT, EPOCH, CATALOG, DATA_PACK, LIST_PACK, HISTORY, RECORD, STORE = 1, 2, 3, 4, 5, 6, 7, 8, 14
SMALL_MAX, EPOCH_OBJECT_MAX, OBJECT_MAX, PLAIN_MAX, FRAMES_MAX = 65536, 1 << 20, 64 << 20, 16 << 20, 1 << 22
PASSPHRASE_SLOTS_MAX, KEY_FILE_SLOTS_MAX, LEAF_ROWS_MAX, TREE_LINE_MAX = 64, 4096, 512, 16 << 20
WORKERS, OPEN_PACKS_MAX, WARNINGS_MAX, SHOWN_MAX, TOC_COUNTER = 4, 64, 50, 20, (1 << 64) - 1
HEX_ID, HEX_HASH = re.compile("[0-9a-f]{32}"), re.compile("[0-9a-f]{64}")
HISTORY_NAME, EPOCH_NAME, SPACE = re.compile("[0-9]{12}"), re.compile("[0-9]{8}"), re.compile("pg_tblspc/[0-9]{1,10}")
SIGNED = ("expire", "release", "void", "adopt", "prune")
NOT_RESTORED = "postmaster.(pid|opts)|(standby|recovery).signal|tablespace_map|pg_replslot/.*"
UNSET = "recovery_target recovery_target_name recovery_target_time recovery_target_xid recovery_target_lsn "
UNSET += "primary_conninfo primary_slot_name synchronous_standby_names recovery_end_command archive_cleanup_command"
SET = "restore_command = 'false'\nrecovery_target_timeline = 'current'\narchive_mode = off\n"
KEPT = "max_connections max_worker_processes max_wal_senders max_prepared_transactions max_locks_per_transaction "
KEPT += "wal_level shared_preload_libraries"
HBA = "local all all peer\nhost all all 127.0.0.1/32 scram-sha-256\nhost all all ::1/128 scram-sha-256\n"
ELSEWHERE = rb"(?im)^(?=[ \t]*(data_directory|config_file|hba_file|ident_file|external_pid_file|include\w*|ssl\w*)\b)"

Document = dict[str, Any]


class Trouble(Exception):
    def __init__(self, message: str, hint: str, code: int) -> None:
        super().__init__(message)
        self.hint, self.code = hint, code


def check(holds: bool, otherwise: str, hint: str = "read another copy of the repository", code: int = BROKEN) -> None:
    if not holds:
        raise Trouble(otherwise, hint, code)


@functools.lru_cache(maxsize=WARNINGS_MAX)
def warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def parse_json(what: str, data: bytes) -> Document:
    document: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        document = json.loads(data.decode("utf-8"))
    check(isinstance(document, dict), f"{what} is not a JSON object")
    return dict(document)


def need(document: Document, key: str, kind: type, what: str) -> Any:
    value = document.get(key)
    possible = isinstance(value, kind) and not isinstance(value, bool) and not (isinstance(value, int) and value < 0)
    check(possible, f"{what} has no usable {key!r}")
    return value


def from_hex(text: object, length: int, what: str) -> bytes:
    check(bool(re.fullmatch(f"[0-9a-f]{{{2 * length}}}", str(text))), f"{what} is not {length} bytes in hexadecimal")
    return bytes.fromhex(str(text))


def join(*parts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def derive(key: bytes, *parts: bytes, salt: bytes = bytes(32)) -> bytes:
    return hmac.digest(hmac.digest(salt, key, "sha256"), join(b"holdfast/v1", *parts) + b"\1", "sha256")  # HKDF


def signed_by(key: bytes, signature: bytes, *parts: bytes) -> bool:
    with contextlib.suppress(InvalidSignature, ValueError):
        Ed25519PublicKey.from_public_bytes(key).verify(signature, join(b"holdfast/v1", *parts))
        return True
    return False


def slot_secret(clear: Document) -> bytes | None:
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
        header, trailer = self.read(0, 64), self.read(size - 64, 64)
        magic, version, self.kind, zero, self.epoch, self.salt, length, gap = struct.unpack("<8sHBBI32sI12s", header)
        self.toc_offset, self.toc_length, count, end_magic, rest, self.hash = struct.unpack("<QII8s8s32s", trailer)
        known = (magic, version, end_magic) == (b"HOLDFAST", 1, b"HFTRAIL1")
        check(known, f"{what} is no holdfast object of version 1, or its beginning or end is gone")
        self.row_length = 44 if self.kind in (DATA_PACK, LIST_PACK) else 12
        fits = self.toc_offset + self.toc_length + 64 == size and self.toc_length == 20 + count * self.row_length
        fits = fits and length <= SMALL_MAX and count <= FRAMES_MAX and not (zero or any(rest + gap))
        check(fits and self.toc_offset >= 64 + length, f"{what} has impossible values in its header or trailer")
        self.head, self.tail = header + self.read(64, length), trailer[:8] + trailer[12:16]
        self.clear = parse_json(f"the clear part of {what}", self.head[64:]) if length else {}

    def open(self, ikm: bytes, repository: bytes, area: bytes, claim: bytes) -> Container:
        """Open the table of contents; that proves header, clear part, type, place and claim."""
        self.cipher = AESGCM(derive(ikm, b"container", bytes([self.kind]), repository, area, claim, salt=self.salt))
        self.frames = list[tuple[int, int, int, int, bytes]]()  # algorithm, plain, stored, offset, chunk id
        sealed = self.read(self.toc_offset, self.toc_length)
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
        self.document = parse_json(self.what, self.frame(0)) if self.row_length == 12 else {}
        return self

    def unseal(self, counter: int, algorithm: int, plain: int, data: bytes, more: bytes = b"") -> bytes:
        number, opened = struct.pack("<Q", counter), None
        with contextlib.suppress(InvalidTag):
            opened = self.cipher.decrypt(bytes(4) + number, data, number + struct.pack("<BI", algorithm, plain) + more)
        check(opened is not None, f"{self.what} does not open: altered, misplaced, or sealed with another key")
        return opened or b""

    def frame(self, number: int) -> bytes:
        check(number < len(self.frames), f"{self.what} has no frame {number}")
        algorithm, plain, stored, offset, _ = self.frames[number]
        data = self.unseal(number, algorithm, plain, self.read(offset, stored))
        if algorithm == 1:
            packed, data = data, b""
            with contextlib.suppress(zstandard.ZstdError):
                if zstandard.frame_content_size(packed) in (plain, -1):
                    data = zstandard.ZstdDecompressor().decompress(packed, max_output_size=plain)
        check(len(data) == plain, f"frame {number} of {self.what} is not the {plain} bytes it states")
        return data

    @staticmethod
    def of(what: str, data: bytes) -> Container:
        found = Container(what, len(data), lambda offset, length: data[offset : offset + length])
        check(found.hash == blake3(data[:-32]).digest(), f"{what} has not the hash it ends with: bytes have changed")
        return found


class Repository:
    """A folder with a repository [2, 4], unlocked with the passphrase or key file of the environment."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.roots, self.upkeep = folder, dict[int, bytes](), dict[int, bytes]()
        self.area_keys, self.area_names = dict[tuple[bytes, int], bytes](), dict[bytes, str]()
        hint = "name the folder that holds the file `identity`; is its disk mounted?"
        check((folder / "identity").is_file(), f"there is no repository at {folder}", hint, NO_REPOSITORY)
        self.identity, self.store = self.container("identity"), self.container("store")
        clear, store = self.identity.clear, self.store.clear
        self.id = from_hex(clear.get("repository"), 16, "the repository id")
        self.store_id = from_hex(store.get("store"), 16, "the store id")
        known = clear.get("format") == 1 and not clear.get("needs") and store.get("repository") == self.id.hex()
        known = known and (self.identity.kind, self.store.kind) == (IDENTITY, STORE)
        check(known, "identity and store do not fit together, or ask for the reader of a newer holdfast")
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
        check((area, epoch) in self.area_keys, f"this key does not open what was written under epoch {epoch} of keys")
        return self.area_keys[area, epoch]

    def area_id(self, application: str, source: str) -> bytes:
        names = [unicodedata.normalize("NFC", name).encode("utf-8", "replace") for name in (application, source)]
        return blake3(join(*names), key=derive(self.roots[1], b"name key", self.id)).digest()[:16]

    def follow_epochs(self, first: bytes) -> dict[int, bytes]:
        """Keep the upkeep keys of the epochs that count, each signed by the one before; return their key ids."""
        self.upkeep, ids, fields = {1: first}, dict[int, bytes](), (("key_id", 16), ("upkeep", 32), ("signature", 64))
        for name in self.names("epochs", EPOCH_NAME):
            try:
                found, number, last = self.container(f"epochs/{name}", EPOCH_OBJECT_MAX), int(name), max(self.upkeep)
                key_id, upkeep, signature = (from_hex(found.clear.get(key), length, key) for key, length in fields)
                parts = b"epoch", self.id, struct.pack("<I", last), struct.pack("<I", number), key_id, upkeep
                right = signed_by(self.upkeep[last], signature, *parts) and found.clear.get("previous") == last
                if right and (found.kind, found.epoch) == (EPOCH, number):
                    self.upkeep[number], ids[number] = upkeep, key_id
            except (Trouble, OSError) as error:
                warn(f"epochs/{name} is passed over: {error}")
        return ids

    def unlock(self) -> None:
        """Try the slots of this repository, the oldest first, until one leads to the current epoch."""
        left, tried = {"passphrase": PASSPHRASE_SLOTS_MAX, "keyfile": KEY_FILE_SLOTS_MAX}, list[str]()
        for name in sorted(self.names("slots", HEX_ID), key=lambda n: (self.folder / "slots" / n).stat().st_mtime_ns):
            try:
                slot, slot_id = self.container(f"slots/{name}"), bytes.fromhex(name)
                clear, kind = slot.clear, str(slot.clear.get("kind"))
                ours = (clear.get("repository"), slot.kind) == (self.id.hex(), SLOT) and not clear.get("needs")
                ours = ours and left.get(kind, 0) > 0 and max(self.upkeep, default=0) not in self.roots
                left[kind] = left.get(kind, 0) - ours
                secret = slot_secret(clear) if ours else None
                if secret and derive(secret, b"commit", slot_id)[:16].hex() == clear.get("commit"):
                    self.take(slot.open(secret, self.id, b"", slot_id).document)
            except (Trouble, OSError) as error:
                tried.append(f"slots/{name}: {error}")
        hint = "; ".join(["is it set, spelt right, and of this repository?", *tried[:SHOWN_MAX]])
        check(bool(self.upkeep), "no slot opens with HOLDFAST_PASSPHRASE or HOLDFAST_KEY_FILE", hint, KEY)

    def take(self, document: Document) -> None:
        roots, keys = document.get("roots", {}), {int(epoch): key for epoch, key in document.get("keys", {}).items()}
        if roots and "1" not in roots:  # the new opens the old
            top = max(map(int, roots))
            found, root = self.container(f"epochs/{top:08d}", EPOCH_OBJECT_MAX), from_hex(roots[str(top)], 32, "a root")
            roots |= need(found.open(root, self.id, b"", struct.pack("<I", top)).document, "roots", dict, found.what)
        known = {int(epoch): from_hex(root, 32, "a root") for epoch, root in roots.items()}
        if known:
            for proven in (self.identity, self.store):
                proven.open(known[1], self.id, b"", b"")
            seed = derive(known[1], b"upkeep key", self.id)
            first = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        else:
            first = from_hex(keys.get(1, {}).get("upkeep"), 32, "the upkeep key of a slot")
        ids = self.follow_epochs(first)
        self.roots |= {e: r for e, r in known.items() if e == 1 or derive(r, b"key id", self.id)[:16] == ids.get(e)}
        for epoch, key in keys.items():
            if epoch == 1 or from_hex(key.get("key_id"), 16, "a key id") == ids.get(epoch):
                area = from_hex(document.get("area"), 16, "the area id of a slot")
                self.area_keys[area, epoch] = from_hex(key.get("area"), 32, "an area key")
                self.area_names[area] = f"{document.get('application')}/{document.get('source')}"

    def sources(self) -> dict[bytes, str]:
        known, folder = dict(self.area_names), self.folder / "catalog"
        for path in sorted(folder.glob("*/*")) if self.roots else []:
            try:
                area = from_hex(path.parent.name, 16, "the name of the folder")
                found = self.open(self.container(str(path.relative_to(self.folder))), (CATALOG,), area).document
                names = need(found, "application", str, "it"), need(found, "source", str, "it")
                check(self.area_id(*names) == area, "it names a source that has another area")
                known[area] = "/".join(names)
            except (Trouble, OSError) as error:
                warn(f"{path} does not count: {error}")
        return known

    def find_area(self, text: str) -> bytes:
        names, (application, slash, source) = self.sources(), text.partition("/")
        choice = ", ".join(names.values()) or "none whose name is stored; try application/source"
        if slash and self.roots:  # found without the catalog too
            names[self.area_id(application, source)] = text
        named = [area for area, name in names.items() if text in (name, name.partition("/")[2])]
        found = [area for area in named if (self.folder / f"areas/{area.hex()}").is_dir()]
        check(len(found) == 1, f"{len(found)} sources are {text}", f"sources: {choice}", USAGE if found else FAILED)
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
    problems += [f"live backup {b} has no entry" for n, b in named if n not in entries and b not in removed]
    return found


class Area:
    """What is kept of one source: its history and records [7, 8] and, after `find_packs`, its content [5, 6]."""

    def __init__(self, repository: Repository, area: bytes) -> None:
        self.repository, self.area, self.problems, self.records = repository, area, list[str](), list[Document]()
        for backup, entry in live_backups(self.read_history(), self.problems).items():
            try:
                self.records.append(self.read_record(from_hex(backup, 16, "the id of a backup"), entry))
            except Trouble as error:
                self.problems.append(str(error))

    def read_history(self) -> dict[int, Document]:
        entries, repository = dict[int, Document](), self.repository
        for name in repository.names(f"areas/{self.area.hex()}/history", HISTORY_NAME):
            place = repository.store_id, struct.pack("<Q", int(name))
            try:
                found = repository.container(f"areas/{self.area.hex()}/history/{name}", OBJECT_MAX)
                entry = repository.open(found, (HISTORY,), self.area, b"".join(place)).document
                frames, kind = [found.frame(n) for n in range(len(found.frames))], need(entry, "kind", str, name)
                check(entry.get("number") == int(name), f"{found.what} has the number of another entry")
                signature = frames.pop() if kind in SIGNED else b""
                parts = repository.id, self.area, *place, *(blake3(frame).digest() for frame in frames)
                right = kind not in SIGNED or signed_by(repository.upkeep[found.epoch], signature, b"entry", *parts)
                if not right or (entry.get("needs") and kind != "backup"):
                    warn(f"{found.what} means nothing: it is signed by nobody who may, or for newer readers")
                    kind = ""
                entry |= {"kind": kind, "hash": found.hash.hex(), "frames": frames, "epoch": found.epoch}
                entries[int(name)] = entry
            except (Trouble, OSError) as error:
                warn(str(error))
        return entries

    def read_record(self, backup: bytes, entry: Document) -> Document:
        data, what = b"".join(entry["frames"][1:2]), f"the record of backup {backup.hex()}"
        record = self.repository.open(Container.of(what, data), (RECORD,), self.area, backup).document
        names = [need(record, key, str, what) for key in ("application", "source", "ended_at")]
        ours = not self.repository.roots or self.repository.area_id(*names[:2]) == self.area
        ours = ours and record.get("id") == backup.hex() and len(data) <= SMALL_MAX
        check(ours, f"{what} is that of another backup or source, or too long")
        return record | {"needs": record.get("needs") or entry.get("needs")}

    def find_packs(self) -> None:
        key, folder = self.repository.area_key(self.area, 1), self.repository.folder / f"areas/{self.area.hex()}/packs"
        self.id_keys = {kind: derive(key, b"chunk id", kind) for kind in (b"data", b"list")}
        self.open_pack = functools.lru_cache(OPEN_PACKS_MAX)(functools.partial(self.repository.open_pack, self.area))
        self.places, self.hashed = dict[bytes, tuple[int, ...]](), set[str]()
        self.packs = sorted(path.name for path in folder.glob("??/*") if HEX_HASH.fullmatch(path.name))
        for number, name in enumerate(self.packs):
            try:
                for place, (*_, chunk) in enumerate(self.open_pack(name).frames, number * FRAMES_MAX):
                    self.places[chunk] = (*self.places.get(chunk, ()), place)
            except (Trouble, OSError) as error:
                warn(str(error))

    def chunk(self, chunk: bytes, length: int | None, kind: bytes) -> bytes:
        for number, row in (divmod(place, FRAMES_MAX) for place in self.places.get(chunk, ())):
            try:
                pack, name = self.open_pack(self.packs[number]), self.packs[number]
                if name not in self.hashed:
                    self.hashed.add(name)
                    if name != pack.hash.hex() or name != blake3(pack.read(0, pack.size - 32)).hexdigest():
                        warn(f"pack {name} is damaged; its sound chunks are used: each proves itself")
                data = pack.frame(row)
            except (Trouble, OSError) as error:
                warn(str(error))
                continue
            if length in (None, len(data)) and blake3(data, key=self.id_keys[kind]).digest() == chunk:
                return data
            warn(f"pack {name} holds something else in place of chunk {chunk.hex()}")
        raise Trouble(f"chunk {chunk.hex()} is in none of the packs, or damaged", "read another copy", BROKEN)

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
    item, what = parse_json("a line of the tree", line), f"an entry of the tree ({line[:200]!r})"
    kind, kinds = item.get("type"), ("file", "folder", "link")
    check(kind in kinds and item.get("layout") in (None, "pages", "content"), f"{what} is of no type known here")
    for key in ("path", "link") if kind == "link" else ("path",):
        coded = str(item.get(f"{key}_hex", ""))
        check(bool(coded) or not re.search("[\ud800-\udfff]", need(item, key, str, what)), f"{what} is not UTF-8")
        item[key] = os.fsdecode(from_hex(coded, len(coded) // 2, what)) if coded else item[key]
    refused = {"", ".", ".."} & {*item["path"].split("/")} or "\0" in item["path"] + str(item.get("link"))
    check(not refused, f"{what} has a path that is refused")
    size = need(need(item, "ref", dict, what), "size", int, what) if kind == "file" else 0
    mode = need({"mode": 0o600 if kind == "file" else 0o700} | item, "mode", int, what) & 0o777
    return item | {"size": size, "mode": mode}


class Restore:
    """Writes a backup into new folders; of PostgreSQL the control file last: what is not whole does not start [12]."""

    def __init__(self, area: Area, record: Document, target: Path) -> None:
        self.area, self.target, self.failures, self.record = area, target.resolve(), list[str](), record
        self.spaces, self.beside = (self.target.with_name(self.target.name + e) for e in (".tablespaces", ".beside"))
        for path in (self.target, self.spaces, self.beside):
            free = path.is_dir() and not any(path.iterdir()) if path.exists() else not path.is_symlink()
            check(free, f"{path} is not an empty folder", "name a target that does not exist yet", USAGE)
        self.postgres = (record.get("kind"), record.get("form")) == ("postgres", "physical")
        items = area.read_tree(record)
        self.linked = {i["path"] for i in items if i["type"] == "link" and self.postgres and SPACE.fullmatch(i["path"])}
        self.items = [i for i in items if not (self.postgres and re.fullmatch(NOT_RESTORED, i["path"]))]

    def place(self, path: str) -> Path:
        in_space = "/".join(path.split("/")[:2]) in self.linked
        top = self.beside if path.startswith("@") else self.spaces if in_space else self.target
        return top / (path.removeprefix("pg_tblspc/") if in_space else path)

    def run(self) -> None:
        folders, files, links = ([i for i in self.items if i["type"] == t] for t in ("folder", "file", "link"))
        last = [item for item in files if self.postgres and item["path"] == "global/pg_control"]
        links = [item for item in links if not self.postgres or item["path"] in self.linked]
        for place in (self.target, *(self.place(item["path"]) for item in folders + (links if self.postgres else []))):
            place.mkdir(parents=True, exist_ok=True)
        for folder, mode in ((self.target, 0o700), *([(self.spaces, 0o711)] if self.linked else [])):
            folder.chmod(mode)  # its tablespaces are 0700, and may belong to the server alone
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(self.write, [item for item in files if item not in last]))
        for item in links:  # after all files: nothing is written through a link; other links are the source's own
            place = self.place(item["path"])
            link = self.target / item["path"] if self.postgres else place
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(place if self.postgres else item["link"])
        if self.postgres and not self.failures:
            self.prepare_postgres()
        os.sync()
        for item in last if not self.failures else []:
            self.write(item)
        os.sync()
        for item in [] if self.postgres else reversed(folders):
            self.place(item["path"]).chmod(item["mode"])
        check(not self.failures, "damaged files were left out: " + "; ".join(self.failures[:SHOWN_MAX]))

    def write(self, item: Document) -> None:
        path, mtime = self.place(item["path"]), item.get("mtime")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("xb") as file:
                file.writelines(self.area.stream(item["ref"]))
                file.flush()
                os.fsync(file.fileno())
        except Trouble as error:
            path.unlink()
            self.failures.append(f"{item['path']}: {error}")
            return
        path.chmod(0o600 if self.postgres else item["mode"])
        if isinstance(mtime, int):
            os.utime(path, (mtime, mtime))

    def prepare_postgres(self) -> None:
        """End the WAL where the backup ends, and write the configuration of one recovery up to there."""
        details = need(self.record, "details", dict, "the record")
        size, timeline = (need(details, key, int, "details") for key in ("wal_segment_size", "stop_timeline"))
        stop = need(details, "stop_lsn", str, "details")
        possible = re.fullmatch("[0-9A-F]{1,8}/[0-9A-F]{1,8}", stop) and size in [1 << bits for bits in range(20, 31)]
        check(bool(possible), "the details of the backup hold no possible end of its WAL")
        high, low = (int(half, 16) for half in stop.split("/"))
        number, end = divmod((high << 32 | low) - 1, size)
        wal = self.target / "pg_wal" / "{:08X}{:08X}{:08X}".format(timeline, *divmod(number, (1 << 32) // size))
        check(wal.is_file() and wal.stat().st_size > end, f"{wal} does not reach the end of the backup at {stop}")
        for length in (end + 1, size):
            os.truncate(wal, length)
        for later in [path for path in wal.parent.glob("[0-9A-F]" * 24) if path.name[8:] > wal.name[8:]]:
            later.unlink()
        kept = [(k, str(v).replace("\\", "\\\\").replace("'", "''")) for k, v in details.get("settings", [])]
        minimal = "".join(f"{name} = '{value}'\n" for name, value in kept if name in KEPT.split())
        for name, text in (("postgresql.conf", minimal), ("pg_hba.conf", HBA)):
            if not (self.target / name).exists():
                raw = sorted(self.beside.rglob(name))
                (self.target / name).write_bytes(re.sub(ELSEWHERE, b"#", raw[0].read_bytes() if raw else text.encode()))
                made = "copied from @settings, less what points elsewhere" if raw else "made, with few settings"
                warn(f"{name} lay outside the data folder and was {made}: read it before you start the server")
        with (self.target / "postgresql.auto.conf").open("a") as file:
            unset = "".join(f"{name} = ''\n" for name in UNSET.split())
            file.write(f"\n# added by holdfast_rescue\n{unset}{SET}recovery_min_apply_delay = 0\n")
        (self.target / "recovery.signal").touch()


def run(options: argparse.Namespace) -> None:
    repository = Repository(Path(options.repository))
    if options.source is None:
        print(*sorted(repository.sources().values()), sep="\n")
        return
    area = Area(repository, repository.find_area(options.source))
    shown = ("id", "ended_at", "tier", "size_bytes", "position")
    lines = ["\t".join(str(record.get(key)) for key in shown) for record in area.records]
    if options.backup is None:
        print(*lines, sep="\n")
    else:
        named = [record for record in area.records if str(record["id"]).startswith(options.backup)]
        found = area.records[-1:] if options.backup == "latest" else named
        hint, code = "\n".join(["backups here:", *lines, *area.problems]), USAGE if found else FAILED
        check(len(found) == 1, f"{len(found)} backups are called {options.backup}", hint, code)
        bring(area, found[0], options)
    check(not area.problems, "the history is broken, it may tell less or more than was: " + "; ".join(area.problems))


def bring(area: Area, record: Document, options: argparse.Namespace) -> None:
    check(not record["needs"], f"backup {record['id']} needs a newer reader: {record['needs']}")
    for note in record.get("damage", []) + record.get("notices", []):
        warn(f"the backup itself states: {note}")
    area.find_packs()
    if options.target is not None:
        Restore(area, record, Path(options.target)).run()
        print(f"restored {record['id']} of {record['ended_at']} to {options.target}, all of it proven")
        return
    items = area.read_tree(record)
    references = [item["ref"] for item in items if item["path"] == options.cat and item["type"] == "file"]
    if options.cat is None:
        sys.stdout.buffer.write(os.fsencode("".join(f"{i['type']}\t{i['size']}\t{i['path']}\n" for i in items)))
    check(len(references) == (options.cat is not None), f"the backup holds no file {options.cat}", "list it", FAILED)
    sys.stdout.buffer.writelines(area.stream(references[0]) if references else ())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository")
    for name in ("source", "backup", "target"):
        parser.add_argument(name, nargs="?", help="without it, what there is to choose from is listed")
    parser.add_argument("--cat", metavar="PATH", help="write this file of the backup to standard output")
    os.umask(0o077)
    try:
        run(parser.parse_args())
    except (Trouble, OSError) as error:
        hint = getattr(error, "hint", "look at permissions, free space and the disk, then start again")
        print(f"error: {error}\nhint: {hint}", file=sys.stderr)
        return int(getattr(error, "code", FAILED))
    return 0


if __name__ == "__main__":
    sys.exit(main())
