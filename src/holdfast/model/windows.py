"""Which moments of a source can be reached: recovery windows and the gaps between them, as pure rules."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from holdfast.model.logs import Generation, Sample, Stretch, union

ASYNCHRONOUS_MARGIN = timedelta(seconds=1)
"""A commit that does not wait for the log may lie behind the end that a sample tells by this much."""

NO_LOG = "no log was followed"
NO_REASON = "the log is missing and nothing tells why"
NOT_TO_ITS_END = "the log was not stored to its end before another generation took over"


@dataclass(frozen=True, slots=True)
class Anchor:
    """A backup that a restore can begin with: with the log from ``stop`` on, every later moment is reached.

    ``ended_at`` is by the clock of the machine that took it.
    """

    backup: str
    generation: str
    stop: int
    ended_at: datetime


@dataclass(frozen=True, slots=True)
class Window:
    """Every moment from ``start`` to ``end`` can be reached, from the anchor ``backup`` on; positions likewise."""

    start: datetime
    end: datetime
    start_position: int
    end_position: int
    backup: str


@dataclass(frozen=True, slots=True)
class WindowGap:
    """No moment between ``start`` and ``end`` can be reached; ``stretch`` are the positions the log lacks, if any."""

    start: datetime
    end: datetime
    reason: str
    stretch: Stretch | None = None


@dataclass(frozen=True, slots=True)
class Reach:
    """What can be reached of a source, or of several at once: windows in order, and what lies between them."""

    windows: tuple[Window, ...] = ()
    gaps: tuple[WindowGap, ...] = ()

    @property
    def start(self) -> datetime | None:
        return self.windows[0].start if self.windows else None

    @property
    def end(self) -> datetime | None:
        return self.windows[-1].end if self.windows else None


@dataclass(frozen=True, slots=True)
class LogFacts:
    """What is known of a log, for one line of generations (the oldest first, each grown out of the one before).

    ``stretches`` and ``samples`` are by generation; of the samples those near the ends of stretches and near anchors
    are enough. ``reasons`` tells for the position at which a stretch begins why the bytes before it are missing.
    ``others`` are stored generations that are not on the line.
    """

    line: tuple[Generation, ...] = ()
    stretches: Mapping[str, Sequence[Stretch]] = field(default_factory=dict)
    samples: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    reasons: Mapping[int, str] = field(default_factory=dict)
    others: frozenset[str] = frozenset()


def bounds(line: Sequence[Generation]) -> dict[str, tuple[int, int | None]]:
    """Return which positions of each generation are on the line: from where it begins to the fork of the next one."""
    forks = [*(generation.fork for generation in line[1:]), None]
    return {generation.id: (generation.begins, fork) for generation, fork in zip(line, forks, strict=False)}


def covered(facts: LogFacts) -> list[Stretch]:
    """Return the positions that the line's log holds, as few stretches, in order."""
    pieces = []
    for generation, (begins, fork) in bounds(facts.line).items():
        for stretch in facts.stretches.get(generation, ()):
            end = stretch.end if fork is None else min(stretch.end, fork)
            pieces.append(Stretch(max(stretch.start, begins), end))
    return union(pieces)


def line_samples(facts: LogFacts) -> list[Sample]:
    """Return the samples that speak of the line, in order of position and time.

    A server that was left behind may go on telling: what it told after the next generation was first heard of is not
    the line's.
    """
    kept: list[Sample] = []
    until: datetime | None = None
    for generation, (_, fork) in reversed(bounds(facts.line).items()):
        told = [
            one
            for one in facts.samples.get(generation, ())
            if (fork is None or one.position <= fork) and (until is None or one.at <= until)
        ]
        kept += told
        until = min((one.at for one in told), default=until)
    return sorted(kept, key=lambda one: (one.position, one.at))


def reach_of(facts: LogFacts, anchors: Iterable[Anchor]) -> Reach:
    """Return the windows of one source, oldest first, with the gaps between them.

    A window begins with a backup and goes on as far as the line's log does without a hole; a backup without log is a
    window of one moment. Backups of other lines do not count.
    """
    places = bounds(facts.line)
    stretches, samples = covered(facts), line_samples(facts)
    starts = [stretch.start for stretch in stretches]
    first: dict[int, tuple[Anchor, Stretch]] = {}
    alone: list[Anchor] = []
    for anchor in sorted(anchors, key=lambda one: (one.stop, one.ended_at)):
        fork = places[anchor.generation][1] if anchor.generation in places else None
        if anchor.generation in facts.others or (fork is not None and anchor.stop > fork):
            continue
        if anchor.generation not in places:
            alone.append(anchor)  # its log was never followed
            continue
        place = bisect.bisect_right(starts, anchor.stop) - 1
        if place >= 0 and anchor.stop <= stretches[place].end:
            first.setdefault(place, (anchor, stretches[place]))
        else:
            alone.append(anchor)
    windows = [_window(anchor, stretch, samples) for anchor, stretch in first.values()]
    windows += [Window(one.ended_at, one.ended_at, one.stop, one.stop, one.backup) for one in alone]
    ordered = _joined(sorted(windows, key=lambda one: (one.start, one.end)))
    gaps = [*_gaps(ordered, stretches, facts), *_open_gap(ordered, stretches, samples, facts)]
    return Reach(tuple(ordered), tuple(gaps))


def _window(anchor: Anchor, stretch: Stretch, samples: Sequence[Sample]) -> Window:
    """Return how far the log leads on from a backup.

    Its start is when the server's log had reached the backup's end: between the samples around that position, where
    there are any, so that clocks that differ do not promise what cannot be reached.
    """
    place = bisect.bisect_left(samples, anchor.stop, key=lambda one: one.position)
    start = anchor.ended_at
    within = [one for one in samples[place:] if one.position <= stretch.end]
    if within:
        start = min(start, *(one.at for one in within))
    if place:
        start = max(start, *(one.at for one in samples[:place]))
    newest = max((one.at - ASYNCHRONOUS_MARGIN for one in within), default=start)
    return Window(start, max(start, newest), anchor.stop, stretch.end, anchor.backup)


def _joined(windows: Sequence[Window]) -> list[Window]:
    """Return windows that touch in time as one (a backup without log may lie within the time of another window)."""
    joined: list[Window] = []
    for window in windows:
        if joined and window.start <= joined[-1].end:
            if window.end > joined[-1].end:
                before = joined[-1]
                joined[-1] = Window(before.start, window.end, before.start_position, window.end_position, before.backup)
            continue
        joined.append(window)
    return joined


def _gaps(windows: Sequence[Window], stretches: Sequence[Stretch], facts: LogFacts) -> Iterable[WindowGap]:
    for before, after in itertools.pairwise(windows):
        hole, reason = _hole(before, after, stretches, facts)
        yield WindowGap(before.end, after.start, reason, hole)


def _open_gap(
    windows: Sequence[Window], stretches: Sequence[Stretch], samples: Sequence[Sample], facts: LogFacts
) -> Iterable[WindowGap]:
    """Yield the gap behind the last window, where the log goes on without a backup to begin with."""
    last = windows[-1] if windows else None
    following = next((one for one in stretches if last is not None and one.start > last.end_position), None)
    newest = max((one.at for one in samples), default=None)
    if last is not None and following is not None and newest is not None and newest > last.end:
        hole = Stretch(last.end_position, following.start)
        yield WindowGap(last.end, newest, _reason(hole, facts), hole)


def _hole(before: Window, after: Window, stretches: Sequence[Stretch], facts: LogFacts) -> tuple[Stretch | None, str]:
    """Return the first positions that are missing between two windows, and why."""
    if after.start_position <= before.end_position:
        return None, NO_LOG
    following = next((one for one in stretches if one.start > before.end_position), None)
    end = min(following.start, after.start_position) if following is not None else after.start_position
    hole = Stretch(before.end_position, end)
    if following is None or not facts.line:
        return hole, NO_LOG
    return hole, _reason(Stretch(hole.start, following.start), facts)


def _reason(hole: Stretch, facts: LogFacts) -> str:
    """Return why the bytes up to the beginning of a stretch are missing."""
    told = facts.reasons.get(hole.end)
    if told is not None:
        return told
    forks = [generation.fork for generation in facts.line[1:] if generation.fork is not None]
    begins = [generation.begins for generation in facts.line[1:]]
    if hole.end in begins or any(hole.start < fork <= hole.end for fork in forks):
        return NOT_TO_ITS_END
    return NO_REASON


def common_reach(many: Sequence[Reach]) -> Reach:
    """Return what can be reached of all of several sources at once; nothing where one of them has nothing."""
    if not many:
        return Reach()
    shared = list(many[0].windows)
    for reach in many[1:]:
        shared = [
            Window(max(one.start, other.start), min(one.end, other.end), 0, 0, "")
            for one in shared
            for other in reach.windows
            if max(one.start, other.start) <= min(one.end, other.end)
        ]
    shared = [Window(one.start, one.end, 0, 0, "") for one in sorted(shared, key=lambda one: one.start)]
    gaps = tuple(
        WindowGap(before.end, after.start, _why(many, before.end, after.start))
        for before, after in itertools.pairwise(shared)
    )
    return Reach(tuple(shared), gaps)


def _why(many: Sequence[Reach], start: datetime, end: datetime) -> str:
    reasons = [gap.reason for reach in many for gap in reach.gaps if gap.start < end and gap.end > start]
    return "; ".join(dict.fromkeys(reasons)) or NO_REASON
