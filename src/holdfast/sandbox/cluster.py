"""A throwaway server's data folder: made by initdb, or taken over as it was restored."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.model.errors import SourceFailed
from holdfast.sandbox.account import Account, spawn
from holdfast.sandbox.folders import hand_over
from holdfast.sandbox.programs import PostgresPrograms
from holdfast.sandbox.settings import PostgresSettings

INITDB_SECONDS_MAX = 120.0
EXCERPT_BYTES_MAX = 3000
PARAMETERS_FILE = "sandbox.conf"


def make_cluster(
    programs: PostgresPrograms, data_folder: Path, settings: PostgresSettings, account: Account | None
) -> None:
    """Run initdb into a folder that is the account's own and empty. Raises SourceFailed with what initdb said."""
    arguments = [
        str(programs.path("initdb")),
        f"--pgdata={data_folder}",
        f"--username={settings.superuser}",
        "--encoding=UTF8",
        f"--locale={settings.locale}",
        f"--wal-segsize={settings.wal_segment_mebibytes}",
        "--auth=trust",  # for initdb's own file, which write_configuration replaces before the first start
        "--no-sync",
        "--no-instructions",
        *_checksums_option(programs, settings),
    ]
    with tempfile.TemporaryFile() as output, _password_file(data_folder.parent, settings, account) as password_options:
        process = spawn([*arguments, *password_options], account, output=output, home=str(data_folder.parent))
        try:
            code = process.wait(INITDB_SECONDS_MAX)
        finally:
            process.kill()
            process.wait()
        if code != 0:
            output.seek(0)
            said = output.read()[-EXCERPT_BYTES_MAX:].decode("utf-8", "replace").strip()
            raise SourceFailed(
                f"initdb of PostgreSQL {programs.version} failed in {data_folder}:\n{said}",
                hint="The last lines tell the cause; often the disk is full or the locale does not exist here.",
            )
    with (data_folder / "postgresql.conf").open("a", encoding="utf-8") as configuration:
        configuration.write(f"\ninclude_if_exists = '{PARAMETERS_FILE}'\n")


def write_configuration(data_folder: Path, settings: PostgresSettings, account: Account | None) -> None:
    """Write the access rules and parameters of a cluster made here; may be repeated with other settings."""
    (data_folder / "pg_hba.conf").write_text(settings.hba_text(), encoding="utf-8")
    (data_folder / PARAMETERS_FILE).write_text(settings.parameters_text(), encoding="utf-8")
    hand_over(data_folder, account)


def require_same_major(programs: PostgresPrograms, data_folder: Path) -> None:
    """Raise SourceFailed when the data folder is none, or another version's."""
    try:
        major = (data_folder / "PG_VERSION").read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise SourceFailed(
            f"{data_folder} is not a PostgreSQL data folder: no PG_VERSION in it",
            hint="Name the folder that a restore wrote, the one with PG_VERSION and base in it.",
        ) from error
    if major != str(programs.major):
        raise SourceFailed(
            f"{data_folder} is of PostgreSQL {major}, the programs are {programs.version}",
            hint=f"Install the package postgresql-{major} (Debian, Ubuntu: apt-get install postgresql-{major}).",
        )


def log_excerpt(log_path: Path, start: int = 0) -> str:
    """Read the last lines of a server's log, at most EXCERPT_BYTES_MAX bytes, not before the given offset."""
    try:
        with log_path.open("rb") as log:
            size = log.seek(0, 2)
            log.seek(max(start, size - EXCERPT_BYTES_MAX))
            return log.read().decode("utf-8", "replace").strip()
    except OSError as error:
        return f"(its log cannot be read: {error})"


def _checksums_option(programs: PostgresPrograms, settings: PostgresSettings) -> list[str]:
    if settings.data_checksums:
        return ["--data-checksums"]
    return ["--no-data-checksums"] if programs.major >= 18 else []  # on by default since 18


@contextmanager
def _password_file(folder: Path, settings: PostgresSettings, account: Account | None) -> Iterator[list[str]]:
    """Hand the superuser's password to initdb through a file that only the account can read, and remove it."""
    if settings.password is None:
        yield []
        return
    descriptor, name = tempfile.mkstemp(prefix="initdb-", dir=folder)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(settings.password + "\n")
        if account:
            os.chown(name, account.user_id, account.group_id)
        yield [f"--pwfile={name}"]
    finally:
        Path(name).unlink()
