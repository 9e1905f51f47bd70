"""Following the change logs of sources into repositories, each on a thread of its own, until asked to stop."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import Event, Thread

from holdfast import bootstrap
from holdfast.application.application import Application, Watcher
from holdfast.application.known import known_of
from holdfast.backup.following import Acknowledge, LogSettings, LogSurroundings, RepositoryLog, open_log
from holdfast.config.settings import Config
from holdfast.model.errors import ConfigInvalid, HoldfastError, Interrupted
from holdfast.repository.area import Area
from holdfast.repository.format.names import RunId
from holdfast.sources.kinds import CAPTURED_KINDS, LANES, PHYSICAL
from holdfast.sources.port import Tier
from holdfast.storage.settled import RetryPolicy

STORE_POLICY = RetryPolicy(tries_max=3, waits_seconds_max=5.0, elapsed_seconds_max=60.0)
"""The log itself goes on trying for ever: a single put must not keep following from ending."""
POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class FollowOrder:
    """What is followed, and where to: the repositories named, or the first one.

    ``base`` has a source that has no physical backup yet be backed up once its log is held back and stored.
    """

    sources: tuple[str, ...] = ()
    repositories: tuple[str, ...] = ()
    acknowledge: Acknowledge = Acknowledge.ALL
    base: bool = True
    wait: bool = False


@dataclass(frozen=True, slots=True)
class FollowOutcome:
    """How following one source ended. ``error`` None: because it was asked to."""

    source: str
    stored_bytes: int
    spans: int
    error: HoldfastError | None


def names_to_follow(config: Config, sources: Sequence[str]) -> list[str]:
    """Return the sources named, or all whose log can be followed and is meant to be; raises ``ConfigInvalid``."""
    named = [config.source(name) for name in dict.fromkeys(sources)]
    for source in named:
        if source.kind not in CAPTURED_KINDS or PHYSICAL.form not in (source.captures or (PHYSICAL.form,)):
            raise ConfigInvalid(
                f"source {source.name} has no log that is followed",
                hint="The log belongs to physical backups of PostgreSQL: capture: [physical].",
            )
    found = named or [
        source
        for source in config.sources
        if source.kind in CAPTURED_KINDS and source.policy.log.follow and PHYSICAL.form in (source.captures or LANES)
    ]
    if not found:
        raise ConfigInvalid(
            "no source has a log to follow", hint="Set `log: {follow: true}` for a source with physical backups."
        )
    return [source.name for source in found]


class Following:
    """Follows sources of one configuration, until the watcher asks to stop."""

    def __init__(self, config: Config, watcher: Watcher, order: FollowOrder) -> None:
        self._config = config
        self._watcher = watcher
        self._order = order

    def run(self) -> list[FollowOutcome]:
        """Follow every source until asked to stop; one that fails does not end the others. Return how each ended."""
        names = names_to_follow(self._config, self._order.sources)
        with ThreadPoolExecutor(len(names), thread_name_prefix="follow") as pool:
            return list(pool.map(self._follow, names))

    def _follow(self, source: str) -> FollowOutcome:
        figures = [0, 0]
        error: HoldfastError | None = None
        try:
            with ExitStack() as stack:
                self._follow_one(source, stack, figures)
        except Interrupted:
            pass
        except HoldfastError as caught:
            error = caught
            self._watcher.on_notice(f"{source}: no longer followed: {caught.message}. {caught.hint}")
        return FollowOutcome(source, figures[0], figures[1], error)

    def _follow_one(self, source: str, stack: ExitStack, figures: list[int]) -> None:
        config, watcher = self._config, self._watcher
        followed = bootstrap.followed_source(config, source)
        tools = stack.enter_context(bootstrap.tools(config.environment, watcher.on_notice))
        areas = [self._area(name, source, stack) for name in self._order.repositories or (config.repository().name,)]
        known = known_of(areas[0], tools, followed.kind)
        around = LogSurroundings(
            executor=tools.executor,
            run=RunId(os.urandom(16).hex()),
            now=lambda: datetime.now(UTC),
            on_notice=lambda text: watcher.on_notice(f"{source}: {text}"),
            stop_requested=watcher.stop_requested,
        )
        log = stack.enter_context(open_log(areas, around, self._settings(source)))
        for area in areas:
            area.catalog(followed.kind, around.now())
        ended = Event()
        if self._order.base and not known.has_base:
            base = Thread(target=self._take_base, args=(source, log, ended), name="follow-base", daemon=True)
            base.start()
            stack.callback(base.join)
        try:
            followed.follow(
                log, watcher.stop_requested, around.on_notice, slot=self._slot(source), expected=known.identity
            )
        finally:
            ended.set()
            figures[:] = [log.figures.stored_bytes, log.figures.spans]

    def _area(self, repository: str, source: str, stack: ExitStack) -> Area:
        opened = bootstrap.opened_repository(self._config, repository, self._watcher.on_retry, STORE_POLICY)
        return bootstrap.area_of(self._config, stack.enter_context(opened), source)

    def _settings(self, source: str) -> LogSettings:
        policy = self._config.source(source).policy.log
        level = self._config.repository(self._order.repositories[0] if self._order.repositories else None).compression
        return LogSettings(
            flush_seconds=policy.flush.total_seconds(),
            level=level,
            acknowledge=self._order.acknowledge,
            wait_for_lease=self._order.wait,
        )

    def _slot(self, source: str) -> str:
        from holdfast.sources.postgres.follow.slots import slot_name

        return slot_name(self._config.application, source)

    def _take_base(self, source: str, log: RepositoryLog, ended: Event) -> None:
        """Take the first backup, once the log is held back and stored: so no moment after it is uncovered."""
        while not log.durable:
            if ended.wait(POLL_SECONDS):
                return
        watcher = replace(self._watcher, stop_requested=lambda: ended.is_set() or self._watcher.stop_requested())
        repository = self._order.repositories[0] if self._order.repositories else None
        try:
            [*outcomes] = Application(self._config, watcher, repository).backup([source], Tier.FULL, wait=True)
        except HoldfastError as error:
            watcher.on_notice(f"{source}: no first base backup: {error.message}. {error.hint}")
            return
        for outcome in outcomes:
            told = outcome.error.message if outcome.error else f"{outcome.summary.id}" if outcome.summary else ""
            watcher.on_notice(f"{source}: first base backup: {told}")
