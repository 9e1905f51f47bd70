"""A second writer of the stored format, as small as can be: from docs/format.md alone, with no code of the program."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import struct
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

KDF = {"name": "argon2id", "memory_kib": 16384, "passes": 1, "lanes": 1}
SIGNED = ("expire", "release", "void", "adopt", "prune")
EMPTY_REFERENCE: dict = {"size": 0}

Run = Callable[..., subprocess.CompletedProcess]
"""The reader as a fixture: takes its arguments, and a passphrase or variables of the environment."""


def join(*parts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    extracted = hmac.new(salt, key, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


def derive(key: bytes, *parts: bytes) -> bytes:
    return hkdf(key, bytes(32), join(b"holdfast/v1", *parts))


def to_json(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


@dataclass
class Seal:
    """Where a container belongs: all that its key is made from."""

    kind: int
    ikm: bytes
    repository: bytes
    epoch: int = 1
    area: bytes = b""
    claim: bytes = b""


def container(seal: Seal, frames: list[bytes], clear: object = None, ids: list[bytes] | None = None) -> bytes:
    salt = os.urandom(32)
    place = join(b"holdfast/v1", b"container", bytes([seal.kind]), seal.repository, seal.area, seal.claim)
    cipher = AESGCM(hkdf(seal.ikm, salt, place))
    open_part = b"" if clear is None else to_json(clear)
    head = b"HOLDFAST" + struct.pack("<HBBI", 1, seal.kind, 0, seal.epoch) + salt
    head += struct.pack("<I", len(open_part)) + bytes(12) + open_part
    body, rows = b"", b""
    for number, plain in enumerate(frames):
        packed = zstandard.ZstdCompressor().compress(plain)
        algorithm, data = (1, packed) if len(packed) < len(plain) else (0, plain)
        nonce = bytes(4) + struct.pack("<Q", number)
        sealed = cipher.encrypt(nonce, data, struct.pack("<QBI", number, algorithm, len(plain)))
        rows += struct.pack("<BBHII", algorithm, 0, 0, len(plain), len(sealed))
        body += sealed
    toc = struct.pack("<I", len(frames)) + rows + b"".join(ids or [])
    where = struct.pack("<QI", len(head) + len(body), len(frames))
    last = (1 << 64) - 1
    extra = struct.pack("<QBI", last, 0, len(toc)) + head + where
    sealed_toc = cipher.encrypt(bytes(4) + struct.pack("<Q", last), toc, extra)
    trailer = struct.pack("<QII", len(head) + len(body), len(sealed_toc), len(frames)) + b"HFTRAIL1" + bytes(8)
    whole = head + body + sealed_toc + trailer
    return whole + blake3(whole).digest()


@dataclass
class Writer:
    """A repository in a folder with one area."""

    folder: Path
    application: str = "shop"
    source: str = "main"
    id: bytes = field(default_factory=lambda: os.urandom(16))
    store: bytes = field(default_factory=lambda: os.urandom(16))
    roots: dict[int, bytes] = field(default_factory=lambda: {1: os.urandom(32)})
    entries: list[bytes] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = join(self.application.encode(), self.source.encode())
        self.area = blake3(names, key=derive(self.roots[1], b"name key", self.id)).digest()[:16]

    # -- objects outside the area

    def init(self, passphrase: str = "secret") -> Writer:
        self.add_slot(passphrase)
        created = to_json({"created_at": "2026-01-01T00:00:00.000000Z"})
        clear: dict = {"repository": self.id.hex(), "store": self.store.hex()}
        self.put("store", container(Seal(14, self.roots[1], self.id), [created], clear))
        clear = {"format": 1, "repository": self.id.hex()}
        self.put("identity", container(Seal(1, self.roots[1], self.id), [created], clear))
        document = {"application": self.application, "source": self.source, "kind": "postgres"}
        catalog = container(self.seal(4), [to_json(document)])
        self.put(f"catalog/{self.area.hex()}/{catalog[-32:].hex()}", catalog)
        return self

    def put(self, name: str, data: bytes) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(data)
        return name

    @property
    def epoch(self) -> int:
        return max(self.roots)

    def area_key(self, epoch: int) -> bytes:
        return derive(self.roots[epoch], b"area key", self.id, self.area)

    def upkeep(self, epoch: int) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(derive(self.roots[epoch], b"upkeep key", self.id))

    def key_id(self, epoch: int) -> str:
        return derive(self.roots[epoch], b"key id", self.id)[:16].hex()

    def seal(self, kind: int, claim: bytes = b"", epoch: int = 0) -> Seal:
        return Seal(kind, self.area_key(epoch or self.epoch), self.id, epoch or self.epoch, self.area, claim)

    def add_slot(self, passphrase: str, area_only: bool = False, **clear: object) -> str:
        salt = os.urandom(16)
        argon2id = Argon2id(salt=salt, length=32, iterations=1, lanes=1, memory_cost=16384)
        clear = {"kind": "passphrase", "kdf": KDF | {"salt": salt.hex()}} | clear
        return self.put_slot(argon2id.derive(passphrase.encode()), clear, area_only)

    def add_key_file(self, path: Path) -> str:
        secret = os.urandom(32)
        path.write_text(f"holdfast-key-1 {secret.hex()}\n")
        return self.put_slot(secret, {"kind": "keyfile"}, False)

    def put_slot(self, secret: bytes, clear: dict, area_only: bool) -> str:
        slot = os.urandom(16)
        commit = derive(secret, b"commit", slot)[:16].hex()
        scope = "area" if area_only else "repository"
        clear = {"repository": self.id.hex(), "scope": scope, "commit": commit} | clear
        document: dict = {"roots": {str(epoch): root.hex() for epoch, root in self.roots.items()}}
        if area_only:
            document = {"area": self.area.hex(), "application": self.application, "source": self.source, "keys": {}}
            for epoch in self.roots:
                upkeep = self.upkeep(epoch).public_key().public_bytes_raw().hex()
                key = {"area": self.area_key(epoch).hex(), "key_id": self.key_id(epoch), "upkeep": upkeep}
                document["keys"][str(epoch)] = key
        sealed = container(Seal(2, secret, self.id, 0, b"", slot), [to_json(document)], clear)
        return self.put(f"slots/{slot.hex()}", sealed)

    def rotate(self, signer: Ed25519PrivateKey | None = None) -> str:
        before, number = self.epoch, self.epoch + 1
        lower = {str(epoch): root.hex() for epoch, root in self.roots.items()}
        self.roots[number] = os.urandom(32)
        upkeep, key_id = self.upkeep(number).public_key().public_bytes_raw(), bytes.fromhex(self.key_id(number))
        parts = self.id, struct.pack("<I", before), struct.pack("<I", number), key_id, upkeep
        signature = (signer or self.upkeep(before)).sign(join(b"holdfast/v1", b"epoch", *parts))
        clear = {"previous": before, "key_id": key_id.hex(), "upkeep": upkeep.hex(), "signature": signature.hex()}
        seal = Seal(3, self.roots[number], self.id, number, b"", struct.pack("<I", number))
        return self.put(f"epochs/{number:08d}", container(seal, [to_json({"roots": lower})], clear))

    # -- content

    def put_pack(self, chunks: Iterable[bytes], data_class: str = "data") -> list[bytes]:
        key = derive(self.area_key(1), b"chunk id", data_class.encode())
        frames = list(chunks)
        ids = [blake3(frame, key=key).digest() for frame in frames]
        sealed = container(self.seal(5 if data_class == "data" else 6), frames, ids=ids)
        name = sealed[-32:].hex()
        self.last_pack = self.put(f"areas/{self.area.hex()}/packs/{name[:2]}/{name}", sealed)
        return ids

    def reference(self, content: bytes, depth: int = 0, data_class: str = "data") -> dict:
        """Store a stream in chunks of 1000 bytes (one chunk at depth 0) and leaves of two rows at depth 2."""
        if not content:
            return EMPTY_REFERENCE
        if depth == 0:
            return {"size": len(content), "depth": 0, "id": self.put_pack([content], data_class)[0].hex()}
        chunks = [content[at : at + 1000] for at in range(0, len(content), 1000)]
        rows = [(i, len(c)) for i, c in zip(self.put_pack(chunks, data_class), chunks, strict=True)]
        if depth == 1:
            (leaf,) = self.put_pack([b"".join(struct.pack("<32sI", *row) for row in rows)], "list")
            return {"size": len(content), "depth": 1, "id": leaf.hex()}
        groups = [rows[at : at + 2] for at in range(0, len(rows), 2)]
        leaves = self.put_pack([b"".join(struct.pack("<32sI", *row) for row in group) for group in groups], "list")
        below = [sum(length for _, length in group) for group in groups]
        root = b"".join(struct.pack("<32sQ", *row) for row in zip(leaves, below, strict=True))
        return {"size": len(content), "depth": 2, "id": self.put_pack([root], "list")[0].hex()}

    def file(self, path: str, content: bytes = b"", depth: int = 0, **more: object) -> dict:
        return {"path": path, "type": "file", "mode": 0o640, "ref": self.reference(content, depth)} | more

    # -- history

    def put_entry(self, kind: str, *frames: bytes, signer: Ed25519PrivateKey | None = None, **more: object) -> int:
        number = len(self.entries) + 1
        previous = self.entries[-1][-32:].hex() if self.entries else None
        document = {"kind": kind, "number": number, "previous": previous} | more
        plain, place = [to_json(document), *frames], struct.pack("<Q", number)
        if kind in SIGNED:
            parts = self.id, self.area, self.store, place, *(blake3(frame).digest() for frame in plain)
            plain.append((signer or self.upkeep(self.epoch)).sign(join(b"holdfast/v1", b"entry", *parts)))
        self.entries.append(container(self.seal(7, self.store + place), plain))
        self.put(self.entry_name(number), self.entries[-1])
        return number

    def entry_name(self, number: int) -> str:
        return f"areas/{self.area.hex()}/history/{number:012d}"

    def backup(self, items: list[dict], tree_depth: int = 0, **more: object) -> str:
        backup = os.urandom(16)
        tree = b"".join(to_json(item) + b"\n" for item in items)
        size = sum(item["ref"]["size"] for item in items if "ref" in item)
        record = {
            "id": backup.hex(),
            "application": self.application,
            "source": self.source,
            "kind": "test",
            "form": "logical",
            "tier": "full",
            "ended_at": f"2026-01-01T00:00:00.{len(self.entries):06d}Z",
            "position": "0/1 to 0/2",
            "details": {},
            "streams": {"tree": self.reference(tree, tree_depth, "list")},
            "entries": len(items),
            "size_bytes": size,
            "damage": [],
            "notices": [],
        } | more
        sealed = container(self.seal(8, backup), [to_json(record)])
        self.numbers[backup.hex()] = self.put_entry("backup", sealed, backup=backup.hex())
        return backup.hex()
