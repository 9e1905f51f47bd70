"""One application, by its configuration: backup, look, check, restore."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from holdfast import bootstrap
from holdfast.application import live
from holdfast.application import marks as marking
from holdfast.application.live import ServerRestoreOutcome, ServerRestorePlan
from holdfast.application.points import LATEST_POINT, PointWish, choose_point
from holdfast.application.results import (
    BackupOutcome,
    BackupSummary,
    EntryView,
    ReachedPoint,
    RestoreOutcome,
    RestorePlan,
)
from holdfast.application.targets import refuse_occupied
from holdfast.application.windows import SourceReach, reach_of_source, with_common
from holdfast.backup.taking import BackupOrder, Surroundings, take_backup
from holdfast.config.loading import load_config
from holdfast.config.settings import Config
from holdfast.model.documents import JsonObject
from holdfast.model.errors import ConfigInvalid, HoldfastError, IntegrityBroken
from holdfast.model.events import Progress
from holdfast.repository import history as histories
from holdfast.repository.area import Area
from holdfast.repository.checking import AreaReport, check_area, check_keys
from holdfast.repository.format.entry import Mark
from holdfast.repository.format.record import BackupRecord
from holdfast.repository.format.rules import HistoryState
from holdfast.repository.history import History
from holdfast.repository.index.lookup import open_index
from holdfast.repository.log.reading import StoredLog
from holdfast.repository.reading import ChunkReader, read_content, read_tree
from holdfast.repository.repository import Repository
from holdfast.restore.folder import Hands, RestoreOrder, restore_folder
from holdfast.sources.kinds import LANES, LOGICAL, PHYSICAL, Lane
from holdfast.sources.port import FolderTarget, Tier
from holdfast.storage.settled import Retry, ignore_retry

SOURCES_AT_ONCE_MAX = 8
IDS_TOLD_MAX = 10
LATEST = "latest"


def ignore_progress(_: str, __: Progress) -> None:
    """Watch nothing."""


@dataclass(frozen=True, slots=True)
class Watcher:
    """Whom a verb tells while it works, and who may stop it. Progress comes with the name of the source."""

    on_progress: Callable[[str, Progress], None] = ignore_progress
    on_retry: Callable[[Retry], None] = ignore_retry
    on_notice: Callable[[str], None] = lambda text: None
    on_step: Callable[[str], None] = lambda step: None
    stop_requested: Callable[[], bool] = lambda: False


@dataclass(frozen=True, slots=True)
class _Opened:
    repository: Repository
    tools: bootstrap.Tools


class Application:
    """The verbs for one configuration. Each opens what it needs and closes it again; may be used from a script.

    Raises what ``holdfast.model.errors`` names. ``repository`` chooses another repository than the first.
    """

    def __init__(self, config: Config, watcher: Watcher | None = None, repository: str | None = None) -> None:
        self.config = config
        self._watcher = watcher or Watcher()
        self._repository = config.repository(repository).name

    @contextmanager
    def _open(self) -> Iterator[_Opened]:
        with (
            bootstrap.opened_repository(self.config, self._repository, self._watcher.on_retry) as repository,
            bootstrap.tools(self.config.environment, self._watcher.on_notice) as tools,
        ):
            yield _Opened(repository, tools)

    def _names(self, sources: Sequence[str]) -> list[str]:
        for name in sources:
            self.config.source(name)
        return list(dict.fromkeys(sources)) or [source.name for source in self.config.sources]

    def _area(self, opened: _Opened, source: str) -> Area:
        return bootstrap.area_of(self.config, opened.repository, source)

    def _history(self, opened: _Opened, area: Area) -> History:
        """Read the history of an area; the error of a broken one names the backups that still restore by their id."""
        try:
            return histories.read_history(area, opened.tools.executor, opened.tools.remembered)
        except IntegrityBroken as error:
            readable = histories.look_at_history(area, opened.tools.executor).live_entries()
            if not readable:
                raise
            ids = ", ".join(entry.backups[0] for entry in readable[-IDS_TOLD_MAX:])
            raise IntegrityBroken(
                error.message,
                hint=f"{error.hint} What can be read restores by its id (--backup ID), newest last: {ids}.",
            ) from error

    # Backup

    def backup(
        self, sources: Sequence[str] = (), tier: Tier = Tier.INCREMENTAL, wait: bool = False
    ) -> list[BackupOutcome]:
        """Take a backup of each source named, or of all; return how each went, in the order of the configuration.

        A source that fails does not keep the others from theirs; its error is in its outcome. Raises only where
        nothing could be begun.
        """
        names = self._names(sources)
        if not names:
            raise ConfigInvalid("no source is configured", hint="Add one below `sources:` in the configuration.")
        with self._open() as opened, ThreadPoolExecutor(min(SOURCES_AT_ONCE_MAX, len(names))) as pool:
            work = [(name, lane) for name in names for lane in self._lanes(name)]
            return list(pool.map(lambda one: self._backup_one(opened, one, tier, wait), work))

    def _lanes(self, source: str) -> list[Lane]:
        return [LANES[form] for form in self.config.source(source).captures] or [PHYSICAL]

    def _backup_one(self, opened: _Opened, work: tuple[str, Lane], tier: Tier, wait: bool) -> BackupOutcome:
        source, lane = work
        begun = time.monotonic()
        watcher = self._watcher
        around = Surroundings(
            executor=opened.tools.executor,
            remembered=opened.tools.remembered,
            now=lambda: datetime.now(UTC),
            on_progress=lambda progress: watcher.on_progress(source, progress),
            stop_requested=watcher.stop_requested,
            on_lost_record=lambda error: watcher.on_notice(f"the run record was not kept: {error.message}"),
        )
        level = self.config.repository(self._repository).compression
        order = BackupOrder(tier, lane.form, lane.lane, wait, level)
        try:
            area = self._area(opened, source)
            taken = take_backup(area, bootstrap.source_of(self.config, source, lane.form), order, around)
        except HoldfastError as error:
            return BackupOutcome(source, None, (), (), error, time.monotonic() - begun)
        damage = tuple((row.path, row.count, row.detail) for row in taken.record.damage)
        summary = self._summary(taken.record, HistoryState())
        return BackupOutcome(source, summary, taken.notices, damage, None, time.monotonic() - begun)

    # Look

    def backups(self, sources: Sequence[str] = ()) -> list[BackupSummary]:
        """Return every backup of the sources named, or of all, newest last."""
        found: list[BackupSummary] = []
        with self._open() as opened:
            for name in self._names(sources):
                area = self._area(opened, name)
                history = self._history(opened, area)
                records = histories.live_records(area, history)
                found += [self._summary(record, history.state) for record in records]
        return sorted(found, key=lambda summary: summary.ended_at)

    def windows(self, sources: Sequence[str] = ()) -> list[SourceReach]:
        """Return the recovery window of each source named, or of all, and last the common one, named ``*``.

        Computed from listings, histories and a bounded number of spans.
        """
        found: list[SourceReach] = []
        with self._open() as opened:
            for name in self._names(sources):
                area = self._area(opened, name)
                history = self._history(opened, area)
                log = StoredLog(area, opened.tools.executor)
                reach = reach_of_source(histories.live_records(area, history), history.state, log)
                found.append(SourceReach(name, reach))
        return with_common(found)

    def _summary(self, record: BackupRecord, state: HistoryState) -> BackupSummary:
        keep = getattr(self.config.source(record.source).policy, record.tier).keep
        is_held = record.id in state.held
        return BackupSummary(
            id=record.id,
            source=record.source,
            kind=record.kind,
            tier=record.tier,
            form=record.form,
            started_at=record.started_at,
            ended_at=record.ended_at,
            size_bytes=record.size_bytes,
            stored_bytes=record.stored_bytes,
            verified=record.id in state.verified and not record.damage_total,
            held=is_held,
            expires_at=None if is_held or keep is None else record.ended_at + keep,
            position=record.position,
            damaged=record.damage_total,
            parent=record.parent,
        )

    def _find(
        self, opened: _Opened, backup: str, sources: Sequence[str], forms: Sequence[str] = ()
    ) -> tuple[Area, BackupRecord, History]:
        """Find one backup by its id, an unambiguous beginning of it, or ``latest`` (of the first form that has any)."""
        found: list[tuple[Area, BackupRecord, History]] = []
        for name in self._names(sources):
            area = self._area(opened, name)
            # Whoever names a backup gets it from a broken history too; which is the latest, such a one cannot tell.
            if backup == LATEST:
                history = self._history(opened, area)
            else:
                history = histories.look_at_history(area, opened.tools.executor)
                for message in history.breaks:
                    self._watcher.on_notice(f"the history of {area.title} is broken: {message}; run `holdfast check`")
            for entry in history.live_entries():
                if backup == LATEST or entry.backups[0].startswith(backup):
                    found.append((area, histories.record_of(area, entry), history))
        if backup == LATEST and forms:
            found = next((chosen for form in forms if (chosen := [one for one in found if one[1].form == form])), [])
        if backup == LATEST and found:
            areas = {area.source for area, _, _ in found}
            if len(areas) > 1:
                raise ConfigInvalid(
                    f"latest of which source? {', '.join(sorted(areas))} have backups",
                    hint="Name the source, or give the backup's id as `holdfast backups` lists it.",
                )
            return found[-1]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(sorted(record.id[:12] for _, record, _ in found)[:5])
            raise ConfigInvalid(
                f"{backup} is the beginning of {len(found)} backups: {ids}", hint="Give more of the id."
            )
        whose = f" of {', '.join(sources)}" if sources else ""
        if backup == LATEST:
            raise ConfigInvalid(f"there is no backup{whose} yet", hint="Make one with `holdfast backup`.")
        raise ConfigInvalid(f"there is no backup {backup}{whose}", hint="`holdfast backups` lists those there are.")

    def ls(self, backup: str, path: str = "", sources: Sequence[str] = ()) -> tuple[BackupSummary, list[EntryView]]:
        """Return a backup and its entries below ``path`` (all for the empty one), in the order of the capture."""
        with self._open() as opened:
            area, record, history = self._find(opened, backup, sources)
            with _reader(area, opened) as reader:
                prefix = path.strip("/")
                views = [
                    EntryView(
                        entry.path,
                        entry.type,
                        entry.mode,
                        entry.ref.size if entry.ref is not None else 0,
                        entry.modified_at,
                        entry.link,
                    )
                    for entry in read_tree(reader, record, opened.tools.executor)
                    if not prefix or entry.path == prefix or entry.path.startswith(prefix + "/")
                ]
        if prefix and not views:
            raise ConfigInvalid(f"backup {record.id} holds no {prefix}", hint=f"See `holdfast ls {record.id[:12]}`.")
        return self._summary(record, history.state), views

    def cat(self, backup: str, path: str, sources: Sequence[str] = ()) -> Iterator[bytes]:
        """Yield the content of one file of a backup, verified piece by piece."""
        with self._open() as opened:
            area, record, _ = self._find(opened, backup, sources)
            executor = opened.tools.executor
            with _reader(area, opened) as reader:
                wanted = path.strip("/")
                for entry in read_tree(reader, record, executor):
                    if entry.path == wanted and entry.ref is not None:
                        yield from read_content(reader, entry.ref, executor)
                        return
                raise ConfigInvalid(
                    f"backup {record.id} holds no file {wanted}", hint=f"See `holdfast ls {record.id[:12]}`."
                )

    def runs(self, sources: Sequence[str] = ()) -> list[JsonObject]:
        """Return the records of all runs, oldest first, each with its source."""
        found: list[JsonObject] = []
        with self._open() as opened:
            for name in self._names(sources):
                found += [{**document, "source": name} for document in self._area(opened, name).runs()]
        return sorted(found, key=lambda document: str(document["started_at"]))

    def check(self, read_percent: float | None = None, sources: Sequence[str] = ()) -> list[AreaReport]:
        """Check the areas of the sources named, or of all; what is broken is in the reports.

        Keys and identity are looked at too, and have a report where something is wrong with them.
        """
        with self._open() as opened:
            reports = []
            for name in self._names(sources):
                reports.append(
                    check_area(
                        self._area(opened, name),
                        opened.tools.executor,
                        opened.tools.remembered,
                        partial(self._watcher.on_progress, name),
                        read_percent,
                    )
                )
            keys = check_keys(opened.repository.store)
        return [*reports, keys] if keys.findings else reports

    # Restore

    def plan_restore(
        self,
        source: str | None = None,
        backup: str = "latest",
        into: Path | None = None,
        locations: Sequence[tuple[str, Path]] = (),
        delta: bool = False,
        point: PointWish = LATEST_POINT,
    ) -> RestorePlan:
        """Decide what a restore into a folder will do; nothing is written.

        ``source`` None finds the backup among all sources, ``into`` None names a dated folder here. Without a ``point``
        the latest backup means the latest moment that the stored log reaches. Raises ``ConfigInvalid`` for a target
        that is not empty (unless ``delta``) or cannot be one, and for a moment that cannot be reached; ``Conflict`` for
        a folder that a server runs on.
        """
        with self._open() as opened:
            area, record, history, reached = self._choose(opened, source, backup, (PHYSICAL.form,), point)
            summary = self._summary(record, history.state)
        if record.form != PHYSICAL.form:
            raise ConfigInvalid(
                f"backup {record.id} is a {record.form} one: it is loaded into a server, not into a folder",
                hint="Name a server with --into postgresql://..., or choose a physical backup.",
            )
        folder = into or Path.cwd() / f"{area.source}_restored_{datetime.now(UTC):%Y%m%dt%H%M%S}"
        target = FolderTarget(folder.absolute(), tuple(locations))
        bootstrap.refill_of(record.kind).refuse_target(target)
        places = bootstrap.places_of(record.kind, target, record.details)
        if not delta:
            for place in (target.folder, *(new for _, new in places)):
                refuse_occupied(place)
        return RestorePlan(area.source, summary, target.folder, delta, target.locations, places, reached)

    def _choose(
        self, opened: _Opened, source: str | None, backup: str, forms: Sequence[str], point: PointWish
    ) -> tuple[Area, BackupRecord, History, ReachedPoint | None]:
        """Find the backup to restore, by its id or by the point in time that is wanted, and what is reached."""
        wanted = [source] if source is not None else []
        if backup != LATEST:
            if not point.is_default:
                raise ConfigInvalid(
                    "a backup and a moment are two different things to restore",
                    hint="Leave --backup out: the newest backup before the moment is chosen.",
                )
            return (*self._find(opened, backup, wanted, forms), None)
        names = self._names(wanted)
        if len(names) == 1 and (PHYSICAL.form in forms[:1] or not point.is_default):
            area = self._area(opened, names[0])
            history = self._history(opened, area)
            log = StoredLog(area, opened.tools.executor)
            chosen = choose_point(histories.live_records(area, history), history.state.marks, log, point)
            if chosen is not None:
                return area, chosen.record, history, chosen.reached
        elif not point.is_default:
            raise ConfigInvalid(
                f"whose moment? {', '.join(names)} are configured", hint="Name the source that is to be restored."
            )
        return (*self._find(opened, backup, wanted, forms), None)

    def restore_server(
        self,
        agree: Callable[[ServerRestorePlan], bool],
        source: str | None = None,
        backup: str = "latest",
        place: live.ServerPlace | None = None,
        point: PointWish = LATEST_POINT,
    ) -> ServerRestoreOutcome | None:
        """Restore into a running server: plan, ask ``agree``, load, compare; None where it did not agree.

        A logical backup is preferred to a physical one, which is started in a sandbox first. A ``point`` in time is
        always one of a physical backup and the log behind it, replayed there. What differs from the
        witness is in the outcome; nothing live is dropped.
        """
        wanted = place or live.ServerPlace()
        with self._open() as opened:
            forms = (LOGICAL.form, PHYSICAL.form)
            area, record, history, reached = self._choose(opened, source, backup, forms, point)
            target, address = bootstrap.server_target(self.config, area.source, wanted.into, wanted.only)
            target = replace(
                target, in_place=wanted.in_place, into_table=wanted.into_table, with_passwords=wanted.with_passwords
            )
            order = live.ServerOrder(self._summary(record, history.state), target, address, agree, reached)
            return live.restore_into_server(area, record, order, self._means(opened, area.source))

    # Marks and identity

    def mark(self, name: str, sources: Sequence[str] = ()) -> list[marking.MarkOutcome]:
        """Take the position of each source named, or of all, under a name; return how each went.

        Does not wait for the log to be stored. Raises ``ConfigInvalid`` or ``AlreadyExists`` for the name.
        """
        names = self._names(sources)
        with self._open() as opened:
            return marking.take_marks({name: self._writer(opened, name) for name in names}, name)

    def marks(self, sources: Sequence[str] = ()) -> list[tuple[str, Mark]]:
        """Return the marks of the sources named, or of all, each with its source, oldest first."""
        found: list[tuple[str, Mark]] = []
        with self._open() as opened:
            for source in self._names(sources):
                state = self._history(opened, self._area(opened, source)).state
                found += [(source, mark) for mark in state.marks]
        return sorted(found, key=lambda item: item[1].at)

    def adopt(self, source: str, agree: Callable[[marking.Adoption], bool]) -> marking.Adoption:
        """Accept the server's new identity (pg_upgrade, a new cluster) if it has one and ``agree`` says so."""
        with self._open() as opened:
            writer = self._writer(opened, *self._names([source]))
            adoption = marking.adoption_of(writer)
            if adoption.is_new and agree(adoption):
                marking.adopt(writer, adoption)
        return adoption

    def _writer(self, opened: _Opened, source: str) -> marking.Writer:
        return marking.Writer(self.config, self._area(opened, source), opened.tools)

    def _means(self, opened: _Opened, source: str) -> live.Means:
        watcher = self._watcher
        return live.Means(
            opened.tools,
            lambda progress: watcher.on_progress(source, progress),
            watcher.on_step,
            watcher.on_notice,
            watcher.stop_requested,
        )

    def restore(self, plan: RestorePlan) -> RestoreOutcome:
        """Carry out a plan. An unfinished target does not start; run it again with ``delta`` to finish it."""
        begun = time.monotonic()
        watcher = self._watcher
        with self._open() as opened:
            area, record, _ = self._find(opened, plan.backup.id, [plan.source])
            log = StoredLog(area, opened.tools.executor) if plan.point is not None else None
            done = restore_folder(
                area,
                record,
                bootstrap.refill_of(record.kind, plan.point.target if plan.point is not None else None),
                RestoreOrder(FolderTarget(plan.target, plan.locations), plan.delta, log),
                Hands(
                    opened.tools.executor,
                    lambda progress: watcher.on_progress(plan.source, progress),
                    watcher.stop_requested,
                ),
            )
        return RestoreOutcome(
            replace(plan, backup=plan.backup),
            done.files,
            done.written.size_bytes,
            done.written.written_bytes,
            done.written.kept_bytes,
            done.removed,
            time.monotonic() - begun,
            done.notes,
        )


@contextmanager
def _reader(area: Area, opened: _Opened) -> Iterator[ChunkReader]:
    index = open_index(area, frozenset(), opened.tools.executor)
    try:
        yield ChunkReader(area, index)
    finally:
        index.close()


def open_application(
    path: Path | str | None = None,
    environment: Mapping[str, str] = os.environ,
    watcher: Watcher | None = None,
    repository: str | None = None,
) -> Application:
    """Load a configuration and return its verbs. ``path`` None looks in the usual places."""
    return Application(load_config(Path(path) if path is not None else None, environment), watcher, repository)
