"""What an application promises itself: schedules, how long things are kept, and the objectives."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from holdfast.model.schedules import Schedule, parse_schedule


@dataclass(frozen=True, slots=True)
class TierPolicy:
    """When backups of a tier are made, how long they are kept, and what a restore from them may take and lose."""

    schedule: Schedule
    keep: timedelta
    rto: timedelta
    rpo: timedelta


@dataclass(frozen=True, slots=True)
class LogPolicy:
    """How a change log is followed; ``flush`` is the age at which the oldest unstored byte is stored."""

    follow: bool
    flush: timedelta
    keep: timedelta
    rto: timedelta
    rpo: timedelta


@dataclass(frozen=True, slots=True)
class DrillPolicy:
    """When a restore is tried for real."""

    schedule: Schedule


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything promised for one source. ``copies``, ``media`` and ``offsite`` are the 3-2-1 rule."""

    full: TierPolicy
    incremental: TierPolicy
    log: LogPolicy
    snapshot: TierPolicy
    drill: DrillPolicy
    copies: int
    media: int
    offsite: int


DEFAULT_POLICY = Policy(
    full=TierPolicy(parse_schedule("weekly"), keep=timedelta(days=30), rto=timedelta(hours=4), rpo=timedelta(hours=24)),
    incremental=TierPolicy(
        parse_schedule("daily"), keep=timedelta(days=14), rto=timedelta(hours=2), rpo=timedelta(hours=24)
    ),
    log=LogPolicy(
        follow=True,
        flush=timedelta(seconds=5),
        keep=timedelta(days=7),
        rto=timedelta(minutes=15),
        rpo=timedelta(minutes=15),
    ),
    snapshot=TierPolicy(
        parse_schedule("hourly"), keep=timedelta(hours=48), rto=timedelta(minutes=30), rpo=timedelta(hours=1)
    ),
    drill=DrillPolicy(parse_schedule("daily")),
    copies=3,
    media=2,
    offsite=1,
)
"""What holds where the file says nothing."""
