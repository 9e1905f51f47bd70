"""Turns what an operator asks for into the one position of the log that recovery stops at, and says what that reaches.

A server that is told a time, a name or the end of the log ends with a FATAL where nothing later was committed. So every
target becomes the start of a record that the stored log holds: recovery stops before it, or right after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from holdfast.model.errors import ConfigInvalid
from holdfast.sources.port import LogContent
from holdfast.sources.postgres.details import format_lsn
from holdfast.sources.postgres.wal_path import Leg, Line, Path, lines_of, path_from
from holdfast.sources.postgres.wal_search import (
    NEAR_BYTES,
    last_record,
    near,
    newest_sample,
    notables,
    samples_in,
    transaction_before,
    without_header,
)
from holdfast.sources.postgres.wal_walk import ENDS, PAGE_BYTES, Extent, Kind, Notable

UNFLUSHED = timedelta(seconds=1)
"""An asynchronous commit reaches the log up to three rounds of the writer after its time."""
XIDS = 1 << 32


class Ask(StrEnum):
    """By what a moment is named."""

    TIME = "time"
    LATEST = "latest"
    LSN = "lsn"
    XID = "xid"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class Point:
    """What is asked for. ``timeline`` is ``latest``, ``current`` (the backup's own) or a number.

    ``system`` limits an LSN to one server's log: that of a mark.
    """

    ask: Ask
    time: datetime | None = None
    lsn: int = 0
    xid: int = 0
    name: str = ""
    timeline: str = "latest"
    system: str | None = None


@dataclass(frozen=True, slots=True)
class Base:
    """A backup to start from: it holds all before ``stop`` on its timeline. ``ended_at`` is by our clock."""

    id: str
    system: str
    timeline: int
    start: int
    stop: int
    ended_at: datetime


@dataclass(frozen=True, slots=True)
class Target:
    """Where recovery stops: before the record at ``lsn``, or (``inclusive``) right after it.

    ``legs`` are the log that is needed for it, from the backup's stop on up to the end of that record; ``histories``
    the history files of all timelines that are known. ``transaction`` is the last one that is reached, where the log
    near the target holds one.
    """

    backup: str
    timeline: int
    lsn: int
    inclusive: bool
    legs: tuple[Leg, ...]
    histories: tuple[tuple[int, str], ...]
    transaction: Notable | None
    is_whole_backup: bool = False
    notes: tuple[str, ...] = ()

    @property
    def end(self) -> int:
        """The end of the log that is needed."""
        return self.legs[-1].stretch.end if self.legs else self.lsn


@dataclass(frozen=True, slots=True)
class Reach:
    """What can be reached from one backup: times by the server's clock (None unknown), and positions."""

    base: Base
    path: Path
    first: datetime | None
    last: datetime | None


class _TooEarlyError(Exception):
    """The target lies before the end of this backup."""


class _BeyondError(Exception):
    """The target lies behind what the log holds on this way."""


def locate(log: LogContent, bases: Sequence[Base], point: Point) -> Target:
    """Choose the newest backup that ends before what is asked for, and the record to stop at.

    ``bases`` are in the order in which they were taken. Nothing is read but the log near the target, and for a
    transaction or a name all of it until it is found. Raises ``ConfigInvalid`` where it cannot be reached, naming the
    nearest moments that can; ``IntegrityBroken`` for a broken log.
    """
    if not bases:
        raise ConfigInvalid("there is no physical backup to start from", hint="Make one with `holdfast backup`.")
    return _Search(log, bases, point).run()


class _Search:
    def __init__(self, log: LogContent, bases: Sequence[Base], point: Point) -> None:
        self._log = log
        self._bases = bases
        self._point = point
        self._systems = lines_of(log.generations())
        self._reaches: list[Reach] = []
        self._holes: list[str] = []

    def run(self) -> Target:
        known = [base for base in self._bases if self._point.system in (None, base.system)]
        ways = list(self._ways(known))
        if self._point.ask is Ask.LATEST:
            return self._latest(ways)
        beyond = False
        searched: dict[str, int] = {}
        for base, path in ways:
            if path is None:
                continue
            try:
                found = self._on(base, path, searched)
            except _TooEarlyError:
                continue
            except _BeyondError:
                beyond = True
                if self._point.ask in (Ask.TIME, Ask.LSN):
                    break
                continue
            return replace(found, notes=(*found.notes, *self._notes(path)))
        raise self._unreachable(ways, beyond=beyond)

    def _ways(self, bases: Sequence[Base]) -> Iterator[tuple[Base, Path | None]]:
        """Yield every backup, newest first, with the way from it; None where there is no log behind it."""
        for base in reversed(bases):
            lines = self._systems.get(base.system, {})
            goal = self._goal(base, lines)
            if goal is None:
                if self._point.timeline == "latest" and not lines:
                    yield base, None
                continue
            if not goal.descends_from(base.timeline, base.stop):
                continue
            yield base, path_from(self._log, lines, goal, base.timeline, base.stop)

    def _goal(self, base: Base, lines: dict[int, Line]) -> Line | None:
        wanted = self._point.timeline
        if wanted == "latest":
            return lines[max(lines)] if lines else None
        if wanted == "current":
            return lines.get(base.timeline)
        if int(wanted) not in lines and not any(int(wanted) in other for other in self._systems.values()):
            stored = sorted({number for other in self._systems.values() for number in other})
            raise ConfigInvalid(
                f"the log of timeline {wanted} is not stored",
                hint=f"Stored are: {', '.join(map(str, stored)) or 'none'}.",
            )
        return lines.get(int(wanted))

    def _on(self, base: Base, path: Path, searched: dict[str, int]) -> Target:
        point = self._point
        if point.ask is Ask.TIME:
            assert point.time is not None
            return self._at_time(base, path, point.time)
        if point.ask is Ask.LSN:
            return self._at_lsn(base, path, point.lsn)
        # What a newer backup's way holds was looked through already.
        behind = searched.get(base.system)
        searched[base.system] = base.stop
        return self._at_record(base, path, behind)

    # By time

    def _at_time(self, base: Base, path: Path, moment: datetime) -> Target:
        lower, is_proven = near(path, moment)
        is_proven = is_proven or moment >= base.ended_at
        before: Notable | None = None
        for one in notables(path, lower):
            if one.kind not in ENDS:
                continue
            if one.at > moment:
                if one.start < path.start or not is_proven:
                    raise _TooEarlyError
                return self._before(base, path, one, before)
            if one.end <= path.start:
                is_proven = True
            before = one
        if not is_proven:
            raise _TooEarlyError
        newest = newest_sample(path)
        if newest is None or newest.at - UNFLUSHED < moment:
            raise _BeyondError
        return self._after_last(base, path, before)

    def _before(self, base: Base, path: Path, found: Notable, before: Notable | None) -> Target:
        """Stop right before a record."""
        return self._target(base, path, Extent(found.start, found.end), before, inclusive=False)

    def _after_last(self, base: Base, path: Path, before: Notable | None) -> Target:
        """Stop after the last complete record."""
        last = last_record(path, path.end)
        if last is None or last.end <= path.start:
            # Nothing followed the backup: what it holds is what is asked for.
            return _whole(base, before)
        return self._target(base, path, last, before, inclusive=True)

    def _target(self, base: Base, path: Path, stop: Extent, before: Notable | None, *, inclusive: bool) -> Target:
        lines = self._systems[base.system]
        reached = before or transaction_before(path, stop.end if inclusive else stop.start)
        line = path.line_at(stop.start)
        own = lines.get(line.timeline_at(stop.start))
        if own is not None and own is not line:
            # The first segment of a new timeline repeats the one before it: what lies there is reached on the old one.
            older = path_from(self._log, lines, own, base.timeline, base.stop)
            if older is not None and older.end >= stop.end:
                path, line = older, own
        return Target(
            backup=base.id,
            timeline=line.timeline,
            lsn=stop.start,
            inclusive=inclusive,
            legs=tuple(path.cut(path.start, stop.end)),
            histories=tuple((number, known.history) for number, known in sorted(lines.items()) if known.history),
            transaction=reached,
        )

    # By position

    def _at_lsn(self, base: Base, path: Path, position: int) -> Target:
        """Stop after all records that begin before a position."""
        position = without_header(position, path.segment_bytes)
        if position < base.stop:
            raise _TooEarlyError
        if position > path.end:
            raise _BeyondError
        last = last_record(path, position)
        if last is None or last.end <= path.start:
            return _whole(base, None)
        return self._target(base, path, last, None, inclusive=True)

    # By what a record says

    def _at_record(self, base: Base, path: Path, behind: int | None) -> Target:
        """Stop after the last record with a name, or after that which ends a transaction."""
        found, before, last_end = None, None, None
        stop = path.end if behind is None or not path.before <= behind <= path.end else behind + PAGE_BYTES
        for one in notables(path, path.start, min(stop, path.end)):
            if one.start < path.start:
                continue
            if one.kind in ENDS:
                last_end = one
            if self._is_asked(one):
                found, before = one, last_end
        if found is None:
            raise _BeyondError
        target = self._target(base, path, Extent(found.start, found.end), before, inclusive=True)
        if found.kind in (Kind.ABORT, Kind.ABORT_PREPARED):
            return replace(target, notes=(f"transaction {found.xid} was rolled back",))
        return target

    def _is_asked(self, one: Notable) -> bool:
        if self._point.ask is Ask.NAME:
            return one.kind is Kind.RESTORE_POINT and one.name == self._point.name
        return one.kind in ENDS and one.xid == self._point.xid % XIDS

    # The latest

    def _latest(self, ways: Sequence[tuple[Base, Path | None]]) -> Target:
        """Stop at the end of the way that goes furthest, from the newest backup on it."""
        best: tuple[Base, Path | None] | None = None
        for base, path in ways:
            if best is None or _reaches_further(path, base, best):
                best = base, path
        if best is None:
            raise ConfigInvalid(
                f"no backup leads to timeline {self._point.timeline}",
                hint="`holdfast windows` tells what is reachable.",
            )
        base, path = best
        if path is None:
            return _whole(base, None)
        target = self._after_last(base, path, None)
        return replace(target, notes=(*target.notes, *self._notes(path)))

    def _notes(self, path: Path) -> tuple[str, ...]:
        return (f"a gap: {path.hole}",) if path.hole is not None else ()

    # What to say where it cannot be

    def _unreachable(self, ways: Sequence[tuple[Base, Path | None]], *, beyond: bool) -> ConfigInvalid:
        point = self._point
        reaches = [reach_of(base, path) for base, path in ways if path is not None]
        holes = sorted({reach.path.hole for reach in reaches if reach.path.hole is not None})
        if not reaches:
            ids = ", ".join(f"{base.id[:12]} ({base.ended_at:%Y-%m-%dT%H:%M:%SZ})" for base, _ in ways[:3])
            return ConfigInvalid(
                f"{_told(point)} cannot be reached: no log is stored behind any backup",
                hint=f"Restore a backup itself with --backup: {ids or 'none'}. `holdfast follow` stores the log.",
            )
        if point.ask in (Ask.XID, Ask.NAME):
            return ConfigInvalid(
                f"{_told(point)} is not in the stored log",
                hint=f"The log goes from {format_lsn(min(reach.base.stop for reach in reaches))} to "
                f"{format_lsn(max(reach.path.end for reach in reaches))}"
                + (f"; {'; '.join(holes)}." if holes else "."),
            )
        near = _nearest_lsn(reaches, point.lsn) if point.ask is Ask.LSN else _nearest_time(reaches, point.time)
        why = (
            "lies behind the end of the stored log, it is not stored (yet)"
            if beyond
            else "lies before the end of the oldest backup"
        )
        if not beyond and len(reaches) > 1:
            why = "lies in no recovery window"
        return ConfigInvalid(f"{_told(point)} {why}", hint=near + (f" {'; '.join(holes)}." if holes else ""))


def _reaches_further(path: Path | None, base: Base, best: tuple[Base, Path | None]) -> bool:
    other, way = best
    if base.system != other.system or path is None:
        return False
    return path.end > (way.end if way is not None else other.stop)


def _whole(base: Base, transaction: Notable | None) -> Target:
    """Return the backup's own end as the target: it needs no log and no target."""
    return Target(base.id, base.timeline, base.stop, True, (), (), transaction, is_whole_backup=True)


def reach_of(base: Base, path: Path) -> Reach:
    """Return what can be reached along a way, by time too as far as samples tell."""
    newest = newest_sample(path)
    first = next(iter(sorted(samples_in(path, path.start, min(path.end, path.start + NEAR_BYTES)))), None)
    last = newest.at - UNFLUSHED if newest is not None else None
    begin = first.at if first is not None else base.ended_at
    return Reach(base, path, begin, max(last, begin) if last is not None else None)


def _told(point: Point) -> str:
    if point.ask is Ask.TIME and point.time is not None:
        return point.time.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if point.ask is Ask.LSN:
        return f"position {format_lsn(point.lsn)}"
    if point.ask is Ask.XID:
        return f"the end of transaction {point.xid}"
    return f"restore point {point.name!r}" if point.ask is Ask.NAME else "the latest moment"


def _nearest_time(reaches: Sequence[Reach], moment: datetime | None) -> str:
    """Name the nearest moments before and after one that can be reached."""
    assert moment is not None
    edges = [(reach.first, reach.last) for reach in reaches if reach.first is not None and reach.last is not None]
    before = max((last for _, last in edges if last <= moment), default=None)
    after = min((first for first, _ in edges if first >= moment), default=None)
    # Within whole seconds, towards the inside of the window.
    near = [f"{before.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"] if before is not None else []
    near += [f"{(after + timedelta(seconds=1)).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"] if after is not None else []
    if not near:
        return "`holdfast windows` tells what can be reached."
    return f"The nearest that can be reached: {' and '.join(near)}."


def _nearest_lsn(reaches: Sequence[Reach], position: int) -> str:
    before = max((reach.path.end for reach in reaches if reach.path.end <= position), default=None)
    after = min((reach.base.stop for reach in reaches if reach.base.stop >= position), default=None)
    near = [format_lsn(one) for one in (before, after) if one is not None]
    return f"The nearest that can be reached: {' and '.join(near)}."
