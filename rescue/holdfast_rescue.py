#!/usr/bin/env python3
"""Restores from a holdfast repository in a folder, without holdfast: an independent reading of docs/format.md.

Needs Python 3.11 and the packages zstandard, blake3 and cryptography (44 or newer). It never writes to the repository,
only to TARGET, TARGET.tablespaces and TARGET.beside. Numbers in brackets are sections of the page. What it restores
was proven: each object opens under its own name only, each chunk has the id that its list states.
Ends with 0 done, 1 failed, 2 usage, 10 no repository, 12 key missing or wrong, 13 integrity broken.
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
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

FAILED, USAGE, NO_REPOSITORY, KEY, BROKEN, INTERRUPTED = 1, 2, 10, 12, 13, 130
IDENTITY, SLOT, EPOCH, CATALOG, DATA_PACK, LIST_PACK, HISTORY, RECORD = 1, 2, 3, 4, 5, 6, 7, 8
CLEAR_MAX, RECORD_MAX, PLAIN_MAX, OBJECT_MAX, FRAMES_MAX = 65536, 65536, 16 << 20, 64 << 20, 1 << 22
SLOTS_MAX, KDF_MEMORY_MAX, KDF_PASSES_MAX, KDF_LANES_MAX = 64, 1 << 20, 16, 16
LEAF_ROWS_MAX, TREE_LINE_MAX, WORKERS, OPEN_PACKS_MAX, WARNINGS_MAX, SHOWN_MAX = 512, 16 << 20, 4, 64, 50, 20
TOC_COUNTER = (1 << 64) - 1
DAMAGE_HINT = "read another copy of the repository; --damaged passes over a broken history as far as that can be done"
HEX_BYTE, HEX_ID, HEX_HASH = (re.compile(rf"[0-9a-f]{{{digits}}}") for digits in (2, 32, 64))
HISTORY_NAME, EPOCH_NAME, SPACE = re.compile("[0-9]{12}"), re.compile("[0-9]{8}"), re.compile("pg_tblspc/[0-9]{1,10}")
NOT_RESTORED = ("postmaster.pid", "postmaster.opts", "standby.signal", "recovery.signal", "tablespace_map")
AUTO = """recovery_target_name='' recovery_target_time='' recovery_target_xid='' recovery_target_lsn='' recovery_end_command=''
archive_cleanup_command='' recovery_min_apply_delay=0 restore_command='false' recovery_target='immediate' archive_mode=off
recovery_target_timeline='current' recovery_target_action='promote' synchronous_standby_names='' primary_conninfo=''
primary_slot_name=''"""
KEPT_SETTINGS = """max_connections max_worker_processes max_wal_senders max_prepared_transactions max_locks_per_transaction
wal_level shared_preload_libraries""".split()
HBA = "local all all peer\nhost all all 127.0.0.1/32 scram-sha-256\nhost all all ::1/128 scram-sha-256\n"
PLACES = r"(?mi)^(?=[ \t]*(?:data_directory|config_file|hba_file|ident_file|external_pid_file"

Document = dict[str, Any]


class Trouble(Exception):
    """Why it cannot go on: a message, what to do about it, and the exit code."""

    def __init__(self, message: str, hint: str = DAMAGE_HINT, code: int = BROKEN) -> None:
        super().__init__(message)
        self.hint, self.code = hint, code


@functools.lru_cache(maxsize=WARNINGS_MAX)
def warn(message: str) -> None:
    """Say it on standard error, and not again right away."""
    print(f"warning: {message}", file=sys.stderr)


def parse_json(what: str, data: bytes) -> Document:
    try:
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Trouble(f"{what} is not a JSON document") from error
    return document if isinstance(document, dict) else {}


def need(document: Document, key: str, kind: type, what: str) -> Any:
    """Return a value of the expected type; no number is negative."""
    value = document.get(key)
    if not isinstance(value, kind) or isinstance(value, bool) or (isinstance(value, int) and value < 0):
        raise Trouble(f"{what} has no usable {key!r}")
    return value


def from_hex(text: object, length: int, what: str) -> bytes:
    if not isinstance(text, str) or not re.fullmatch(r"[0-9a-f]*", text) or len(text) != 2 * length:
        raise Trouble(f"{what} is not {length} bytes in lower-case hexadecimal")
    return bytes.fromhex(text)


def join(*parts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def derive(key: bytes, *parts: bytes, salt: bytes = bytes(32)) -> bytes:
    return HKDF(SHA256(), 32, salt, join(b"holdfast/v1", *parts)).derive(key)


def passphrase_secret(passphrase: str, kdf: Document) -> bytes:
    memory, passes, lanes = (need(kdf, key, int, "a slot") for key in ("memory_kib", "passes", "lanes"))
    possible = 1 <= passes <= KDF_PASSES_MAX and 1 <= lanes <= KDF_LANES_MAX and 8 * lanes <= memory <= KDF_MEMORY_MAX
    if kdf.get("name") != "argon2id" or not possible:
        raise Trouble("it asks for a derivation that is refused")
    salt = from_hex(kdf.get("salt"), 16, "its salt")
    argon2id = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory)
    return argon2id.derive(unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogateescape"))


def read_key_file(path: Path) -> bytes:
    with path.open("rb") as file:
        words = file.read(4096).decode("ascii", "replace").split()
    if len(words) != 2 or words[0] != "holdfast-key-1" or not HEX_HASH.fullmatch(words[1]):
        raise Trouble(f"{path} is not a key file", "it is one line: holdfast-key-1 and 64 hexadecimal digits", KEY)
    return bytes.fromhex(words[1])


class Container:
    """One object [3]: its layout is checked at once, its table when it is opened, a frame when it is read."""

    def __init__(self, what: str, size: int, read: Callable[[int, int], bytes]) -> None:
        self.what, self.size, self.read = what, size, read
        if not 128 <= size <= OBJECT_MAX:
            raise Trouble(f"{what} has {size} bytes, which no such object has")
        header, trailer = self.exactly(0, 64), self.exactly(size - 64, 64)
        magic, version, self.kind, zero, self.epoch, self.salt, clear, rest = struct.unpack("<8sHBBI32sI12s", header)
        self.toc_offset, self.toc_length, count, end_magic, gap, self.hash = struct.unpack("<QII8s8s32s", trailer)
        if magic != b"HOLDFAST" or end_magic != b"HFTRAIL1":
            raise Trouble(f"{what} is not a holdfast object, or its beginning or end is gone")
        if version != 1:
            raise Trouble(f"{what} has format {version}, this reader knows 1", "use that of a newer holdfast", FAILED)
        self.row_length = 44 if self.kind in (DATA_PACK, LIST_PACK) else 12
        fits = self.toc_offset >= 64 + clear and self.toc_offset + self.toc_length + 64 == size
        fits = fits and clear <= CLEAR_MAX and count <= FRAMES_MAX and self.toc_length == 20 + count * self.row_length
        if zero or any(rest + gap) or not fits:
            raise Trouble(f"{what} has impossible values in its header or trailer")
        self.head = header + self.exactly(64, clear)
        self.frames: list[tuple[int, int, int, int, bytes]] = []  # algorithm, plain, stored, offset, chunk id

    def exactly(self, offset: int, length: int) -> bytes:
        data = self.read(offset, length)
        if len(data) != length:
            raise Trouble(f"{self.what} ends too early")
        return data

    def is_sound(self) -> bool:
        return blake3(self.exactly(0, self.size - 32)).digest() == self.hash

    def open(self, ikm: bytes, repository: bytes, area: bytes, claim: bytes) -> Container:
        """Open the table of contents; that proves header, clear part, type, place and claim."""
        place = bytes([self.kind]), repository, area, claim
        self.cipher = AESGCM(derive(ikm, b"container", *place, salt=self.salt))
        sealed = self.exactly(self.toc_offset, self.toc_length)
        toc, offset = self.unseal(TOC_COUNTER, 0, len(sealed) - 16, sealed, self.head), len(self.head)
        rows = (len(toc) - 4) // self.row_length
        for row in range(rows):
            algorithm, zero, zeros, plain, stored = struct.unpack_from("<BBHII", toc, 4 + 12 * row)
            if algorithm > 1 or zero or zeros or plain > PLAIN_MAX or not 16 <= stored <= plain + 16:
                raise Trouble(f"frame {row} of {self.what} has impossible values")
            ids = 4 + 12 * rows + 32 * row
            self.frames.append((algorithm, plain, stored, offset, toc[ids : ids + 32]))
            offset += stored
        if offset != self.toc_offset or int.from_bytes(toc[:4], "little") != rows:
            raise Trouble(f"the frames of {self.what} do not fill the place before its table of contents")
        return self

    def unseal(self, counter: int, algorithm: int, plain: int, data: bytes, more: bytes = b"") -> bytes:
        number = struct.pack("<Q", counter)
        try:
            return self.cipher.decrypt(bytes(4) + number, data, number + struct.pack("<BI", algorithm, plain) + more)
        except InvalidTag as error:
            raise Trouble(f"{self.what} does not open: altered, misplaced, or sealed with another key") from error

    def frame(self, number: int) -> bytes:
        if number >= len(self.frames):
            raise Trouble(f"{self.what} has no frame {number}")
        algorithm, plain, stored, offset, _ = self.frames[number]
        data = self.unseal(number, algorithm, plain, self.exactly(offset, stored))
        try:
            if algorithm == 1:
                fits = zstandard.frame_content_size(data) in (plain, -1)
                data = zstandard.ZstdDecompressor().decompress(data, max_output_size=plain) if fits else b""
        except zstandard.ZstdError as error:
            raise Trouble(f"frame {number} of {self.what} does not decompress") from error
        if len(data) != plain:
            raise Trouble(f"frame {number} of {self.what} does not have the length it states")
        return data

    def document(self) -> Document:
        return parse_json(self.what, self.frame(0))


def whole(what: str, data: bytes) -> Container:
    found = Container(what, len(data), lambda offset, length: data[offset : offset + length])
    if not found.is_sound():
        raise Trouble(f"{what} does not have the hash it ends with: bytes have changed")
    return found


class Repository:
    """A folder with a repository [2, 4], unlocked with the passphrase or key file of the environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.roots: dict[int, bytes] = {}
        self.area_keys: dict[tuple[bytes, int], bytes] = {}
        self.area_names: dict[bytes, str] = {}
        if not (folder / "identity").is_file():
            hint = "name the folder that holds the file `identity`; is its disk mounted?"
            raise Trouble(f"there is no repository at {folder}", hint, NO_REPOSITORY)
        identity = self.container("identity")
        self.id = from_hex(parse_json("identity", identity.head[64:]).get("repository"), 16, "the repository id")
        self.unlock()

    def names(self, prefix: str, pattern: re.Pattern[str]) -> list[str]:
        """Return the names in a folder of the store; what has no such name is no object and is passed over."""
        folder = self.folder / prefix
        return sorted(e.name for e in folder.iterdir() if pattern.fullmatch(e.name)) if folder.is_dir() else []

    def container(self, name: str) -> Container:
        with (self.folder / name).open("rb") as file:
            return whole(name, file.read(OBJECT_MAX + 1))

    def open_pack(self, area: bytes, name: str) -> Container:
        path = self.folder / f"areas/{area.hex()}/packs/{name[:2]}/{name}"

        def read(offset: int, length: int) -> bytes:
            with path.open("rb", buffering=0) as file:
                return os.pread(file.fileno(), length, offset)

        return self.open(Container(f"pack {name}", path.stat().st_size, read), (DATA_PACK, LIST_PACK), area)

    def open(self, found: Container, kinds: tuple[int, ...], area: bytes, claim: bytes = b"") -> Container:
        if found.kind not in kinds:
            raise Trouble(f"{found.what} says it is an object of type {found.kind}")
        return found.open(self.area_key(area, found.epoch), self.id, area, claim)

    def area_key(self, area: bytes, epoch: int) -> bytes:
        if epoch in self.roots:
            return derive(self.roots[epoch], b"area key", self.id, area)
        if (area, epoch) in self.area_keys:
            return self.area_keys[area, epoch]
        hint = "use a passphrase or key file that was added for this source, or after the last `key rotate`"
        raise Trouble(f"this key does not open what was written under epoch {epoch} of the keys", hint, KEY)

    def area_id(self, application: str, source: str) -> bytes:
        names = join(application.encode("utf-8", "surrogateescape"), source.encode("utf-8", "surrogateescape"))
        return blake3(names, key=derive(self.roots[1], b"name key", self.id)).digest()[:16]

    def unlock(self) -> None:
        """Try the slots of this repository until one leads to the newest epoch; keep what the others yield."""
        passphrase, key_file = os.environ.get("HOLDFAST_PASSPHRASE"), os.environ.get("HOLDFAST_KEY_FILE")
        if not passphrase and not key_file:
            raise Trouble("no key was given", "set HOLDFAST_PASSPHRASE, or HOLDFAST_KEY_FILE to its path", KEY)
        names, newest = self.names("slots", HEX_ID), max([1, *map(int, self.names("epochs", EPOCH_NAME))])
        if len(names) > SLOTS_MAX:
            raise Trouble(f"there are more than {SLOTS_MAX} key slots", "move those you did not add out of slots/")
        key_secret = read_key_file(Path(key_file)) if key_file else None
        for name in names:
            try:
                if newest not in self.roots:
                    self.try_slot(name, passphrase, key_secret)
            except (Trouble, OSError) as error:
                warn(f"slots/{name} is passed over: {error}")
        if not self.roots and not self.area_keys:
            hint = "look for a typing error, another keyboard layout, or the wrong repository"
            raise Trouble("no key slot opens with this passphrase or key file", hint, KEY)
        if self.roots and newest not in self.roots:
            warn(f"this key opens epochs up to {max(self.roots)} of {newest}: newer objects stay closed")

    def try_slot(self, name: str, passphrase: str | None, key_secret: bytes | None) -> None:
        slot = self.container(f"slots/{name}")
        clear = parse_json(slot.what, slot.head[64:])
        if clear.get("repository") != self.id.hex() or slot.kind != SLOT:
            return
        secret = key_secret if clear.get("kind") == "keyfile" else None
        if clear.get("kind") == "passphrase" and passphrase:
            secret = passphrase_secret(passphrase, need(clear, "kdf", dict, "it"))
        try:
            document = slot.open(secret, self.id, b"", bytes.fromhex(name)).document() if secret else {}
        except Trouble:
            return  # another passphrase's slot
        if "roots" in document:
            self.take_roots(document)
        elif "area" in document:
            area = from_hex(document.get("area"), 16, "its area id")
            for epoch, key in need(document, "keys", dict, "it").items():
                self.area_keys[area, int(epoch)] = from_hex(key, 32, "an area key")
            self.area_names[area] = f"{document.get('application')}/{document.get('source')}"

    def take_roots(self, document: Document) -> None:
        """Keep the highest root that opens its `epochs/` object (the first: the identity), and what that leads to."""
        roots = {int(epoch): root for epoch, root in need(document, "roots", dict, "it").items()}
        for epoch in sorted(roots, reverse=True):
            expected = EPOCH, f"epochs/{epoch:08d}", struct.pack("<I", epoch)
            kind, name, claim = expected if epoch > 1 else (IDENTITY, "identity", b"")
            try:
                found, root = self.container(name), from_hex(roots[epoch], 32, "a root")
                if (found.kind, found.epoch) != (kind, epoch):
                    raise Trouble(f"{name} says it is something else")
                below = found.open(root, self.id, b"", claim).document()
                if epoch > 1:
                    self.take_roots(below)
                self.roots[epoch] = root
                return
            except (Trouble, OSError) as error:
                warn(f"a root of epoch {epoch} does not count: {error}")

    def sources(self) -> dict[bytes, str]:
        """Return `application/source` of every area that this key opens and whose name is stored."""
        known = dict(self.area_names)
        for name in self.names("catalog", HEX_ID) if self.roots else []:
            try:
                area = bytes.fromhex(name)
                found = self.open(self.container(f"catalog/{name}"), (CATALOG,), area).document()
                names = need(found, "application", str, "it"), need(found, "source", str, "it")
                if self.area_id(*names) != area:
                    raise Trouble("it names a source that has another area")
                known[area] = "/".join(names)
            except (Trouble, OSError) as error:
                warn(f"catalog/{name} does not count: {error}")
        for name in self.names("areas", HEX_ID) if self.roots else []:
            if bytes.fromhex(name) not in known:
                warn(f"area {name} has no name here; give its source in full, as application/source")
        return known

    def find_area(self, text: str) -> bytes:
        application, slash, source = text.partition("/")
        area = self.area_id(application, source) if slash and self.roots else b""
        if area and (self.folder / f"areas/{area.hex()}").is_dir():
            return area
        known = self.sources()
        found = [area for area, name in known.items() if text in (name, name.partition("/")[2])]
        if len(found) != 1:
            reason = f"more than one source is called {text}" if found else f"there is no source {text}"
            raise Trouble(reason, f"sources here: {', '.join(known.values()) or 'none'}", USAGE if found else FAILED)
        return found[0]


@dataclass(frozen=True, slots=True)
class Entry:
    number: int
    hash: bytes
    document: Document
    frames: tuple[bytes, ...] = ()

    def ids(self, kind: str, key: str) -> list[str]:
        """Return the backups that an entry of this kind names, else none."""
        value = self.document.get(key) if self.document.get("kind") == kind else []
        return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def read_history(repository: Repository, area: bytes, damaged: bool) -> tuple[list[Entry], list[str]]:
    """Open every entry of an area under its number [8]; return them in order, and what is wrong."""
    entries, problems = list[Entry](), list[str]()
    for name in repository.names(f"areas/{area.hex()}/history", HISTORY_NAME):
        try:
            found = repository.container(f"areas/{area.hex()}/history/{name}")
            repository.open(found, (HISTORY,), area, struct.pack("<Q", int(name)))
            if found.document().get("number") != int(name):
                raise Trouble(f"{found.what} has the number of another entry")
            frames = tuple(found.frame(number) for number in range(1, len(found.frames)))
            entries.append(Entry(int(name), found.hash, found.document(), frames))
        except (Trouble, OSError) as error:
            if getattr(error, "code", None) == KEY and not damaged:
                raise
            problems.append(str(error))
    return entries, problems


def live_backups(entries: list[Entry], problems: list[str]) -> dict[str, Entry]:
    """Return the live backups by id (rules 3 and 4), in order; add what breaks rule 5 to the problems."""
    by_number = {entry.number: entry for entry in entries}
    mark = max((entry.number for entry in entries if entry.document.get("kind") == "prune"), default=0)
    needed = range(max(mark, 1), max(by_number, default=0) + 1)
    problems += [f"entry {n} of the history is missing or unreadable" for n in needed if n not in by_number]
    removed: dict[str, int] = {}
    found: dict[str, Entry] = {}
    for entry in entries:
        before, previous = by_number.get(entry.number - 1), entry.document.get("previous")
        if (before and previous != before.hash.hex()) or (entry.number == 1 and previous is not None):
            problems.append(f"entry {entry.number} of the history does not follow the one before it")
        removed |= dict.fromkeys(entry.ids("expire", "backups") + entry.ids("void", "backup"), entry.number)
    named = by_number[mark].ids("prune", "live") if mark else []
    for entry in entries:
        for backup in entry.ids("backup", "backup"):
            if removed.get(backup, 0) < entry.number and (entry.number > mark or backup in named):
                found[backup] = entry
    lost = [backup for backup in named if backup not in found and backup not in removed]
    problems += [f"the entry of the live backup {backup} is missing" for backup in lost]
    return found


def read_record(repository: Repository, area: bytes, entry: Entry) -> Document:
    backup = from_hex(entry.document.get("backup"), 16, f"the backup id of history entry {entry.number}")
    data, what = entry.frames[0] if entry.frames else b"", f"the record of backup {backup.hex()}"
    record = repository.open(whole(what, data), (RECORD,), area, backup).document()
    names = need(record, "application", str, what), need(record, "source", str, what)
    misplaced = bool(repository.roots) and repository.area_id(*names) != area
    if record.get("id") != backup.hex() or misplaced or len(data) > RECORD_MAX:
        raise Trouble(f"{what} is that of another backup or source, or too long")
    return record


class Chunks:
    """The chunks of an area by id [5], found from the tables of all packs; in condemned packs only in need."""

    def __init__(self, repository: Repository, area: bytes, condemned: frozenset[bytes]) -> None:
        self.id_keys = {kind: derive(repository.area_key(area, 1), b"chunk id", kind) for kind in (b"data", b"list")}
        self.condemned, self.hashed = condemned, set[str]()
        self.places: dict[bytes, int] = {}
        self.more_places: dict[bytes, list[int]] = {}
        self.open_pack = functools.lru_cache(OPEN_PACKS_MAX)(functools.partial(repository.open_pack, area))
        folder = f"areas/{area.hex()}/packs"
        names = [n for f in repository.names(folder, HEX_BYTE) for n in repository.names(f"{folder}/{f}", HEX_HASH)]
        self.packs = sorted(names, key=lambda name: bytes.fromhex(name) in condemned)
        for number, name in enumerate(self.packs):
            try:
                frames = repository.open_pack(area, name).frames
            except (Trouble, OSError) as error:
                warn(str(error))
                continue
            for place, (*_, chunk) in enumerate(frames, number * FRAMES_MAX):
                if self.places.setdefault(chunk, place) != place:
                    self.more_places.setdefault(chunk, []).append(place)

    def pack(self, name: str) -> Container:
        """Open a pack, and check all of it the first time; its sound chunks count either way, each proves itself."""
        pack = self.open_pack(name)
        if name not in self.hashed:
            self.hashed.add(name)
            if bytes.fromhex(name) in self.condemned:
                warn(f"pack {name} is needed, and named for deletion: copy this repository before anything prunes it")
            if pack.hash.hex() != name or not pack.is_sound():
                warn(f"pack {name} is damaged: its bytes do not have the hash that names it")
        return pack

    def chunk(self, chunk: bytes, length: int | None, kind: bytes) -> bytes:
        """Return a chunk from the first pack where it is sound."""
        places = [self.places[chunk], *self.more_places.get(chunk, [])] if chunk in self.places else []
        for number, row in (divmod(place, FRAMES_MAX) for place in places):
            try:
                data = self.pack(self.packs[number]).frame(row)
            except (Trouble, OSError) as error:
                warn(str(error))
                continue
            if length in (None, len(data)) and blake3(data, key=self.id_keys[kind]).digest() == chunk:
                return data
            warn(f"frame {row} of pack {self.packs[number]} is not the chunk it is listed as")
        raise Trouble(f"chunk {chunk.hex()} is {'damaged' if places else 'in none of the readable packs'}")

    def rows(self, chunk: bytes, layout: str, size: int, most: int) -> list[tuple[bytes, int]]:
        """Return the rows of a leaf or a root; their lengths add up to the size."""
        data = self.chunk(chunk, None, b"list")
        complete = len(data) % struct.calcsize(layout) == 0
        rows: list[tuple[bytes, int]] = list(struct.iter_unpack(layout, data)) if complete else []
        if not 1 <= len(rows) <= most or sum(length for _, length in rows) != size:
            raise Trouble(f"list {chunk.hex()} does not add up to what it stands for")
        return rows

    def stream(self, reference: Document, kind: bytes = b"data") -> Iterator[bytes]:
        """Yield the content that a reference stands for [6]; it has the stated size, or this ends with an error."""
        size = need(reference, "size", int, "a reference")
        if "id" not in reference and size == 0:
            return
        top = from_hex(reference.get("id"), 32, "the id of a reference")
        depth = need(reference, "depth", int, "a reference")
        if depth > 2 or size == 0:
            raise Trouble(f"the reference to {top.hex()} is of no known form")
        for leaf, below in self.rows(top, "<32sQ", size, PLAIN_MAX) if depth == 2 else [(top, size)]:
            for chunk, length in self.rows(leaf, "<32sI", below, LEAF_ROWS_MAX) if depth else [(leaf, below)]:
                yield self.chunk(chunk, length, kind)


def read_item(line: bytes) -> Document:
    """Return an entry of the tree [6], with its paths as this system spells them."""
    item = parse_json("a line of the tree", line)
    path, kind = need(item, "path", str, "a line of the tree"), item.get("type")
    try:
        for key in ("path", "link") if kind == "link" else ("path",):
            item[key] = os.fsdecode(need(item, key, str, repr(path)).encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError as error:
        raise Trouble(f"the tree holds a path that no file can have: {path!r}") from error
    if "\0" in path + str(item.get("link")) or any(part in ("", ".", "..") for part in path.split("/")):
        raise Trouble(f"the tree holds a path that is refused: {path!r}")
    if kind not in ("file", "folder", "link"):
        raise Trouble(f"{path!r} is of a type that this reader does not know: {kind!r}")
    item["size"] = need(need(item, "ref", dict, repr(path)), "size", int, repr(path)) if kind == "file" else 0
    default = {"mode": 0o600 if kind == "file" else 0o700}
    return item | {"mode": need(default | item, "mode", int, repr(path)) & 0o777}


def read_tree(chunks: Chunks, record: Document) -> list[Document]:
    """Return the entries of a backup: as many and as large as recorded, and no path runs through a file or link."""
    items, rest = list[Document](), b""
    for data in chunks.stream(need(record, "tree", dict, "the record"), b"list"):
        *lines, rest = (rest + data).split(b"\n")
        items += map(read_item, lines)
        if len(rest) > TREE_LINE_MAX:
            raise Trouble("a line of the tree is too long")
    items += [read_item(rest)] if rest else []
    kinds = {item["path"]: item["type"] for item in items}
    for parts in (path.split("/") for path in kinds):
        above = ["/".join(parts[:length]) for length in range(1, len(parts))]
        if any(kinds.get(p) == "file" or (kinds.get(p) == "link" and not SPACE.fullmatch(p)) for p in above):
            raise Trouble(f"the tree holds {'/'.join(parts)!r} below something that is no folder")
    if len(kinds) != len(items) or len(items) != record.get("entries"):
        raise Trouble("the tree does not hold the entries that the record states, each once")
    if sum(item["size"] for item in items) != record.get("size_bytes"):
        raise Trouble("the tree does not have the size that the record states")
    return items


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)


def put(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


class Restore:
    """Writes a backup into new folders; of PostgreSQL the control file last: what is not whole does not start [12]."""

    def __init__(self, chunks: Chunks, record: Document, items: list[Document], target: Path) -> None:
        self.chunks, self.record, self.target, self.failures = chunks, record, target.absolute(), list[str]()
        self.spaces, self.beside = (self.target.with_name(target.name + end) for end in (".tablespaces", ".beside"))
        self.postgres = (record.get("kind"), record.get("form")) == ("postgres", "physical")
        self.items = [item for item in items if not (self.postgres and item["path"] in NOT_RESTORED)]
        links = [item["path"] for item in items if self.postgres and item["type"] == "link"]
        self.linked = frozenset(path for path in links if SPACE.fullmatch(path))
        for folder in (self.target, self.spaces, self.beside):
            if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
                raise Trouble(f"{folder} is not an empty folder", "name a target that does not exist yet", USAGE)
        self.target.mkdir(parents=True, exist_ok=True)
        self.target.chmod(0o700)

    def place(self, path: str) -> Path:
        in_space = "/".join(path.split("/")[:2]) in self.linked
        top = self.beside if path.startswith("@") else self.spaces if in_space else self.target
        return top / (path.removeprefix("pg_tblspc/") if in_space else path)

    def run(self) -> None:
        last = [item for item in self.items if self.postgres and item["path"] == "global/pg_control"]
        files = [item for item in self.items if item["type"] == "file" and item not in last]
        with ThreadPoolExecutor(WORKERS) as pool:
            try:
                for done in as_completed([pool.submit(self.write, item) for item in files]):
                    done.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        for item in (item for item in self.items if item["type"] != "file"):
            self.make(item)
        if self.postgres and not self.failures:
            self.prepare_postgres(need(self.record, "details", dict, "the record"))
        folders = [Path(f) for top in (self.target, self.spaces, self.beside) for f, _, _ in os.walk(top)]
        for folder in [*folders, self.target.parent]:
            sync_folder(folder)
        for item in last if not self.failures else []:
            self.write(item)
            sync_folder(self.target / "global")
        for item in reversed(self.items):
            if item["type"] == "folder" and not self.postgres:
                self.place(item["path"]).chmod(item["mode"])
        if self.failures:
            shown = "; ".join(self.failures[:SHOWN_MAX])
            raise Trouble(f"{len(self.failures)} files are damaged and were left out: {shown}")

    def write(self, item: Document) -> None:
        """Write one file to the disk; what cannot be proven whole is not left there."""
        path, mtime = self.place(item["path"]), item.get("mtime")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("xb") as file:
                for data in self.chunks.stream(item["ref"]):
                    file.write(data)
                file.flush()
                os.fchmod(file.fileno(), 0o600 if self.postgres else item["mode"])
                if isinstance(mtime, int):
                    os.utime(file.fileno(), (mtime, mtime))
                os.fsync(file.fileno())
        except Trouble as error:
            path.unlink()
            self.failures.append(f"{item['path']}: {error}")

    def make(self, item: Document) -> None:
        """Make a folder or, after all files are written, a link."""
        path, place = self.target / item["path"], self.place(item["path"])
        if item["type"] == "folder":
            return place.mkdir(parents=True, exist_ok=True)
        if self.postgres and item["path"] not in self.linked:
            return warn(f"the link {item['path']} to {item['link']} was left out: a copy must not share it")
        for folder in (place, path.parent) if self.postgres else (place.parent,):
            folder.mkdir(parents=True, exist_ok=True)
        return path.symlink_to(place) if self.postgres else place.symlink_to(item["link"])

    def prepare_postgres(self, details: Document) -> None:
        """End the WAL where the backup ends, and write the configuration of one recovery up to there."""
        size, stop = need(details, "wal_segment_size", int, "details"), need(details, "stop_lsn", str, "details")
        if size not in [1 << power for power in range(20, 31)] or not re.fullmatch("[0-9A-F]{1,8}/[0-9A-F]{1,8}", stop):
            raise Trouble("the details of the backup hold no possible end of the WAL")
        high, low = (int(part, 16) for part in stop.split("/"))
        number, end = divmod((high << 32 | low) - 1, size)
        timeline = need(details, "stop_timeline", int, "details")
        path = self.target / "pg_wal/{:08X}{:08X}{:08X}".format(timeline, *divmod(number, (1 << 32) // size))
        if not path.is_file() or path.stat().st_size <= end:
            raise Trouble(f"{path} is missing or too short: the WAL does not reach the end of the backup at {stop}")
        for length in (end + 1, size):
            os.truncate(path, length)
        put(path.parent / "archive_status/x", b"")
