"""Folders that a server's account can reach, and handing folders over to it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.model.errors import ConfigInvalid
from holdfast.sandbox.account import Account, spawn

REACH_SECONDS_MAX = 10.0


def can_enter(folder: Path, account: Account | None) -> bool:
    """Tell whether the account can enter the folder, by trying it."""
    process = spawn(["/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder)], account, output=subprocess.DEVNULL)
    try:
        return process.wait(REACH_SECONDS_MAX) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False


def require_reachable(folder: Path, account: Account | None) -> None:
    """Raise ConfigInvalid when the account cannot enter the folder."""
    if can_enter(folder, account):
        return
    name = account.name if account else "this user"
    raise ConfigInvalid(
        f"{folder} cannot be entered by {name}, who has to run the server",
        hint=f"Choose a folder outside private ones like /root, for instance below /var/tmp, or let {name} pass there.",
    )


@contextmanager
def sandbox_folder(account: Account | None, prefix: str = "holdfast-") -> Iterator[Path]:
    """Offer a new empty folder that the account can enter; remove it, with all that is in it, at the end.

    It lies in the usual temporary folder, or in /var/tmp when the account cannot enter that one.
    """
    folder = make_sandbox_folder(account, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # what a dying server wrote meanwhile must not hide the real error


def make_sandbox_folder(account: Account | None, prefix: str = "holdfast-") -> Path:
    """Make a new empty folder that the account can enter; the caller removes it."""
    parents = dict.fromkeys((tempfile.gettempdir(), "/var/tmp", "/tmp"))  # noqa: S108 the parent, never a fixed name
    for parent in parents:
        if Path(parent).is_dir() and can_enter(Path(parent), account):
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent)).resolve()
            folder.chmod(0o711)  # others may pass through to what is theirs, not look around
            return folder
    raise ConfigInvalid(
        f"no temporary folder that {account.name if account else 'this user'} can enter",
        hint="Set TMPDIR to a folder that every account can enter.",
    )


def make_private_folder(folder: Path, account: Account | None) -> None:
    """Make the folder, 0700, the account's own. May be repeated."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    if account:
        os.chown(folder, account.user_id, account.group_id)


def hand_over(data_folder: Path, account: Account | None) -> None:
    """Make a data folder, its tablespaces included, the account's own; nothing to do when we are not root."""
    data_folder.chmod(0o700)
    if account is None:
        return
    links = data_folder / "pg_tblspc"
    targets = [link.resolve() for link in links.iterdir() if link.is_symlink()] if links.is_dir() else []
    for top in (data_folder, *filter(_is_tablespace, targets)):
        _chown_tree(top, account)


def _is_tablespace(folder: Path) -> bool:
    """A stray link must not hand / or /home to the server: only what holds nothing but tablespace folders is one."""
    return folder.is_dir() and all(child.name.startswith("PG_") for child in folder.iterdir())


def _chown_tree(top: Path, account: Account) -> None:
    os.chown(top, account.user_id, account.group_id)
    for parent, folders, files in os.walk(top):
        for name in (*folders, *files):
            os.lchown(Path(parent, name), account.user_id, account.group_id)
