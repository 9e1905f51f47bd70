"""Takes one backup of one source: lease, history, capture, commit, run record (docs/format.md, section 8)."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from holdfast.backup.pipeline import Pipeline, PipelineSettings, Poured
from holdfast.model.documents import JsonObject, JsonValue, format_time
from holdfast.model.errors import Conflict, HoldfastError, Interrupted
from holdfast.model.events import OnProgress
from holdfast.repository import history as histories
from holdfast.repository.area import Area
from holdfast.repository.format import names, rules
from holdfast.repository.format.entry import EntryKind, Facts, HistoryEntry
from holdfast.repository.format.names import BackupId, RunId
from holdfast.repository.format.record import DAMAGE_ROWS_MAX, BackupRecord, DamageRow
from holdfast.repository.format.rules import HistoryState
from holdfast.repository.history import History
from holdfast.repository.index.lookup import ChunkIndex, open_index, save_index
from holdfast.repository.leases import PERIOD_SECONDS, Holder, Lease, this_process
from holdfast.repository.log.listing import list_log
from holdfast.repository.remembered import Remembered
from holdfast.sources.port import Captured, CaptureRequest, Identity, Source, Tier
from holdfast.version import __version__

CLOCK_OFFSET_SECONDS_MAX = 300.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a run is given: threads, what is remembered, time, whom to tell, and how its lease is held."""

    executor: Executor
    remembered: Remembered
    now: Callable[[], datetime]
    on_progress: OnProgress
    stop_requested: Callable[[], bool]
    on_lost_record: Callable[[HoldfastError], None]
    holder_of: Callable[[RunId], Holder] = this_process
    lease_period_seconds: float = PERIOD_SECONDS


@dataclass(frozen=True, slots=True)
class BackupOrder:
    """What is wanted. ``wait`` waits for a live lease instead of giving up."""

    tier: Tier
    form: str
    lane: str
    wait: bool = False
    compression_level: int = 3


@dataclass(frozen=True, slots=True)
class BackupTaken:
    """A backup that exists, with what must be said about it."""

    record: BackupRecord
    notices: tuple[str, ...]

    @property
    def is_damaged(self) -> bool:
        return self.record.damage_total > 0


def new_id() -> str:
    return os.urandom(16).hex()


def take_backup(area: Area, source: Source, order: BackupOrder, around: Surroundings) -> BackupTaken:
    """Take a backup, or raise and leave none. What was uploaded before a failure is found again by the next one."""
    run, started_at = RunId(new_id()), around.now()
    try:
        taken = _take(area, source, order, around, run)
    except HoldfastError as error:
        outcome = "interrupted" if isinstance(error, Interrupted) else "failed"
        _put_run(area, around, run, started_at, _run_document(run, order, outcome, started_at, around.now(), error))
        raise
    outcome = "partly" if taken.is_damaged else "done"
    document = _run_document(run, order, outcome, started_at, around.now(), None)
    record = taken.record
    document["figures"] = {
        "backup": record.id,
        "size_bytes": record.size_bytes,
        "stored_bytes": record.stored_bytes,
        "entries": record.entries,
        "damage": record.damage_total,
    }
    document["messages"] = list[JsonValue](taken.notices)
    _put_run(area, around, run, started_at, document)
    return taken


def _take(area: Area, source: Source, order: BackupOrder, around: Surroundings, run: RunId) -> BackupTaken:
    lease = Lease(area, order.lane, around.holder_of(run), around.lease_period_seconds)
    lease.acquire(wait=order.wait, stop=around.stop_requested)
    with lease:
        offset = _store_offset(area, order.lane, around)
        notices = _clock_notices(offset)
        history = histories.read_history(area, around.executor, around.remembered)
        rules.may_write(history.state)
        area.catalog(source.kind, around.now())
        parent = _parent(area, history, order)
        if parent is None:
            order = replace(order, tier=Tier.FULL)  # whatever was asked for, the first one is a full one
        index = open_index(area, history.state.condemned, around.executor, writing=True)
        try:
            with _stopped_with(lease, around) as inside:
                captured, poured = _capture(area, source, order, inside, index, parent, history.state.identity)
            record = _record(area, order, run, parent, captured, poured)
            _commit(area, history, record, poured, offset, around)
            index.distrusted = frozenset(poured.distrusted)
            notices += _save_index(index)
        finally:
            index.close()
    return BackupTaken(record, (*notices, *_distrust_notices(poured), *captured.notices))


@contextmanager
def _stopped_with(lease: Lease, around: Surroundings) -> Iterator[Surroundings]:
    """Ask the work inside to stop once the lease is lost; whatever it did, raise then what lost it."""
    try:
        yield replace(around, stop_requested=lambda: lease.lost is not None or around.stop_requested())
    except Interrupted:
        lease.check()
        raise
    lease.check()


def _parent(area: Area, history: History, order: BackupOrder) -> BackupRecord | None:
    for entry in reversed(history.live_entries()):
        record = histories.record_of(area, entry)
        if record.form == order.form:
            return record
    return None


def _capture(
    area: Area,
    source: Source,
    order: BackupOrder,
    around: Surroundings,
    index: ChunkIndex,
    parent: BackupRecord | None,
    adopted: Facts | None,
) -> tuple[Captured, Poured]:
    expected = Identity(parent.kind, adopted or parent.identity) if parent is not None else None
    request = CaptureRequest(order.tier, expected, around.stop_requested)
    settings = PipelineSettings(level=order.compression_level)
    if order.tier is not Tier.FULL:
        settings = PipelineSettings(level=order.compression_level, sample=0.0)
    with Pipeline(area, index, settings, around.on_progress) as pipeline:
        captured = source.capture(request, pipeline)
        poured = pipeline.finish()
    return captured, poured


def _record(
    area: Area, order: BackupOrder, run: RunId, parent: BackupRecord | None, captured: Captured, poured: Poured
) -> BackupRecord:
    damage = tuple(DamageRow(item.path, item.count, item.detail) for item in captured.damage)
    return BackupRecord(
        id=BackupId(new_id()),
        application=area.application,
        source=area.source,
        kind=captured.identity.kind,
        form=order.form,
        tier=order.tier.value,
        parent=parent.id if parent is not None and order.tier is not Tier.FULL else None,
        started_at=captured.started_at,
        ended_at=captured.ended_at,
        run=run,
        host=socket.gethostname(),
        program=__version__,
        identity=tuple(sorted(captured.identity.facts)),
        position=captured.position,
        details=captured.details,
        tree=poured.tree,
        entries=poured.entries,
        size_bytes=poured.size_bytes,
        stored_bytes=poured.stored_bytes,
        damage=damage[:DAMAGE_ROWS_MAX],
        damage_total=sum(row.count for row in damage),
        notices=captured.notices,
    )


def _commit(
    area: Area, history: History, record: BackupRecord, poured: Poured, offset: float | None, around: Surroundings
) -> None:
    """Put the entry under rules 1 and 2: the backup exists from then on, and everything it needs was durable before."""
    sealed = area.seal_record(record)

    def decide(state: HistoryState) -> HistoryEntry:
        unusable = rules.unusable_packs(state, poured.packs, area.list_packs())
        if unusable:
            raise Conflict(
                f"{len(unusable)} of the packs this backup counts on are gone or about to go, "
                f"first {unusable[0].hex()[:12]}",
                hint="A prune ran meanwhile. Run the backup again: what is missing is stored anew.",
            )
        return HistoryEntry(
            number=0,
            kind=EntryKind.BACKUP,
            previous=None,
            host=record.host,
            run=record.run,
            at=around.now(),
            store_offset_seconds=offset,
            backups=(record.id,),
            record=sealed,
            log_ends=list_log(area).ends(),
        )

    histories.append(area, history, decide, around.remembered)


def _store_offset(area: Area, lane: str, around: Surroundings) -> float | None:
    """Return the store's clock minus ours, from the lease just put; good to a second or so."""
    info = area.store.head(names.lease(area.keys.area, lane))
    return round((info.modified_at - around.now()).total_seconds(), 3)


def _clock_notices(offset: float | None) -> tuple[str, ...]:
    if offset is None or abs(offset) <= CLOCK_OFFSET_SECONDS_MAX:
        return ()
    return (
        f"this machine's clock is {-offset:+.0f} s off the store's: the backup is sound, but its times are not to be "
        "trusted and retention will not run; set the clock",
    )


def _save_index(index: ChunkIndex) -> tuple[str, ...]:
    try:
        save_index(index)
    except HoldfastError as error:
        return (f"the index could not be saved ({error.message}); the next run reads the packs themselves",)
    return ()


def _distrust_notices(poured: Poured) -> tuple[str, ...]:
    return tuple(
        f"pack {name.hex()[:12]} was read back and is broken ({reason}); its chunks were stored again: run "
        "`holdfast check --read-data`"
        for name, reason in poured.distrusted.items()
    )


def _run_document(
    run: RunId, order: BackupOrder, outcome: str, started_at: datetime, ended_at: datetime, error: HoldfastError | None
) -> JsonObject:
    return {
        "id": run,
        "verb": "backup",
        "tier": order.tier.value,
        "form": order.form,
        "started_at": format_time(started_at),
        "ended_at": format_time(ended_at),
        "outcome": outcome,
        "exit_code": error.exit_code if error is not None else (3 if outcome == "partly" else 0),
        "figures": {},
        "messages": [],
        "error": {"kind": error.kind, "message": error.message, "hint": error.hint} if error is not None else None,
    }


def _put_run(area: Area, around: Surroundings, run: RunId, started_at: datetime, document: JsonObject) -> None:
    try:
        area.put_run(started_at, run, document)
    except HoldfastError as error:
        # The outcome of the run is what it is; only its record is missing, and that is said.
        around.on_lost_record(error)
