"""A backup made by pg_basebackup, its files offered as entries, and the plainest possible executor of a plan."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg

from holdfast.model.documents import JsonObject
from holdfast.sandbox import PostgresPrograms, ThrowawayPostgres, server_account
from holdfast.sandbox.account import spawn
from holdfast.sandbox.folders import hand_over
from holdfast.sources.port import Entry, EntryType, FolderPlan, FolderTarget, StoredEntry
from holdfast.sources.postgres.details import BackupDetails, Tablespace
from holdfast.sources.postgres.recovery import MINIMUM_SETTINGS
from holdfast.sources.postgres.refill import PostgresFolderRefill

PROGRAM_SECONDS_MAX = 60.0
PROMOTION_LOOKS_MAX = 600
RECORDED = """
    SELECT name, current_setting(name) FROM pg_settings
    WHERE context <> 'internal' AND (source NOT IN ('default', 'override', 'client', 'session') OR name = ANY(%s))
"""


@dataclass(frozen=True)
class PlainBackup:
    """The files of a folder as a repository would offer them; ``replaced`` contents stand in for those on disk."""

    folder: Path
    details: BackupDetails
    replaced: dict[str, bytes] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()

    def entries(self) -> list[StoredEntry]:
        found: list[StoredEntry] = []
        for parent, folders, files in os.walk(self.folder, followlinks=True):
            for name in sorted((*folders, *files)):
                path = Path(parent, name)
                relative = path.relative_to(self.folder).as_posix()
                status = path.lstat()
                if relative in self.removed:
                    continue
                if path.is_symlink():
                    oid = int(name)
                    location = next(space.location for space in self.details.tablespaces if space.oid == oid)
                    found.append(StoredEntry(Entry(relative, EntryType.LINK, 0o777, link_target=location), 0))
                elif path.is_dir():
                    found.append(StoredEntry(Entry(relative, EntryType.FOLDER, status.st_mode & 0o777), 0))
                else:
                    size = len(self.replaced.get(relative, b"")) or status.st_size
                    found.append(StoredEntry(Entry(relative, mode=status.st_mode & 0o777), size))
        return found

    def content(self, path: str) -> bytes:
        return self.replaced[path] if path in self.replaced else (self.folder / path).read_bytes()

    def with_file(self, path: str, content: bytes) -> PlainBackup:
        return replace(self, replaced={**self.replaced, path: content})

    def restore(self, target: FolderTarget) -> FolderPlan:
        """Refuse, plan, write, and hand the folder to the account that runs servers."""
        entries = self.entries()
        return restore_entries(
            target, self.details.to_document(), entries, lambda index: self.content(entries[index].entry.path)
        )


def restore_entries(
    target: FolderTarget, details: JsonObject, entries: Sequence[StoredEntry], read: Callable[[int], bytes]
) -> FolderPlan:
    """Do with a backup what a driver does, without any of its care."""
    refill = PostgresFolderRefill()
    refill.refuse_target(target)
    plan = refill.plan_folder(target, details, entries, read)
    for folder, mode in plan.folders:
        folder.mkdir(mode, parents=True, exist_ok=True)
    for step in (*plan.files, *plan.last):
        content = read(step.index)
        if step.zero_from is not None:
            content = content[: step.zero_from] + bytes(len(content) - step.zero_from)
        step.path.write_bytes(content)
        step.path.chmod(step.mode)
    for path, content, mode in plan.generated:
        path.write_bytes(content)
        path.chmod(mode)
    for path, link in plan.links:
        path.symlink_to(link)
    for folder in {root.parent for root in plan.roots}:
        folder.chmod(0o711)
    hand_over(plan.roots[0], server_account())
    return plan


def take_backup(server: ThrowawayPostgres, folder: Path, spaces: Sequence[Tablespace] = ()) -> PlainBackup:
    """Run pg_basebackup into ``folder / "backup"`` and take the facts that a capture would record."""
    arguments = ["--format=plain", "--wal-method=fetch", "--checkpoint=fast", "--no-sync", "--verbose"]
    arguments += [f"--tablespace-mapping={space.location}={folder / str(space.oid)}" for space in spaces]
    command = [str(server.programs.path("pg_basebackup")), f"--pgdata={folder / 'backup'}", *arguments]
    done = subprocess.run(
        [*command, f"--dbname={server.connection_string()}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=PROGRAM_SECONDS_MAX,
    )
    start = re.search(r"start point: (\S+) on timeline (\d+)", done.stderr)
    stop = re.search(r"end point: (\S+)", done.stderr)
    assert start
    assert stop
    return PlainBackup(folder / "backup", _details(server, (start[1], stop[1], int(start[2])), tuple(spaces)))


def _details(server: ThrowawayPostgres, log: tuple[str, str, int], spaces: tuple[Tablespace, ...]) -> BackupDetails:
    with psycopg.connect(server.connection_string()) as connection:
        facts = connection.execute(
            """SELECT system_identifier::text, catalog_version_no, pg_is_in_recovery(),
                      current_setting('server_version_num')::int, current_setting('server_version'),
                      current_setting('block_size')::int, pg_size_bytes(current_setting('wal_segment_size'))
               FROM pg_control_system()"""
        ).fetchone()
        settings = connection.execute(RECORDED, (list(MINIMUM_SETTINGS),)).fetchall()
    assert facts
    return BackupDetails(
        system_identifier=facts[0],
        server_version_num=facts[3],
        server_version=facts[4],
        catalog_version=facts[1],
        block_size=facts[5],
        wal_segment_size=facts[6],
        checksums=True,
        start_lsn=log[0],
        stop_lsn=log[1],
        start_timeline=log[2],
        stop_timeline=log[2],
        tablespaces=spaces,
        in_recovery=facts[2],
        settings=tuple((name, value) for name, value in settings),
        configuration_outside=False,
    )


def run_program(programs: PostgresPrograms, name: str, *arguments: str) -> str:
    """Run a server program as the servers' account and return what it said; fails the test if it failed."""
    with tempfile.TemporaryFile() as output:
        process = spawn([str(programs.path(name)), *arguments], server_account(), output=output)
        try:
            code = process.wait(PROGRAM_SECONDS_MAX)
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        said = output.read().decode("utf-8", "replace")
    assert code == 0, f"{name} {arguments} ended with {code}:\n{said}"
    return said


def await_promotion(address: str) -> None:
    """Wait until recovery is over: pg_ctl already returns when the server takes read-only connections."""
    with psycopg.connect(address, autocommit=True) as connection:
        for _ in range(PROMOTION_LOOKS_MAX):
            if connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,):
                return
            connection.execute("SELECT pg_sleep(0.05)")
    raise AssertionError("still in recovery")


def start_folder(programs: PostgresPrograms, folder: Path, log: Path, options: str) -> None:
    """Start a folder with pg_ctl alone, as an operator does; a failure shows the server's log."""
    try:
        run_program(programs, "pg_ctl", "start", "-w", "-D", str(folder), "-l", str(log), "-o", options)
    except AssertionError as error:
        collected = [file.read_text() for file in (log, *sorted((folder / "log").glob("*.log"))) if file.exists()]
        said = "\n".join(collected)
        raise AssertionError(f"{error}\n{said}") from error
