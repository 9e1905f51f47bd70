"""Watching and ending the processes of one server, by their ids."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
from pathlib import Path

KILL_SECONDS_MAX = 10.0
STATE_LAYOUT = struct.Struct("=QIIi")
STATE_IN_PRODUCTION = 6


def postmaster_status(lock_path: Path, pid: int) -> str:
    """Read what the server says of itself in postmaster.pid: starting, standby, ready, stopping; "" if nothing.

    ``ready`` means that it takes connections, perhaps still in recovery; ``standby`` that it takes none in recovery.
    PostgreSQL's src/include/utils/pidfile.h: line 1 is the process id, line 8 the status.
    """
    try:
        lines = lock_path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not written yet, or being replaced
        return ""
    if len(lines) < 8 or lines[0].strip() != str(pid):
        return ""
    return lines[7].strip()


def is_in_production(control_path: Path) -> bool:
    """Tell whether a server that takes connections is past recovery, and no standby.

    PostgreSQL's src/include/catalog/pg_control.h: system identifier, two version numbers, then the state. It is
    written together with the end of recovery. Before a server takes connections it may be a leftover of its source.
    """
    try:
        head = control_path.read_bytes()[: STATE_LAYOUT.size]
    except OSError:  # being replaced
        return False
    return len(head) == STATE_LAYOUT.size and STATE_LAYOUT.unpack(head)[3] == STATE_IN_PRODUCTION


def ends_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait for a process; tell whether it ended in time."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def kill_with_children(process: subprocess.Popen[bytes]) -> None:
    """End a server at once, as a crash would, with the processes it started (they lead sessions of their own)."""
    children = _children(process.pid)
    process.kill()
    for pid in children:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it noticed by itself that the server is gone
            continue
    process.wait(KILL_SECONDS_MAX)


def _children(parent: int) -> list[int]:
    """List a process's children from /proc; without /proc none: they end by themselves when the server is gone."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_bytes().rpartition(b")")[2].split()
        except OSError:  # ended meanwhile
            continue
        if len(fields) > 1 and int(fields[1]) == parent:
            found.append(int(entry.parent.name))
    return found
