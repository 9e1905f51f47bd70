"""Segments fetched before they are asked for: the folder between `wal fetch` and its helper. Standard library only.

A helper holds ``lock`` as long as it lives; what it left behind does not count. It reads ``wanted``, the segment that
was asked for last (with a question mark: and is waited for), and keeps the next ones beside it: ``NAME`` is a whole
segment, ``NAME.part`` one that is coming, ``NAME.not`` one that it cannot bring.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time

from holdfast.config.places import state_path

WAIT_SECONDS_MAX = 20.0
"""How long a segment that is coming is waited for, before it is fetched without the helper."""
BEGIN_SECONDS_MAX = 1.0
"""How long a helper that lives may take to begin with what was asked for."""
POLL_SECONDS = 0.002
SYSTEM_BYTES = 8
COPY_BYTES = 1 << 20
LOCK, WANTED, PART, NOT = "lock", "wanted", ".part", ".not"
AWAITED = "?"


def ahead_folder(environment: dict[str, str], config: str, source: str, repository: str) -> str:
    """Return the folder for one data folder, read by one configuration; another cluster in it gets another one."""
    config = config or environment.get("HOLDFAST_CONFIG", "")
    parts = (os.getcwd(), config, source, repository, _system())  # noqa: PTH109
    key = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return os.path.join(state_path(environment), "wal-ahead", key)  # noqa: PTH118


def _system() -> str:
    """Return whose data folder this is, by its first bytes of pg_control."""
    try:
        descriptor = os.open("global/pg_control", os.O_RDONLY)
    except OSError:
        return ""
    try:
        return os.read(descriptor, SYSTEM_BYTES).hex()
    finally:
        os.close(descriptor)


def is_helped(folder: str) -> bool:
    """Tell whether a helper lives there."""
    try:
        descriptor = os.open(f"{folder}/{LOCK}", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def say_wanted(folder: str, name: str, mark: str = "") -> None:
    """Tell the helper, now or when it begins, what was asked for; with ``AWAITED``, that somebody waits for it."""
    os.makedirs(folder, mode=0o700, exist_ok=True)  # noqa: PTH103
    beside = f"{folder}/{WANTED}.{os.getpid()}"
    with open(beside, "w", encoding="ascii") as file:  # noqa: PTH123
        file.write(name + mark)
    os.replace(beside, f"{folder}/{WANTED}")  # noqa: PTH105


def take_ahead(folder: str, name: str, target: str) -> bool:
    """Move a segment that was fetched ahead to where it is wanted; False where there is none."""
    if not is_helped(folder):
        return False
    whole, part = f"{folder}/{name}", f"{folder}/{name}{PART}"
    if _hand_over(folder, name, target):
        return True
    say_wanted(folder, name, AWAITED)
    begun = time.monotonic()
    while (waited := time.monotonic() - begun) < WAIT_SECONDS_MAX and is_helped(folder):
        if _hand_over(folder, name, target):
            return True
        is_coming = os.path.exists(part)  # noqa: PTH110
        if os.path.exists(whole + NOT) or (waited > BEGIN_SECONDS_MAX and not is_coming):  # noqa: PTH110
            return False
        time.sleep(POLL_SECONDS)
    return False


def _hand_over(folder: str, name: str, target: str) -> bool:
    if not _move(f"{folder}/{name}", target):
        return False
    say_wanted(folder, name)
    return True


def _move(whole: str, target: str) -> bool:
    try:
        os.rename(whole, target)  # noqa: PTH104
    except FileNotFoundError:
        return False
    except OSError:  # another file system
        return _copy(whole, target)
    return True


def _copy(whole: str, target: str) -> bool:
    beside = f"{target}.holdfast-{os.getpid()}"
    try:
        with open(whole, "rb") as read, open(beside, "wb") as written:  # noqa: PTH123
            while os.sendfile(written.fileno(), read.fileno(), None, COPY_BYTES):
                continue
        os.rename(beside, target)  # noqa: PTH104
        os.unlink(whole)  # noqa: PTH108
    except OSError:
        return False
    return True
