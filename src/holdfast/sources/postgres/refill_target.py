"""Looks at a folder before anything is written into it: a running server, another system, a folder of the machine."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from holdfast.model.errors import ConfigInvalid, Conflict, Denied
from holdfast.sources.port import FolderTarget
from holdfast.sources.postgres.refill_locations import absolute, beside, refuse_impossible_locations

PID_FILE = "postmaster.pid"
PID_FILE_BYTES_MAX = 4096

_MACHINE_FOLDERS = frozenset({
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/media", "/mnt", "/opt", "/proc", "/root",
    "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/usr/local", "/var", "/var/backups", "/var/cache", "/var/lib",  # noqa: S108
    "/var/lib/postgresql", "/var/log", "/var/run", "/var/tmp",  # noqa: S108
})  # fmt: skip


def refuse_folder(target: FolderTarget) -> None:
    """Raise where this target must never be written to, whatever the operator agreed to.

    ``ConfigInvalid``: not a place for a data folder. ``Conflict``: a server runs on it, or owns it.
    """
    refuse_impossible_locations(target)
    try:
        _look(absolute(target.folder), tuple(absolute(new) for _, new in target.locations))
    except OSError as error:
        raise _not_seen(error) from error


def _not_seen(error: OSError) -> Denied:
    return Denied(
        f"{error.filename} cannot be looked at: {error.strerror}",
        hint="restore as the user that will run the server, into a folder that this user may write to",
    )


def _look(folder: Path, tablespaces: tuple[Path, ...]) -> None:
    for place in (folder, *tablespaces):
        _refuse_machine_folder(place)
        _refuse_running_server(place)
    if names := _tablespace_versions(folder):
        raise Conflict(
            f"{folder} is a tablespace of some PostgreSQL cluster ({names[0]})",
            hint="choose another folder; a tablespace holds data of a cluster whose data folder is elsewhere",
        )
    _refuse_running_server(beside(folder))
    for place in tablespaces:
        _refuse_foreign_tablespace(folder, place)


def system_in(folder: Path) -> str | None:
    """Return the system identifier of the cluster in a folder, None where there is none (pg_control's first 8 bytes).

    The file is written in the byte order of its machine; so is what we compare it with.
    """
    try:
        with (folder / "global" / "pg_control").open("rb") as control:
            head = control.read(8)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _not_seen(error) from error
    return str(struct.unpack("=Q", head)[0]) if len(head) == 8 else None


def refuse_other_system(folder: Path, system_identifier: str) -> None:
    """Raise ``Conflict`` where the folder holds a cluster that the backup is not of."""
    found = system_in(folder)
    if found is not None and found != system_identifier:
        raise Conflict(
            f"{folder} holds another cluster (system {found}), not the one of the backup ({system_identifier})",
            hint="restore into another folder; if that cluster is not needed any more, remove it yourself first",
        )


def _refuse_machine_folder(place: Path) -> None:
    if str(place) in _MACHINE_FOLDERS or str(place) == os.environ.get("HOME"):
        raise ConfigInvalid(
            f"{place} is a folder of the machine, not one for a cluster", hint=f"name a folder in it: {place}/restored"
        )
    if os.path.lexists(place) and not place.is_dir():
        raise ConfigInvalid(f"{place} is not a folder", hint="name a folder that is empty or does not exist yet")


def _refuse_running_server(place: Path) -> None:
    """Look at the place and at every folder above: a tablespace or a subfolder of a running cluster is taken too."""
    real = place.resolve()
    for folder in (real, *real.parents):
        if (pid := running_postmaster(folder)) is not None:
            raise Conflict(
                f"a PostgreSQL server (process {pid}) runs on {folder}",
                hint=f"stop it first (pg_ctl -D {folder} stop), or restore into another folder",
            )


def running_postmaster(folder: Path) -> int | None:
    """Return the process id of the server that runs on a folder, None where there is none.

    A lock file that a crash left behind does not count, nor does another process that got its number since.
    """
    try:
        with (folder / PID_FILE).open("rb") as file:
            first = file.read(PID_FILE_BYTES_MAX).split(b"\n", 1)[0].strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise Conflict(
            f"{folder / PID_FILE} cannot be read: a server of another user may run there",
            hint="run as the user that owns the folder, or restore elsewhere",
        ) from error
    if not first.lstrip(b"-").isdigit():
        return None
    pid = abs(int(first))  # Negative: a single-user server.
    return pid if _is_alive(pid) and _may_run_in(pid, folder) else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _may_run_in(pid: int, folder: Path) -> bool:
    """Whether a process has the folder as its working directory (a postmaster always has), as far as we may see."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == folder.resolve()
    except OSError:
        return True


def _tablespace_versions(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name.startswith("PG_") and name[3:5].isdigit())  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []


def _refuse_foreign_tablespace(folder: Path, place: Path) -> None:
    """Only a tablespace that the copy in the target already uses may be written over (R1), and while nobody else does.

    A raw copy of a data folder links to the tablespaces of the original: hence the look at what runs here.
    """
    if not _tablespace_versions(place):
        return
    if place.resolve() not in _linked_tablespaces(folder):
        raise Conflict(
            f"{place} is a tablespace of another cluster",
            hint="map the tablespace to an empty folder (--tablespace OLD=NEW)",
        )
    for running in _running_clusters():
        if place.resolve() in _linked_tablespaces(running):
            raise Conflict(
                f"{place} is a tablespace of the PostgreSQL server that runs on {running}",
                hint="map the tablespace to an empty folder (--tablespace OLD=NEW), or stop that server first",
            )


def _linked_tablespaces(folder: Path) -> set[Path]:
    try:
        return {link.resolve() for link in (folder / "pg_tblspc").iterdir() if link.is_symlink()}
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return set()


def _running_clusters() -> set[Path]:
    """Return the data folders of the servers of this machine, as far as we may see them (none without /proc)."""
    found: set[Path] = set()
    for process in Path("/proc").glob("[0-9]*/cwd"):
        try:
            folder = process.readlink()
            if (folder / PID_FILE).exists():
                found.add(folder)
        except OSError:
            # Ended meanwhile, or of another user: not ours to see.
            continue
    return found
