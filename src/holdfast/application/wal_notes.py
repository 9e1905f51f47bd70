"""What `wal push` notes of segments that are durable already, so that the next call need not ask the repository.

Imports the standard library only: this path is run for every segment. A note speaks of one configuration, one source
and one folder of segments: its folder's name is made of them. ``NAME`` is a note, ``NAME.not`` a segment that the
helper did not bring, ``wanted`` the segment that was asked for last; the helper holds ``lock`` as long as it lives.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time

from holdfast.config.places import state_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

NOTE_SECONDS_MAX = 120.0
"""Older notes count for nothing: what they say was true of a repository that may be another one by now."""
NOTE_BYTES_MAX = 64 << 10
READ_BYTES = 1 << 20
DIGEST_BYTES = 32
SEGMENT_NAME_CHARACTERS = 24
LOCK, WANTED, NOT, READY = "lock", "wanted", ".not", ".ready"
HEAD, END = "holdfast wal note 1", "end"
CONFIG_VARIABLE, LOCAL_NAME, SYSTEM_PATH = "HOLDFAST_CONFIG", "holdfast.yaml", "/etc/holdfast/holdfast.yaml"
"""Where ``config.location`` looks too, in this order; where it looks elsewhere, no note is found."""
_HEXADECIMAL = frozenset("0123456789ABCDEF")
_STORES = ("AWS_", "AZURE_", "GOOGLE_")
_SECRETS = ("KEY", "SECRET", "TOKEN", "PASS", "CREDENTIAL")
"""No digest of a secret is ever kept: it could be guessed at. Keys do not say which store it is."""


def is_segment(name: str) -> bool:
    """Tell whether a file's name is that of a whole segment."""
    return len(name) == SEGMENT_NAME_CHARACTERS and _HEXADECIMAL.issuperset(name)


def notes_folder(environment: Mapping[str, str], wal: str, config: str, source: str, repository: str) -> str:
    """Return the folder of notes for a folder of segments, pushed as the configuration is at this moment.

    The configuration is known by its file (which one, how large, when changed last), and so is what tells the place of
    a store beside it: any change leads to another folder, which holds no note. Raises ``OSError`` where there is none.
    """
    home = environment.get("HOME", "")
    parts = [os.path.realpath(wal), source, repository, *_file_facts(_config_path(environment, config))]
    for variable, place in (("AWS_CONFIG_FILE", ".aws/config"), ("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials")):
        path = environment.get(variable) or os.path.join(home, place)  # noqa: PTH118
        parts += _file_facts(path) if os.path.exists(path) else (path,)  # noqa: PTH110
    for name in sorted(environment):
        if name.startswith(_STORES) and not any(word in name for word in _SECRETS):
            parts.append(f"{name}={environment[name]}")
    key = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return os.path.join(state_path(environment), "wal-push", key)  # noqa: PTH118


def _config_path(environment: Mapping[str, str], config: str) -> str:
    named = config or environment.get(CONFIG_VARIABLE, "")
    if named:
        return named
    return LOCAL_NAME if os.path.exists(LOCAL_NAME) else SYSTEM_PATH  # noqa: PTH110


def _file_facts(path: str) -> tuple[str, str]:
    """Return which file it is and in which state. The time of its last change cannot be set back."""
    facts = os.stat(path)  # noqa: PTH116
    return os.path.realpath(path), _facts_text(facts) + f" {facts.st_ctime_ns}"


def _facts_text(facts: os.stat_result) -> str:
    return f"{facts.st_dev} {facts.st_ino} {facts.st_size} {facts.st_mtime_ns}"


# Notes


def write_note(folder: str, name: str, content: bytes, repository: str, objects: Sequence[str]) -> None:
    """Note that a segment is durable in a repository; only for content that is. The note itself is durable then.

    ``objects`` are the files that hold it, where the repository is a folder of this host: while they are the same, it
    is. Raises ``OSError``.
    """
    lines = [HEAD, name, str(len(content)), digest_of(content), repository]
    lines += [f"{_facts_text(os.stat(path))} {path}" for path in objects]  # noqa: PTH116
    beside = f"{folder}/{name}.{os.getpid()}"
    data = "\n".join([*lines, END, ""]).encode("utf-8", "surrogateescape")
    if len(data) > NOTE_BYTES_MAX or any("\n" in path for path in objects):
        return
    try:
        with open(beside, "wb") as file:  # noqa: PTH123
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, f"{folder}/{name}")  # noqa: PTH105
    except OSError:
        _forget(beside)
        raise
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_noted(folder: str, path: str) -> bool:
    """Tell whether this very content is noted as durable, by a note that counts. Reads the file whole, once."""
    name = os.path.basename(path)  # noqa: PTH119
    try:
        with open(f"{folder}/{name}", "rb") as file:  # noqa: PTH123
            facts = os.fstat(file.fileno())
            data = file.read(NOTE_BYTES_MAX + 1)
        lines = data.decode("utf-8", "surrogateescape").split("\n")
        age = time.time() - facts.st_mtime
        if facts.st_uid != os.geteuid() or not 0 <= age <= NOTE_SECONDS_MAX:
            return False
        if len(lines) < 7 or lines[:2] != [HEAD, name] or lines[-2:] != [END, ""]:
            return False
        size, digest = lines[2], lines[3]
        if str(os.stat(path).st_size) != size or not all(map(_is_there, lines[5:-2])):  # noqa: PTH116
            return False
        return _digest_of_file(path) == (digest, size)
    except OSError:
        return False


def _is_there(line: str) -> bool:
    *facts, path = line.split(" ", 4)
    return _facts_text(os.stat(path)) == " ".join(facts)  # noqa: PTH116


def digest_of(content: bytes) -> str:
    """Return the digest that a note tells of a segment's content."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).hexdigest()


def _digest_of_file(path: str) -> tuple[str, str]:
    """Return digest and size of what is read: a file that grows meanwhile is another one."""
    digest, size = hashlib.blake2b(digest_size=DIGEST_BYTES), 0
    buffer = bytearray(READ_BYTES)
    with open(path, "rb", buffering=0) as file, memoryview(buffer) as view:  # noqa: PTH123
        while count := file.readinto(buffer):
            digest.update(view[:count])
            size += count
    return digest.hexdigest(), str(size)


def forget_old(folder: str, name: str) -> None:
    """Remove what is noted of a segment where it counts no more because of its age, so that it is noted anew."""
    try:
        age = time.time() - os.stat(f"{folder}/{name}").st_mtime  # noqa: PTH116
    except OSError:
        return
    if not 0 <= age <= NOTE_SECONDS_MAX:
        _forget(f"{folder}/{name}")


def forget(folder: str, name: str) -> None:
    """Remove what is noted of a segment."""
    _forget(f"{folder}/{name}")
    _forget(f"{folder}/{name}{NOT}")


def _forget(path: str) -> None:
    try:
        os.unlink(path)  # noqa: PTH108
    except OSError:
        return  # gone already; or it stays, and is removed when it is old


# The helper


def say_wanted(folder: str, name: str) -> None:
    """Tell the helper, now or when it begins, what was asked for. Raises ``OSError``."""
    os.makedirs(folder, mode=0o700, exist_ok=True)  # noqa: PTH103
    beside = f"{folder}/{WANTED}.{os.getpid()}"
    with open(beside, "w", encoding="ascii") as file:  # noqa: PTH123
        file.write(name)
    os.replace(beside, f"{folder}/{WANTED}")  # noqa: PTH105


def say_not(folder: str, name: str) -> None:
    """Tell that the helper did not bring a segment. Raises ``OSError``."""
    with open(f"{folder}/{name}{NOT}", "w", encoding="ascii"):  # noqa: PTH123
        return


def is_not(folder: str, name: str) -> bool:
    """Tell whether the helper did not bring a segment."""
    return os.path.exists(f"{folder}/{name}{NOT}")  # noqa: PTH110


def lock(folder: str) -> int | None:
    """Return an open file that says, as long as anybody has it open, that a helper lives; None where one does."""
    descriptor = os.open(f"{folder}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def is_helped(folder: str) -> bool:
    """Tell whether a helper lives there."""
    try:
        descriptor = os.open(f"{folder}/{LOCK}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def ready_segments(wal: str) -> Iterator[str]:
    """Yield the names of the segments that PostgreSQL says are ready to be archived, in no order."""
    try:
        with os.scandir(os.path.join(wal, "archive_status")) as found:  # noqa: PTH118
            for entry in found:
                name = entry.name.removesuffix(READY)
                if name != entry.name and is_segment(name):
                    yield name
    except OSError:
        return
