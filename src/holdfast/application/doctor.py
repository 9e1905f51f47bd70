"""Looks at everything an application's protection rests on, and says what is wrong and what to do (``doctor``)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from holdfast import bootstrap
from holdfast.application.results import TopicFindings
from holdfast.config.addresses import folder_of
from holdfast.config.findings import objectives_findings, secret_findings
from holdfast.config.settings import Config, RepositoryConfig
from holdfast.model.errors import HoldfastError, NotFound
from holdfast.repository.format.names import RepositoryId
from holdfast.repository.repository import open_repository, read_identity
from holdfast.sandbox.programs import postgres_programs
from holdfast.sources.kinds import CAPTURED_KINDS, PHYSICAL
from holdfast.sources.port import Finding, Severity
from holdfast.storage.clock import measure_clock
from holdfast.storage.port import Store
from holdfast.storage.race import probe_race
from holdfast.storage.settled import Retry, RetryPolicy, ignore_retry

PROBES_AT_ONCE_MAX = 8
POLICY = RetryPolicy(tries_max=3, waits_seconds_max=5.0)
"""Somebody waits for the answer, and an unreachable store is one."""

CLOCK_SECONDS_NOTICE = 30.0
CLOCK_SECONDS_WARNING = 300.0
"""From here on retention does not run (docs/format.md)."""

FREE_BYTES_MIN = 1 << 30
FREE_PERCENT_MIN = 5


@dataclass(frozen=True, slots=True)
class _Looked:
    findings: TopicFindings
    id: RepositoryId | None = None


def diagnose(config: Config, on_retry: Callable[[Retry], None] = ignore_retry) -> tuple[TopicFindings, ...]:
    """Return what was found about the configuration, every repository and every source, trouble being findings.

    Writes only below ``volatile/probe/`` of repositories that exist, and removes it again.
    """
    with ThreadPoolExecutor(PROBES_AT_ONCE_MAX, thread_name_prefix="doctor") as pool:
        sources = pool.map(lambda source: _look_at_source(config, source.name, source.kind), config.sources)
        looked = [_look_at_repository(config, repository, on_retry) for repository in config.repositories]
        own = [*secret_findings(config), *objectives_findings(config), *_same_identity(config, looked)]
        if not own:
            own = [Finding("file", Severity.OK, f"{config.path} is sound")]
        return (
            TopicFindings("configuration", tuple(own)),
            *(found.findings for found in looked),
            *sources,
        )


def _same_identity(config: Config, looked: list[_Looked]) -> Iterator[Finding]:
    first = next((found.id for found in looked if found.id is not None), None)
    for repository, found in zip(config.repositories, looked, strict=True):
        if found.id not in {None, first}:
            yield Finding(
                "repositories",
                Severity.BROKEN,
                f"{repository.name} holds another repository than {config.repositories[0].name}",
                "All repositories of one configuration are copies of one; give this one an empty place, then run "
                "`holdfast init`.",
            )


def _look_at_repository(config: Config, repository: RepositoryConfig, on_retry: Callable[[Retry], None]) -> _Looked:
    subject = f"repository {repository.name}"
    try:
        store = bootstrap.store_of(config, repository.name, on_retry, POLICY)
    except HoldfastError as error:
        return _Looked(TopicFindings(subject, (_broken("store", error),)))
    try:
        found, _ = read_identity(store)
    except HoldfastError as error:
        store.close()
        return _Looked(TopicFindings(subject, (_broken("repository", error),)))
    try:
        findings = [
            Finding("repository", Severity.OK, f"{found.hex()} at {store.url}"),
            *_tried("key", lambda: _key(config, store)),
            *_tried("writers", lambda: _race(store)),
            *_tried("clock", lambda: _clock(store)),
            *_space(repository),
        ]
    finally:
        store.close()
    return _Looked(TopicFindings(subject, tuple(findings)), found)


def _key(config: Config, store: Store) -> Iterator[Finding]:
    opened = open_repository(store, bootstrap.unlocks_of(config))
    whole = opened.keys.roots is not None
    scope = "the whole repository" if whole else f"only {opened.keys.application}/{opened.keys.source}"
    yield Finding("key", Severity.OK if whole else Severity.NOTICE, f"the secret at hand opens {scope}")
    for trouble in opened.trouble:
        yield Finding("key", Severity.WARNING, trouble.message, trouble.hint)


def _race(store: Store) -> Iterator[Finding]:
    found = probe_race(store)
    if found.sound:
        yield Finding("writers", Severity.OK, f"of {found.threads} writers of one name one wins, {found.rounds} times")
    else:
        hint = "Let a single writer use it, or move to a store that honours If-None-Match."
        yield Finding("writers", Severity.BROKEN, found.problem, hint)


def _clock(store: Store) -> Iterator[Finding]:
    measured = measure_clock(store)
    offset = measured.offset_seconds
    # What the measuring itself may be wrong by is no fault of the clock.
    sure = max(0.0, abs(offset) - measured.uncertainty_seconds)
    severity = Severity.OK
    if sure > CLOCK_SECONDS_NOTICE:
        severity = Severity.WARNING if sure > CLOCK_SECONDS_WARNING else Severity.NOTICE
    hint = "" if severity is Severity.OK else "Set this machine's clock (NTP); beyond 5 minutes retention does not run."
    yield Finding("clock", severity, f"the store's clock is {offset:+.1f} s from this machine's", hint)


def _space(repository: RepositoryConfig) -> Iterator[Finding]:
    folder = folder_of(repository.url)
    if folder is None:
        return
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        yield Finding("space", Severity.WARNING, f"free space below {folder} cannot be told: {error.strerror}")
        return
    percent = 100 * usage.free / usage.total if usage.total else 0.0
    little = usage.free < FREE_BYTES_MIN or percent < FREE_PERCENT_MIN
    yield Finding(
        "space",
        Severity.WARNING if little else Severity.OK,
        f"{usage.free / (1 << 30):.1f} GiB free ({percent:.0f} %)",
        "A backup that meets a full disk fails; make room, or move the repository." if little else "",
    )


def _look_at_source(config: Config, name: str, kind: str) -> TopicFindings:
    subject = f"source {name}"
    if kind not in CAPTURED_KINDS:
        message = f"sources of kind {kind} are not backed up by this release"
        return TopicFindings(
            subject, (Finding("kind", Severity.WARNING, message, "Protect it by other means as yet."),)
        )
    findings: list[Finding] = []
    for form in config.source(name).captures or (PHYSICAL.form,):
        try:
            findings += bootstrap.source_of(config, name, form).probe().findings
        except HoldfastError as error:
            findings.append(_broken("connection", error))
    findings += _sandbox(config, name)
    return TopicFindings(subject, tuple(findings))


def _sandbox(config: Config, name: str) -> Iterator[Finding]:
    """Look whether this machine can start a copy of the cluster: parts of physical backups come from one."""
    try:
        used = bootstrap.extensions_of(config, name)
    except HoldfastError:
        return  # The probe has told it.
    try:
        programs = postgres_programs(used.major)
    except NotFound as error:
        message = f"{error.message}: parts of physical backups cannot be restored from here"
        yield Finding("sandbox", Severity.NOTICE, message, error.hint)
        return
    lacking = [each for each in used.names if each not in programs.extensions]
    here = f"PostgreSQL {programs.version} of this machine"
    if not lacking:
        yield Finding("sandbox", Severity.OK, f"{here} has every extension in use")
        return
    message = f"{here} lacks extensions that the databases use: {', '.join(lacking)}"
    hint = f"Install their packages here (postgresql-{used.major}-..., postgresql-contrib): without them a copy of the "
    yield Finding("sandbox", Severity.WARNING, message, hint + "cluster starts, and whatever uses them fails.")


def _tried(topic: str, look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    try:
        return list(look())
    except HoldfastError as error:
        return [_broken(topic, error)]


def _broken(topic: str, error: HoldfastError) -> Finding:
    return Finding(topic, Severity.BROKEN, error.message, error.hint)
