"""Finding PostgreSQL's client programs, of a version that serves a given server."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from holdfast.model.errors import NotFound

PROGRAMS = ("pg_dump", "pg_restore", "pg_dumpall", "psql")
USUAL_PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/libpq/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/libpq/bin",
    "/usr/local/opt/postgresql@*/bin",
)
VARIABLE = "HOLDFAST_POSTGRES_BIN"
VERSION_SECONDS_MAX = 10.0
_VERSION = re.compile(r"\(PostgreSQL\) ((\d+)\S*)")


@dataclass(frozen=True, slots=True)
class ClientPrograms:
    """One installation of the client programs."""

    major: int
    version: str
    folder: Path

    def path(self, name: str) -> str:
        """Return the path of one of ``PROGRAMS``."""
        return str(self.folder / name)


def find_clients(environment: Mapping[str, str] | None = None, named: Path | None = None) -> tuple[ClientPrograms, ...]:
    """Return every complete set of client programs here, oldest first; a ``named`` folder is the only one looked at.

    Otherwise ``HOLDFAST_POSTGRES_BIN`` and ``HOLDFAST_POSTGRES_BIN_<major>`` come before the usual places and PATH.
    """
    folders = [named] if named is not None else list(_folders(os.environ if environment is None else environment))
    found: dict[int, ClientPrograms] = {}
    for folder in folders:
        programs = _examine(folder)
        if programs is not None:
            found.setdefault(programs.major, programs)
    return tuple(found[major] for major in sorted(found))


def clients_for(
    server_major: int, environment: Mapping[str, str] | None = None, named: Path | None = None
) -> ClientPrograms:
    """Return the programs to use with a server: of its own version, else the next newer. Raises ``NotFound``."""
    found = find_clients(environment, named)
    for programs in found:
        if programs.major >= server_major:
            return programs
    have = ", ".join(programs.version for programs in found) or "none"
    where = f" in {named}" if named is not None else " on this machine"
    raise NotFound(
        f"pg_dump, pg_restore, pg_dumpall and psql of PostgreSQL {server_major} or newer are not{where} "
        f"(found: {have})",
        hint=f"Install the package postgresql-client-{server_major} (Debian, Ubuntu) or postgresql{server_major} (Red "
        f"Hat), or name their folder in {VARIABLE}.",
    )


def _folders(environment: Mapping[str, str]) -> Iterator[Path]:
    for name in sorted(environment):
        if name == VARIABLE or re.fullmatch(rf"{VARIABLE}_\d+", name):
            yield Path(environment[name])
    for pattern in USUAL_PLACES:
        yield from sorted(Path("/").glob(pattern.lstrip("/")), reverse=True)
    for folder in environment.get("PATH", "").split(os.pathsep):
        if folder:
            yield Path(folder)


def _examine(folder: Path) -> ClientPrograms | None:
    if not all(os.access(folder / name, os.X_OK) for name in PROGRAMS):
        return None
    version = _version(folder / "pg_dump")
    return None if version is None else ClientPrograms(int(version[1]), version[0], folder)


@lru_cache(maxsize=64)
def _version(program: Path) -> tuple[str, str] | None:
    try:
        said = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=VERSION_SECONDS_MAX, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.search(said)
    return (match[1], match[2]) if match else None
