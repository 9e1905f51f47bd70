"""How every key follows from a root (docs/format.md, sections 3 and 4)."""

from __future__ import annotations

import struct
import threading
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from holdfast.model.errors import IntegrityBroken, KeyInvalid
from holdfast.repository.format.names import AreaId, ChunkId, RepositoryId

KEY_BYTES = 32
ARGON2_MEMORY_KIB_MIN = 1 << 14
ARGON2_MEMORY_KIB_MAX = 1 << 20
ARGON2_PASSES_MAX = 16
ARGON2_LANES_MAX = 16
FORMAT_LABEL = b"holdfast/v1"
_one_argon2 = threading.Lock()


def join(*parts: bytes) -> bytes:
    """Return the parts, each behind its length as u32."""
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869) to 32 bytes."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(key)


def derive(key: bytes, *parts: bytes) -> bytes:
    return hkdf(key, bytes(32), join(FORMAT_LABEL, *parts))


@dataclass(frozen=True, slots=True)
class Argon2Parameters:
    """How a passphrase becomes a secret; salt of 16 bytes.

    Memory and passes are RFC 9106's second recommendation; one lane, since more of them are threads of OpenSSL's.
    """

    salt: bytes
    memory_kib: int = 65536
    passes: int = 3
    lanes: int = 1

    def __post_init__(self) -> None:
        sound = (
            ARGON2_MEMORY_KIB_MIN <= self.memory_kib <= ARGON2_MEMORY_KIB_MAX
            and 1 <= self.passes <= ARGON2_PASSES_MAX
            and 1 <= self.lanes <= ARGON2_LANES_MAX
            and len(self.salt) == 16
        )
        if not sound:
            raise IntegrityBroken(
                f"a key slot asks for argon2id with {self.memory_kib} KiB, {self.passes} passes, {self.lanes} lanes",
                hint="Such a slot was not written by holdfast; look who can write to the store.",
            )


def passphrase_secret(passphrase: str, parameters: Argon2Parameters) -> bytes:
    """Argon2id (RFC 9106) of the passphrase in NFC, UTF-8."""
    stretch = Argon2id(
        salt=parameters.salt,
        length=KEY_BYTES,
        iterations=parameters.passes,
        lanes=parameters.lanes,
        memory_cost=parameters.memory_kib,
    )
    # Two at once with more than one lane wait for each other's threads for ever (seen with OpenSSL 3.5).
    with _one_argon2:
        return stretch.derive(unicodedata.normalize("NFC", passphrase).encode())


def key_id(root: bytes, repository: RepositoryId) -> bytes:
    """Return what tells two roots apart without telling either; 16 bytes."""
    return derive(root, b"key id", repository)[:16]


def upkeep_key(root: bytes, repository: RepositoryId) -> Ed25519PrivateKey:
    """Return the key of a root that signs what takes away (RFC 8032)."""
    return Ed25519PrivateKey.from_private_bytes(derive(root, b"upkeep key", repository))


def upkeep_public(root: bytes, repository: RepositoryId) -> bytes:
    return upkeep_key(root, repository).public_key().public_bytes_raw()


def is_signed_by(public: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def name_bytes(name: str) -> bytes:
    return unicodedata.normalize("NFC", name).encode()


@dataclass(frozen=True, slots=True, repr=False)
class AreaKeys:
    """What opens one area: its key of every epoch at hand. ``current_epoch`` is what new objects are sealed under.

    ``upkeep`` are the public keys that prove removing entries; ``roots``, where at hand, can sign them.
    """

    repository: RepositoryId
    area: AreaId
    keys: Mapping[int, bytes]
    current_epoch: int
    upkeep: Mapping[int, bytes]
    roots: Mapping[int, bytes] | None = None
    chunk_key_data: bytes = field(init=False)
    chunk_key_list: bytes = field(init=False)

    def __post_init__(self) -> None:
        first = self.of_epoch(1)
        object.__setattr__(self, "chunk_key_data", derive(first, b"chunk id", b"data"))
        object.__setattr__(self, "chunk_key_list", derive(first, b"chunk id", b"list"))

    def of_epoch(self, epoch: int) -> bytes:
        """Return the area key of an epoch; raises ``KeyInvalid`` where the slot at hand is older.

        An epoch that the repository does not have is ``IntegrityBroken``: an object's header names it in clear.
        """
        if not 1 <= epoch <= self.current_epoch:
            raise IntegrityBroken(
                f"an object is sealed under epoch {epoch}, and the repository is at epoch {self.current_epoch}",
                hint="If `holdfast key rotate` ran meanwhile, run the command again; else run `holdfast check`.",
            )
        if epoch not in self.keys:
            raise KeyInvalid(
                f"the key at hand does not open epoch {epoch} of the repository",
                hint="The keys were rotated. Use a passphrase or key file that `holdfast key rotate` re-wrapped, "
                "or have someone who holds one run `holdfast key add`.",
            )
        return self.keys[epoch]

    def sign_upkeep(self, message: bytes) -> bytes:
        """Sign a removing entry under the current epoch; raises ``KeyInvalid`` where only this area's keys are here."""
        if self.roots is None or self.current_epoch not in self.roots:
            raise KeyInvalid(
                "the key at hand may add backups and not remove any",
                hint="Use a passphrase or key file of the whole repository for expire, prune and release.",
            )
        return upkeep_key(self.roots[self.current_epoch], self.repository).sign(message)

    @property
    def chunker_seed(self) -> int:
        return int.from_bytes(derive(self.of_epoch(1), b"chunker seed")[:8], "little") >> 1

    def chunk_id(self, plain: bytes | bytearray | memoryview, *, data: bool) -> ChunkId:
        return ChunkId(blake3(plain, key=self.chunk_key_data if data else self.chunk_key_list).digest())


@dataclass(frozen=True, slots=True, repr=False)
class RootKeys:
    """The roots of the epochs at hand, of a repository-wide slot."""

    repository: RepositoryId
    roots: Mapping[int, bytes]
    current_epoch: int

    def area_id(self, application: str, source: str) -> AreaId:
        name_key = derive(self.roots[1], b"name key", self.repository)
        return AreaId(blake3(join(name_bytes(application), name_bytes(source)), key=name_key).digest()[:16])

    def area_keys(self, area: AreaId) -> AreaKeys:
        keys = {epoch: derive(root, b"area key", self.repository, area) for epoch, root in self.roots.items()}
        upkeep = {epoch: upkeep_public(root, self.repository) for epoch, root in self.roots.items()}
        return AreaKeys(self.repository, area, keys, self.current_epoch, upkeep, self.roots)
