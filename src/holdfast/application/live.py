"""Restores into running servers: which backup serves, from where its content comes, and what is recorded of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from holdfast import bootstrap
from holdfast.application.results import BackupSummary, ReachedPoint
from holdfast.model.documents import JsonObject, JsonValue, format_time
from holdfast.model.errors import HoldfastError
from holdfast.model.events import Progress
from holdfast.repository.area import Area
from holdfast.repository.format.names import RunId
from holdfast.repository.format.record import BackupRecord
from holdfast.repository.index.lookup import open_index
from holdfast.repository.log.reading import StoredLog
from holdfast.repository.reading import ChunkReader
from holdfast.restore.content import RepositoryContent
from holdfast.restore.folder import Hands, RestoreOrder, restore_folder
from holdfast.restore.spool import Spool, SpooledContent
from holdfast.sources.kinds import LOGICAL
from holdfast.sources.port import CaptureRequest, Content, FolderTarget, Tier
from holdfast.sources.postgres.logical.refill import LivePlan, LiveReport, ServerTarget

DIFFERENCES_RECORDED_MAX = 50
REPLAY_SECONDS_MAX = 24 * 3600.0
"""How long a server in a sandbox may replay its log."""


@dataclass(frozen=True, slots=True)
class ServerRestorePlan:
    """What a restore into a server will do. ``address`` is the server without secrets."""

    source: str
    backup: BackupSummary
    address: str
    target: ServerTarget
    live: LivePlan
    point: ReachedPoint | None = None


@dataclass(frozen=True, slots=True)
class ServerRestoreOutcome:
    """What it did, and what the comparison found."""

    plan: ServerRestorePlan
    report: LiveReport
    duration_seconds: float


@dataclass(frozen=True, slots=True)
class Means:
    """What a command has at hand for it."""

    tools: bootstrap.Tools
    on_progress: Callable[[Progress], None]
    on_step: Callable[[str], None]
    on_notice: Callable[[str], None]
    stop_requested: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class ServerPlace:
    """Where a restore into a server goes, as it was asked for.

    ``into`` is an address as libpq takes it, with the name of the database to make; None stands beside the live one,
    under a dated name. ``only`` is ``db[.schema[.table]]``. ``into_table`` takes the rows of that one table into a new
    one beside it. Roles that the restore makes get their passwords with ``with_passwords``; those there keep theirs.
    """

    into: str | None = None
    only: str | None = None
    into_table: str | None = None
    in_place: bool = False
    with_passwords: bool = False


@dataclass(frozen=True, slots=True)
class ServerOrder:
    """What is wanted. ``agree`` is shown the plan and decides; ``point`` None is the backup as it was."""

    summary: BackupSummary
    target: ServerTarget
    address: str
    agree: Callable[[ServerRestorePlan], bool]
    point: ReachedPoint | None = None


@contextmanager
def content_of(
    area: Area, record: BackupRecord, target: ServerTarget, means: Means, point: ReachedPoint | None = None
) -> Iterator[Content]:
    """Give a backup's content in logical form: as it is stored, or from a sandbox that a physical one is started in.

    There it is brought on to a ``point`` of the log, if any.
    """
    if record.form == LOGICAL.form:
        index = open_index(area, frozenset(), means.tools.executor)
        try:
            yield RepositoryContent(ChunkReader(area, index), record, means.tools.executor)
        finally:
            index.close()
        return
    with _from_sandbox(area, record, target, means, point) as content:
        yield content


@contextmanager
def _from_sandbox(
    area: Area, record: BackupRecord, target: ServerTarget, means: Means, point: ReachedPoint | None
) -> Iterator[Content]:
    from holdfast.sandbox import PostgresSettings as SandboxSettings
    from holdfast.sandbox import ThrowawayPostgres, postgres_programs, server_account
    from holdfast.sandbox.folders import sandbox_folder
    from holdfast.sources.postgres.details import BackupDetails
    from holdfast.sources.postgres.logical.capture import LogicalSource
    from holdfast.sources.postgres.settings import settings_from_dsn

    major = BackupDetails.from_document(record.details).server_version_num // 10000
    programs = postgres_programs(major)
    with sandbox_folder(server_account()) as folder:
        log = StoredLog(area, means.tools.executor) if point is not None else None
        means.on_step(f"restoring the physical backup into a sandbox of PostgreSQL {programs.version}")
        restore_folder(
            area,
            record,
            bootstrap.refill_of(record.kind, point.target if point is not None else None),
            RestoreOrder(FolderTarget(folder / "data"), log=log),
            Hands(means.tools.executor, means.on_progress, means.stop_requested),
        )
        if point is not None:
            means.on_step(f"replaying {point.log_bytes} bytes of the log up to {point.position}")
        settings_here = SandboxSettings(start_seconds_max=REPLAY_SECONDS_MAX)
        with ThrowawayPostgres(programs, folder / "server", settings_here, data_folder=folder / "data") as server:
            means.on_step("reading from the sandbox")
            settings = settings_from_dsn(server.connection_string("postgres"))
            spool = Spool(folder / "spool")
            request = CaptureRequest(Tier.FULL, stop_requested=means.stop_requested)
            LogicalSource(area.source, settings, target.selection).capture(request, spool)
        yield SpooledContent(spool)


def restore_into_server(
    area: Area, record: BackupRecord, order: ServerOrder, means: Means
) -> ServerRestoreOutcome | None:
    """Plan, ask, carry out, and keep a record of the run with what the comparison found; None where nobody agreed.

    Content is made once for all of it: that of a physical backup takes a sandbox.
    """
    refill = bootstrap.server_refill(means.stop_requested, means.on_step)
    with content_of(area, record, order.target, means, order.point) as content:
        decided = refill.plan(content, order.target)
        plan = ServerRestorePlan(area.source, order.summary, order.address, order.target, decided, order.point)
        if not order.agree(plan):
            return None
        return _run(area, record, plan, partial(refill.run, content, order.target, plan.live), means)


def _run(
    area: Area, record: BackupRecord, plan: ServerRestorePlan, act: Callable[[], LiveReport], means: Means
) -> ServerRestoreOutcome:
    begun, started_at = time.monotonic(), datetime.now(UTC)
    run = RunId(os.urandom(16).hex())
    document: JsonObject = {
        "id": run,
        "verb": "restore",
        "tier": record.tier,
        "form": record.form,
        "started_at": format_time(started_at),
        "figures": {
            "backup": record.id,
            "target": plan.address,
            "position": plan.point.position if plan.point is not None else None,
        },
        "messages": [],
        "error": None,
    }
    try:
        report = act()
    except HoldfastError as error:
        document |= {"outcome": "failed", "exit_code": error.exit_code, "ended_at": format_time(datetime.now(UTC))}
        document["error"] = {"kind": error.kind, "message": error.message, "hint": error.hint}
        _keep(area, started_at, run, document, means)
        raise
    document |= _recorded(report)
    document["ended_at"] = format_time(datetime.now(UTC))
    _keep(area, started_at, run, document, means)
    return ServerRestoreOutcome(plan, report, time.monotonic() - begun)


def _recorded(report: LiveReport) -> JsonObject:
    told: Sequence[str] = [str(difference) for difference in report.differences[:DIFFERENCES_RECORDED_MAX]]
    return {
        "outcome": "partly" if report.differences else "done",
        "exit_code": 3 if report.differences else 0,
        "messages": list[JsonValue]([*told, *report.notes]),
        "figures": {
            "database": report.database,
            "kept_as": report.kept_as,
            "tables_compared": report.tables_compared,
            "rows_compared": report.rows_compared,
            "differences": len(report.differences),
            "seconds": {name: round(seconds, 3) for name, seconds in report.seconds},
        },
    }


def _keep(area: Area, started_at: datetime, run: RunId, document: JsonObject, means: Means) -> None:
    try:
        area.put_run(started_at, run, document)
    except HoldfastError as error:
        means.on_notice(f"the run record was not kept: {error.message}")
