"""Finding PostgreSQL's programs on this machine."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.model.errors import ConfigInvalid, NotFound

MAJORS = (15, 16, 17, 18)
"""The versions holdfast supports."""

USUAL_PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)
"""Debian and Ubuntu, Red Hat and its kin, Homebrew on both of its homes."""

SERVER_PROGRAMS = frozenset(
    {"initdb", "oid2name", "pg_checksums", "pg_controldata", "pg_ctl", "pg_resetwal", "pg_rewind", "pg_upgrade"}
    | {"pg_waldump", "pg_archivecleanup", "pg_test_fsync", "pg_test_timing", "postgres", "vacuumlo", "pgbench"}
)
"""What Debian ships in the server's package; the rest is in the client's."""

VERSION_SECONDS_MAX = 10.0
VERSION_PATTERN = re.compile(r"\(PostgreSQL\) ((\d+)\S*)")


@dataclass(frozen=True, slots=True)
class PostgresPrograms:
    """One installation: its folder holds at least ``postgres`` and ``initdb``, and they run."""

    major: int
    version: str
    folder: Path

    @property
    def extensions(self) -> frozenset[str]:
        """The names of the extensions that are installed for it."""
        root = self.folder.parent
        places = (
            root / "share/postgresql/extension",
            root / "share/extension",
            Path(f"/usr/share/postgresql/{self.major}/extension"),
        )
        return frozenset(path.stem for place in places for path in place.glob("*.control"))

    def path(self, name: str) -> Path:
        """Tell where the program is. Raises NotFound, naming the package that holds it."""
        path = self.folder / name
        if os.access(path, os.X_OK):
            return path
        package = f"postgresql-{self.major}" if name in SERVER_PROGRAMS else f"postgresql-client-{self.major}"
        raise NotFound(
            f"{name} of PostgreSQL {self.major} is not in {self.folder}",
            hint=f"Install the package {package} (Debian, Ubuntu: apt-get install {package}).",
        )


def find_postgres(
    extra_folders: Sequence[Path] = (), environment: Mapping[str, str] | None = None
) -> tuple[PostgresPrograms, ...]:
    """Find every installed server, the newest version first, one for each major.

    ``HOLDFAST_POSTGRES_BIN_<major>`` wins over the extra folders, these over the usual places, these over PATH.
    Raises ConfigInvalid when such a variable names a folder that does not hold that version.
    """
    surroundings = os.environ if environment is None else environment
    found = _named_by_environment(surroundings)
    for folder in (*extra_folders, *_usual_folders(surroundings)):
        programs = _examine(folder)
        if programs:
            found.setdefault(programs.major, programs)
    return tuple(found[major] for major in sorted(found, reverse=True))


def postgres_programs(
    major: int, extra_folders: Sequence[Path] = (), environment: Mapping[str, str] | None = None
) -> PostgresPrograms:
    """Find the programs of one version. Raises NotFound, naming the package to install."""
    for programs in find_postgres(extra_folders, environment):
        if programs.major == major:
            return programs
    raise NotFound(
        f"the programs of PostgreSQL {major} are not on this machine",
        hint=f"Install the package postgresql-{major} (Debian, Ubuntu: apt-get install postgresql-{major}), "
        f"or set HOLDFAST_POSTGRES_BIN_{major} to the folder that holds initdb and postgres.",
    )


def newest_postgres(
    extra_folders: Sequence[Path] = (), environment: Mapping[str, str] | None = None
) -> PostgresPrograms:
    """Find the newest supported version. Raises NotFound, naming the package to install."""
    for programs in find_postgres(extra_folders, environment):
        if programs.major in MAJORS:
            return programs
    raise NotFound(
        f"no PostgreSQL {MAJORS[0]} to {MAJORS[-1]} server is installed on this machine",
        hint="Install the package postgresql (Debian, Ubuntu: apt-get install postgresql postgresql-contrib), "
        "or set HOLDFAST_POSTGRES_BIN_<major> to the folder that holds initdb and postgres.",
    )


def _named_by_environment(environment: Mapping[str, str]) -> dict[int, PostgresPrograms]:
    found: dict[int, PostgresPrograms] = {}
    for major in MAJORS:
        variable = f"HOLDFAST_POSTGRES_BIN_{major}"
        folder = environment.get(variable)
        if not folder:
            continue
        programs = _examine(Path(folder))
        if programs is None or programs.major != major:
            raise ConfigInvalid(
                f"{variable} names {folder}, which does not hold the server programs of PostgreSQL {major}",
                hint=f"Point it to the folder with initdb and postgres of version {major}, or unset it.",
            )
        found[major] = programs
    return found


def _usual_folders(environment: Mapping[str, str]) -> Iterator[Path]:
    for pattern in USUAL_PLACES:
        yield from sorted(Path("/").glob(pattern.lstrip("/")))
    for folder in environment.get("PATH", "").split(os.pathsep):
        if Path(folder).is_absolute():
            yield Path(folder)


def _examine(folder: Path) -> PostgresPrograms | None:
    """Ask the programs in a folder for their version; None when there are none, or when they do not run here."""
    folder = folder.resolve()
    server = folder / "postgres"
    if not (os.access(server, os.X_OK) and os.access(folder / "initdb", os.X_OK)):
        return None
    try:
        answer = subprocess.run(
            [str(server), "--version"], capture_output=True, timeout=VERSION_SECONDS_MAX, check=True, cwd="/"
        ).stdout
    except (OSError, subprocess.SubprocessError):  # for another machine, or a library of it is missing: not usable
        return None
    match = VERSION_PATTERN.search(answer.decode("utf-8", "replace"))
    return PostgresPrograms(int(match[2]), match[1], folder) if match else None
