"""What the verbs return: plain values, ready to be printed or looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.model.errors import HoldfastError
from holdfast.sources.port import Finding

if TYPE_CHECKING:
    from holdfast.sources.postgres.locate import Target


@dataclass(frozen=True, slots=True)
class BackupSummary:
    """One backup in a list. Sizes in bytes, times aware UTC; ``expires_at`` None means held or kept for ever."""

    id: str
    source: str
    kind: str
    tier: str
    form: str
    started_at: datetime
    ended_at: datetime
    size_bytes: int
    stored_bytes: int
    verified: bool
    held: bool
    expires_at: datetime | None
    position: str
    damaged: int
    parent: str | None


@dataclass(frozen=True, slots=True)
class BackupOutcome:
    """How the backup of one source went: ``summary`` where there is one, ``error`` where there is none."""

    source: str
    summary: BackupSummary | None
    notices: tuple[str, ...]
    damage: tuple[tuple[str, int, str], ...]
    error: HoldfastError | None
    duration_seconds: float


@dataclass(frozen=True, slots=True)
class ReachedPoint:
    """A point in time as a restore will reach it: before the record at ``position``, or (``is_inclusive``) after it.

    ``asked`` is what for, in words, with ``at`` where that was a time. The transaction is the last one that is there,
    by the server's clock; None where the log near the point holds none. ``log_bytes`` is what is taken of the log.
    """

    asked: str
    at: datetime | None
    position: str
    is_inclusive: bool
    timeline: int
    transaction_at: datetime | None
    transaction_xid: int | None
    log_bytes: int
    notes: tuple[str, ...]
    target: Target = field(repr=False)


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What a restore will do, before it does it. ``places``: where tablespaces go, from where they were to where.

    ``point`` None is the backup itself, as it was when it ended.
    """

    source: str
    backup: BackupSummary
    target: Path
    delta: bool
    locations: tuple[tuple[str, Path], ...]
    places: tuple[tuple[str, Path], ...] = ()
    point: ReachedPoint | None = None


@dataclass(frozen=True, slots=True)
class RestoreOutcome:
    """What a restore did. Bytes: of the target, written, and found right already (delta)."""

    plan: RestorePlan
    files: int
    size_bytes: int
    written_bytes: int
    kept_bytes: int
    removed: int
    duration_seconds: float
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TopicFindings:
    """What ``doctor`` found about one thing: a repository, a source, the configuration."""

    subject: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class EntryView:
    """One entry of a backup, for ``ls``. ``modified_at`` in whole seconds since 1970."""

    path: str
    type: str
    mode: int | None
    size_bytes: int
    modified_at: int | None
    link: str | None


@dataclass(frozen=True, slots=True)
class SlotView:
    """One key slot. ``opens`` is whether the secret at hand opens it; ``label`` is known only then."""

    id: str
    kind: str
    scope: str
    created_at: datetime
    opens: bool
    label: str | None
    epochs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RepositoryView:
    """A repository after ``init``: its name in the configuration, its address, its id, whether it was made now."""

    name: str
    url: str
    id: str
    made: bool


@dataclass(frozen=True, slots=True)
class InitOutcome:
    """What ``init`` did, and the recovery kit's text. ``key_file`` is the one that was generated, if any."""

    config_path: Path
    config_written: bool
    repositories: tuple[RepositoryView, ...]
    key_file: Path | None
    notices: tuple[str, ...]
    kit: str


@dataclass(frozen=True, slots=True)
class KeyOutcome:
    """What a change of key slots did. ``failures`` are the other copies that could not be brought along."""

    slots: tuple[str, ...]
    epoch: int
    left_behind: tuple[str, ...]
    notices: tuple[str, ...]
    failures: tuple[tuple[str, HoldfastError], ...]
