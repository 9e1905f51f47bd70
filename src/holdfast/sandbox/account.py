"""The account a throwaway server runs as: PostgreSQL refuses root, so root hands its servers to an unprivileged one."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from holdfast.model.errors import NotFound, SourceFailed

ACCOUNT_NAMES = ("postgres", "nobody")
"""Tried in this order when we are root. ``postgres`` comes with Debian's packages, ``nobody`` is everywhere."""

INHERITED = ("PATH", "LD_LIBRARY_PATH", "TZ", "TMPDIR")
"""All that a server's process learns from our environment: neither PG* variables nor secrets."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account of the operating system, with every group it is in."""

    name: str
    user_id: int
    group_id: int
    group_ids: tuple[int, ...]


def server_account() -> Account | None:
    """Tell whom a server is handed to: None when it runs as ourselves, because we are not root.

    Raises NotFound when we are root and there is nobody to hand it to.
    """
    if os.geteuid() != 0:
        return None
    for name in ACCOUNT_NAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        groups = tuple(os.getgrouplist(name, entry.pw_gid))
        return Account(name=name, user_id=entry.pw_uid, group_id=entry.pw_gid, group_ids=groups)
    raise NotFound(
        "no unprivileged account for the server: neither postgres nor nobody exists",
        hint="PostgreSQL refuses to run as root: run holdfast as another user, or add a user named postgres.",
    )


def spawn(
    arguments: Sequence[str],
    account: Account | None,
    *,
    output: IO[bytes] | int,
    home: str = "/",
) -> subprocess.Popen[bytes]:
    """Start a program as the account, in a session of its own (a Ctrl-C is for us, not for it) with a bare environment.

    Raises SourceFailed when the program cannot be started at all. The caller waits for the process.
    """
    try:
        return subprocess.Popen(
            list(arguments),
            user=account.user_id if account else None,
            group=account.group_id if account else None,
            extra_groups=account.group_ids if account else None,
            umask=0o077,
            cwd="/",  # always there, and open to every account
            env=_environment(os.environ, home),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise SourceFailed(
            f"cannot start {arguments[0]}: {error.strerror or error}",
            hint=f"Check that the file exists and that {account.name if account else 'this user'} may execute it.",
        ) from error


def _environment(ours: Mapping[str, str], home: str) -> dict[str, str]:
    inherited = {name: ours[name] for name in INHERITED if name in ours}
    return {"PATH": "/usr/bin:/bin"} | inherited | {"HOME": home, "LC_ALL": "C"}
