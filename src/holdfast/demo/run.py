"""One demo from the look at the machine to the closing table."""

from __future__ import annotations

import time
from collections.abc import Callable

from holdfast.demo.figures import COLUMNS, table_rows
from holdfast.demo.order import DemoOrder, DemoOutcome, Proof
from holdfast.demo.place import demo_folder
from holdfast.demo.report import Report
from holdfast.demo.stage import Stage
from holdfast.demo.story import play
from holdfast.demo.vault import CONFIG_NAME
from holdfast.model.errors import HoldfastError
from holdfast.sandbox import PostgresPrograms, newest_postgres, server_account

PROGRAMS = ("pgbench", "pg_verifybackup")
"""What the demo needs beside the server itself; found before anything is made."""

TRY_NEXT = (
    "$ holdfast init --application shop --repository file:///backups/holdfast --source orders=postgresql://holdfast@HOST/shop",
    "$ holdfast doctor",
    "$ holdfast backup",
    "$ holdfast restore --into /restore/orders",
    "docs/guide/demo.md tells what was shown here, step by step",
)


def run_demo(order: DemoOrder, report: Report, stop_requested: Callable[[], bool] = lambda: False) -> DemoOutcome:
    """Play the whole story for real and return what it showed; no server outlives the call, nor, unless kept, a file.

    Call it from the main thread: an interrupt ends it in order. Raises ``NotFound`` where PostgreSQL's programs are
    missing, ``OutOfSpace``, whatever a step fails with, and ``HoldfastError`` where something was not as it should be.
    """
    programs = _find_programs(order)
    account = server_account()
    begun = time.monotonic()
    with demo_folder(order, account) as folder:
        stage = Stage(order, report, folder, programs, stop_requested)
        play(stage)
    is_gone = not folder.exists()
    seconds = time.monotonic() - begun
    report.step("what it took, and what was proved")
    report.table("times and sizes", COLUMNS, table_rows(stage.measured, seconds))
    for proof in stage.proofs:
        report.line(("proved: " if proof.holds else "NOT SO: ") + proof.text)
    _tell_rest(stage, is_gone=is_gone)
    _require(stage.proofs)
    return DemoOutcome(
        programs.version,
        tuple(stage.measured),
        tuple(stage.proofs),
        stage.transactions,
        len(stage.retries),
        seconds,
        None if is_gone else folder,
    )


def _find_programs(order: DemoOrder) -> PostgresPrograms:
    programs = newest_postgres(environment=order.environment)
    for name in PROGRAMS:
        programs.path(name)
    return programs


def _tell_rest(stage: Stage, *, is_gone: bool) -> None:
    report, folder = stage.report, stage.folder
    if stage.retries:
        report.line(f"the store failed {len(stage.retries)} requests; each was tried again")
    if is_gone:
        report.line("nothing is left running, and the demo's folder is removed")
    elif stage.order.keep:
        report.line(f"nothing is left running; kept: {folder}")
        report.line(f"$ holdfast backups --config {folder / CONFIG_NAME}")
    else:
        report.line(f"nothing is left running, but {folder} could not be removed in full: remove it by hand")
    report.step("what to try next")
    for line in TRY_NEXT:
        report.line(line)


def _require(proofs: list[Proof]) -> None:
    broken = [proof.text for proof in proofs if not proof.holds]
    if broken:
        raise HoldfastError(
            "the demo did not show what it should: " + "; ".join(broken),
            hint="Run it again with --keep and report what it printed.",
        )
