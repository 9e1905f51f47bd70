"""Writes the files of a set-up: whole, synced, and never over something that is there."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from holdfast.model.errors import AlreadyExists, Denied

PUBLIC_MODE = 0o644
SECRET_MODE = 0o600


def write_new_file(path: Path, text: str, mode: int) -> None:
    """Write a file that is not there yet, with the folders above it; it appears whole or not at all.

    Raises ``AlreadyExists`` (what is there stays as it is) or ``Denied``.
    """
    staged = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            # A link, unlike a rename, never takes the place of a file that appeared meanwhile.
            os.link(staged, path)
        finally:
            staged.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except FileExistsError as error:
        raise AlreadyExists(
            f"{path} exists already", hint="Name another file; holdfast never writes over one."
        ) from error
    except OSError as error:
        raise Denied(
            f"{path} cannot be written: {(error.strerror or str(error)).lower()}",
            hint="Check the folder's owner and mode, or name another place.",
        ) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
