"""What doctor says of following the log: our slots, what they hold back, who waits for us, the server archiver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.model.errors import Denied, SourceFailed
from holdfast.sources.port import Finding, Severity
from holdfast.sources.postgres.connection import Row, Session
from holdfast.sources.postgres.follow.keeper import own_name
from holdfast.sources.postgres.follow.standby_names import parse_standby_names
from holdfast.sources.postgres.server import parse_size
from holdfast.sources.postgres.settings import PostgresSettings

OK, NOTICE, WARNING = Severity.OK, Severity.NOTICE, Severity.WARNING
RETAINED_BYTES_WARNED = 16 << 30
"""So much held back by one slot is told, whatever the server's own limit is."""
RETAINED_PART_WARNED = 0.5
SLOT_PREFIX = "holdfast"

_SLOTS = """
SELECT slot_name, active::int::text, coalesce(wal_status, ''),
       coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                                     ELSE pg_current_wal_insert_lsn() END, restart_lsn), 0)::bigint::text
FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary ORDER BY slot_name"""
_ARCHIVER = """
SELECT failed_count::text, archived_count::text, coalesce(last_failed_wal, ''),
       (last_failed_time > coalesce(last_archived_time, '-infinity'))::int::text FROM pg_stat_archiver"""


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """One physical slot. ``retained_bytes`` is the log that it keeps on the server's disk."""

    name: str
    active: bool
    status: str
    retained_bytes: int

    @property
    def is_ours(self) -> bool:
        return self.name.startswith(SLOT_PREFIX)


@dataclass(frozen=True, slots=True)
class LogFacts:
    """What following a server's log depends on. None is unknown; ``keep_bytes`` None is without a limit."""

    slots: tuple[SlotFacts, ...]
    keep_bytes: int | None
    idle_timeout: str
    standby_names: str
    own_name: str
    archiver_failures: int | None
    archiver_failing: bool


def read_log_facts(session: Session, settings: PostgresSettings) -> LogFacts:
    """Ask an SQL session; what the role may not see stays unknown."""
    limit = session.show("max_slot_wal_keep_size") or "-1"
    archiver = _rows(session, _ARCHIVER)
    return LogFacts(
        slots=tuple(
            SlotFacts(str(row[0]), row[1] == "1", str(row[2]), int(row[3] or 0)) for row in _rows(session, _SLOTS)
        ),
        keep_bytes=None if limit == "-1" else parse_size(limit),
        idle_timeout=session.show("idle_replication_slot_timeout") or "0",
        standby_names=session.show("synchronous_standby_names") or "",
        own_name=own_name(settings),
        archiver_failures=int(archiver[0][0] or 0) if archiver else None,
        archiver_failing=bool(archiver) and archiver[0][3] == "1",
    )


def judge_log(facts: LogFacts) -> Iterator[Finding]:
    """Yield the findings, in the order people read them. Pure. A failing archiver is judged with the archiving."""
    for slot in facts.slots:
        if slot.is_ours:
            yield _judge_slot(slot, facts.keep_bytes)
    if facts.idle_timeout not in ("0", ""):
        yield Finding(
            "slots",
            NOTICE,
            f"idle_replication_slot_timeout is {facts.idle_timeout}: a follower that is away longer leaves a gap",
            "set it to 0, or well above the longest time that holdfast may be down",
        )
    names = parse_standby_names(facts.standby_names)
    if names is not None and names.names_one(facts.own_name):
        yield Finding(
            "commits",
            WARNING,
            f"synchronous_standby_names ({facts.standby_names}) names holdfast ({facts.own_name}): commits wait until "
            "their log is stored in the repository, and hang while it is away",
            "this gives RPO 0; if it is not meant, give the standbys' own names, or another application_name here",
        )


def _judge_slot(slot: SlotFacts, keep_bytes: int | None) -> Finding:
    held = f"slot {slot.name} holds {slot.retained_bytes / 1024**2:.0f} MiB of log back"
    if slot.status == "lost":
        return Finding(
            "slots",
            WARNING,
            f"slot {slot.name} was lost: the server removed log that was not stored, there is a gap",
            "holdfast follow makes it anew; take a base backup then, and raise max_slot_wal_keep_size",
        )
    limit = RETAINED_BYTES_WARNED if keep_bytes is None else keep_bytes * RETAINED_PART_WARNED
    if slot.retained_bytes > limit:
        return Finding(
            "slots",
            WARNING,
            f"{held}" + ("" if keep_bytes is None else f", of {keep_bytes / 1024**2:.0f} MiB before it is lost"),
            "start holdfast follow, or mend what keeps it from storing; without a limit the server's disk fills up",
        )
    if not slot.active:
        return Finding("slots", NOTICE, f"{held}; nobody follows it now", "start holdfast follow, or drop the slot")
    return Finding("slots", OK, held)


def _rows(session: Session, statement: str) -> list[Row]:
    try:
        return session.query(statement)
    except (Denied, SourceFailed):
        return []
