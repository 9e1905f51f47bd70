"""Follows the stored log from a backup along its timelines: whose bytes lie where, and how far there is no hole."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from holdfast.model.errors import IntegrityBroken
from holdfast.model.logs import Generation, Sample, Stretch
from holdfast.sources.port import LogContent
from holdfast.sources.postgres.details import WAL_SEGMENT_SIZES, format_lsn, parse_lsn
from holdfast.sources.postgres.wal_walk import PAGE_BYTES

KIND = "postgres"
ANCESTORS_MAX = 10_000
_HISTORY_LINE = re.compile(r"\s*(\d+)\s+([0-9A-Fa-f]+/[0-9A-Fa-f]+)\s")


@dataclass(frozen=True, slots=True)
class Line:
    """One timeline of one system, as the log holds it. ``ancestry``: each earlier timeline and where it was left."""

    generation: str
    system: str
    timeline: int
    begins: int
    segment_bytes: int
    history: str
    ancestry: tuple[tuple[int, int], ...]

    def timeline_at(self, position: int) -> int:
        """Return on which timeline a record that begins at a position of this line's past was written."""
        return next((number for number, left in self.ancestry if position < left), self.timeline)

    def descends_from(self, timeline: int, position: int) -> bool:
        """Whether what lies before a position of a timeline is this line's past."""
        if timeline == self.timeline:
            return True
        left = dict(self.ancestry).get(timeline)
        return left is not None and position <= left


def line_of(generation: Generation) -> Line | None:
    """Return a generation as a timeline, None where it is no PostgreSQL log. Raises ``IntegrityBroken``."""
    details = generation.details
    if details.get("kind") != KIND:
        return None
    system, timeline, segment = details.get("system_identifier"), details.get("timeline"), details.get("segment_bytes")
    history = details.get("history")
    if (
        not isinstance(system, str)
        or not isinstance(timeline, int)
        or not isinstance(history, str)
        or segment not in WAL_SEGMENT_SIZES
    ):
        raise IntegrityBroken(
            f"log generation {generation.id} does not say which timeline it is", hint="Run `holdfast check`."
        )
    assert isinstance(segment, int)
    ancestry = parse_history(history)
    return Line(generation.id, system, timeline, generation.begins, segment, history, ancestry)


def parse_history(text: str) -> tuple[tuple[int, int], ...]:
    """Return the timelines of a history file, oldest first, and where each was left."""
    matches = (_HISTORY_LINE.match(line + " ") for line in text.splitlines()[:ANCESTORS_MAX])
    return tuple((int(match[1]), parse_lsn(match[2].upper())) for match in matches if match)


def lines_of(generations: Sequence[Generation]) -> dict[str, dict[int, Line]]:
    """Return the timelines of each system by their numbers."""
    found: dict[str, dict[int, Line]] = {}
    for generation in generations:
        line = line_of(generation)
        if line is not None:
            found.setdefault(line.system, {})[line.timeline] = line
    return found


@dataclass(frozen=True, slots=True)
class Leg:
    """A piece of the way that one line holds."""

    line: Line
    stretch: Stretch


@dataclass(frozen=True)
class Path:
    """The log without a hole from ``before`` over ``start`` (where a backup ends) to ``end``, along one past.

    ``legs`` are in order and touch. ``hole`` tells what ended the way, None where the last line simply has no more.
    """

    log: LogContent
    start: int
    legs: tuple[Leg, ...]
    hole: str | None = None

    @property
    def before(self) -> int:
        """How far back the log goes from the start."""
        return self.legs[0].stretch.start

    @property
    def end(self) -> int:
        return self.legs[-1].stretch.end

    @property
    def segment_bytes(self) -> int:
        return self.legs[0].line.segment_bytes

    def line_at(self, position: int) -> Line:
        """Return whose bytes stand at a position of the way."""
        return next((leg.line for leg in self.legs if position < leg.stretch.end), self.legs[-1].line)

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes of a part of the way, in order and in pieces."""
        for part in self.cut(start, end):
            yield from self.log.read(part.line.generation, part.stretch)

    def cut(self, start: int, end: int) -> list[Leg]:
        """Return the legs of a part of the way."""
        found = []
        for leg in self.legs:
            part = Stretch(max(start, leg.stretch.start), min(end, leg.stretch.end))
            if part.start < part.end:
                found.append(Leg(leg.line, part))
        return found

    @cached_property
    def samples(self) -> tuple[Sample, ...]:
        """The samples that lie on the way, in order of time."""
        found: list[Sample] = []
        for leg in self.legs:
            found += self.log.samples(leg.line.generation, leg.stretch)
        return tuple(sorted(set(found)))


def path_from(log: LogContent, lines: dict[int, Line], goal: Line, timeline: int, start: int) -> Path | None:
    """Follow the log from ``start`` on a timeline towards the end of ``goal``, as far as there is no hole.

    None where the log does not hold the page that ``start`` lies on. ``goal`` must descend from there.
    """
    forks = [*goal.ancestry, (goal.timeline, None)]
    numbers = [number for number, _ in forks]
    legs: list[Leg] = []
    at = start - start % PAGE_BYTES
    hole: str | None = None
    first = numbers.index(timeline)
    for place in range(first, len(forks)):
        number, fork = forks[place]
        limit = fork
        if fork is not None:
            child = lines.get(numbers[place + 1])
            # The child's first segment holds the parent's bytes up to the switch, and is the one the server reads.
            if child is not None and _covers(log, child, Stretch(child.begins, fork)):
                limit = child.begins
        if limit is not None and at >= limit:
            continue
        line = lines.get(number)
        held = _stretch_at(log, line, at) if line is not None else None
        if line is None or held is None:
            hole = f"the log of timeline {number} lacks what follows {format_lsn(at)}"
            break
        begin = at if legs else max(held.start, line.begins)
        end = held.end if limit is None else min(held.end, limit)
        legs.append(Leg(line, Stretch(begin, end)))
        at = end
        if limit is not None and end < limit:
            hole = f"the log of timeline {number} lacks {format_lsn(end)} to {format_lsn(limit)}"
            break
    if not legs or legs[-1].stretch.end <= start - start % PAGE_BYTES:
        return None
    if hole is None and (later := _first_after(log, legs[-1])) is not None:
        hole = f"the log of timeline {legs[-1].line.timeline} lacks {format_lsn(at)} to {format_lsn(later)}"
    return Path(log, start, tuple(legs), hole)


def _stretch_at(log: LogContent, line: Line, position: int) -> Stretch | None:
    """Return the stored stretch that holds the byte at a position."""
    return next((held for held in log.stretches(line.generation) if held.start <= position < held.end), None)


def _covers(log: LogContent, line: Line, wanted: Stretch) -> bool:
    if wanted.start >= wanted.end:
        return True
    return any(held.start <= wanted.start and wanted.end <= held.end for held in log.stretches(line.generation))


def _first_after(log: LogContent, leg: Leg) -> int | None:
    """Return where the line's log goes on after a hole."""
    return next((held.start for held in log.stretches(leg.line.generation) if held.start > leg.stretch.end), None)
