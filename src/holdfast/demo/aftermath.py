"""The demo's chapters after the disaster: restored beside and compared, without holdfast too, and damage found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from holdfast.application.results import BackupSummary
from holdfast.demo import database
from holdfast.demo.damage import flip_bit
from holdfast.demo.database import Balances, TableFacts
from holdfast.demo.figures import megabytes
from holdfast.demo.programs import run_program
from holdfast.demo.rescue import READER, find_reader, restore_with_reader
from holdfast.demo.stage import Stage
from holdfast.demo.vault import REPOSITORY_NAME, SOURCE, Vault
from holdfast.model.errors import NotFound
from holdfast.sandbox import PostgresSettings, ThrowawayPostgres
from holdfast.sources.postgres.connection import Session

READER_STARTS_SECONDS_MAX = 30.0
"""On a slow machine the demo does without the chapter that is not about holdfast itself, and stays short."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was known before the disaster: a backup lands between the two counts of transactions."""

    tables: tuple[TableFacts, ...]
    timeline: int
    transactions_before: int
    transactions_after: int
    backup: BackupSummary


def bring_back(stage: Stage, live: ThrowawayPostgres, vault: Vault, recorded: Recorded) -> None:
    """Restore the latest backup beside the live server, start it alone, and compare."""
    stage.begin("the latest backup restored beside, in a folder of its own")
    target = stage.folder / "restored"
    stage.report.line(f"$ holdfast restore {SOURCE} --into {target}")
    with stage.timed("restore") as sizes:
        application = vault.application()
        outcome = application.restore(application.plan_restore(SOURCE, into=target))
        sizes.size_bytes = outcome.written_bytes
    stage.report.line(f"{outcome.files:,} files, {megabytes(outcome.size_bytes)}, every chunk of it verified")
    _verify_by_manifest(stage, target)
    stage.begin("started by itself: no holdfast, no key, no network")
    with _restored(stage, "start and recover", target, live) as server:
        stage.begin("compared with what was recorded before the disaster")
        with stage.timed("compare"), database.connect(server) as session:
            _compare(stage, session, recorded)
        _check_structure(stage, server)


def show_reader(stage: Stage, live: ThrowawayPostgres, copy: Vault, recorded: Recorded) -> None:
    """Restore the same backup with the stand-alone reader, where there is one."""
    stage.begin("the same backup once more, without holdfast: one file of Python reads the format")
    command = f"$ HOLDFAST_PASSPHRASE=... python {READER} REPOSITORY_FOLDER {SOURCE} {recorded.backup.id[:12]} TARGET"
    stage.report.line(command)
    reader = find_reader()
    if reader is None:
        stage.report.line(f"not done here: {READER} comes with the source, not with the installed package")
        return
    if stage.seconds > READER_STARTS_SECONDS_MAX:
        stage.report.line(f"left out: {stage.seconds:.0f} s have passed already on this machine")
        return
    target = stage.folder / "rescued"
    with stage.timed("restore, stand-alone reader") as sizes:
        restore_with_reader(reader, copy, recorded.backup.id, target)
        sizes.size_bytes = recorded.backup.size_bytes
    with _restored(stage, "start and recover that", target, live) as server, database.connect(server) as session:
        is_equal = database.read_untouched(session) == recorded.tables
    stage.prove("what the stand-alone reader restored starts, with the same rows and digests", holds=is_equal)


def show_damage(stage: Stage, copy: Vault) -> None:
    """Flip one bit in a copy of the repository: a check has to find it and to name what it touches."""
    stage.begin("one bit flipped, in a copy of the repository")
    pack = flip_bit(copy.folder / REPOSITORY_NAME)
    stage.report.line(f"in the middle of a pack of {megabytes(pack.stat().st_size)}")
    stage.report.line("$ holdfast check --read-data")
    with stage.timed("check --read-data") as sizes:
        reports = copy.application().check(read_percent=100)
        sizes.size_bytes = sum(report.read_bytes for report in reports)
    for finding in (finding for report in reports for finding in report.findings):
        stage.report.line(f"found: {finding.message}")
    touched = sorted({backup for report in reports for backup in report.touched})
    names = ", ".join(backup[:12] for backup in touched) or "none"
    stage.prove(f"the flipped bit is found, and what it touches is named: backup {names}", holds=bool(touched))


@contextmanager
def _restored(stage: Stage, step: str, target: Path, live: ThrowawayPostgres) -> Iterator[ThrowawayPostgres]:
    """Run a restored cluster on a private socket alone. Its superuser is the live server's, password included."""
    settings = PostgresSettings(listen=False, password=live.settings.password)
    server = ThrowawayPostgres(stage.programs, stage.folder / f"{target.name}-server", settings, data_folder=target)
    try:
        with stage.timed(step):
            server.start()
        yield server
    finally:
        server.close()


def _compare(stage: Stage, session: Session, recorded: Recorded) -> None:
    for before, after in zip(recorded.tables, database.read_untouched(session), strict=True):
        stage.prove(
            f"{after.name}: {after.rows:,} rows with digest {after.digest[:12]}; recorded before: {before.rows:,} rows "
            f"with digest {before.digest[:12]}",
            holds=before == after,
        )
    balances = database.read_balances(session)
    stage.prove(f"pgbench: {_sums(balances)}", holds=balances.agree)
    stage.prove(
        f"{balances.transactions:,} transactions are there: {recorded.transactions_before:,} were committed when the "
        f"backup began, {recorded.transactions_after:,} when it had ended",
        holds=recorded.transactions_before <= balances.transactions <= recorded.transactions_after,
    )
    timeline = database.read_timeline(session)
    stage.prove(
        f"it goes on by itself, on timeline {timeline}; the live server is on {recorded.timeline}",
        holds=timeline > recorded.timeline,
    )


def _sums(balances: Balances) -> str:
    if balances.agree:
        return f"accounts, tellers, branches and history all sum up to {balances.accounts:,}"
    return (
        f"accounts {balances.accounts:,}, tellers {balances.tellers:,}, branches {balances.branches:,}, "
        f"history {balances.history:,}"
    )


def _verify_by_manifest(stage: Stage, target: Path) -> None:
    """Let PostgreSQL's own program compare the folder with the manifest that the server wrote."""
    with stage.timed("pg_verifybackup"):
        run_program(stage.programs.path("pg_verifybackup"), "--quiet", str(target))
    stage.prove("pg_verifybackup: the folder is what the server's own manifest says", holds=True)


def _check_structure(stage: Stage, server: ThrowawayPostgres) -> None:
    try:
        program = stage.programs.path("pg_amcheck")
    except NotFound as error:
        stage.report.line(f"pg_amcheck was not run: {error.message}")
        return
    with database.connect(server) as session:
        if not session.query("SELECT FROM pg_available_extensions WHERE name = 'amcheck'"):
            stage.report.line("pg_amcheck was not run: the extension amcheck is not installed here")
            return
    with stage.timed("pg_amcheck"):
        arguments = ("--install-missing", "--jobs=2")
        run_program(program, *arguments, server.connection_string(database.DATABASE))
    stage.prove("pg_amcheck: every table and every index is sound", holds=True)
