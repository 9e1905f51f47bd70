"""What windows are computed from: one listing, and the headers of a bounded number of spans."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import replace

from holdfast.model.errors import IntegrityBroken, NotFound
from holdfast.model.logs import Generation, Sample, Stretch
from holdfast.model.windows import Anchor, LogFacts, bounds, covered
from holdfast.repository.format import rules
from holdfast.repository.format.entry import Positions
from holdfast.repository.format.rules import HistoryState
from holdfast.repository.log.listing import ListedSpan, latest, lineage
from holdfast.repository.log.reading import StoredLog

HEADERS_MAX = 256
"""How many spans may be looked into; beyond that the older gaps have no reason, and their times are narrower."""

SPANS_BACK_MAX = 4
"""How many spans before the end of a stretch are looked into for a sample."""

REMOVED = "spans that the history tells of are gone from the store"


def facts_of(
    log: StoredLog, anchors: Iterable[Anchor], state: HistoryState | None = None, newest: str | None = None
) -> LogFacts:
    """Return what is known of the line of generations that ends with ``newest`` (the latest one unless named).

    Reads the headers at the ends of stretches, and those around the first backup of each, the newest ones first.
    """
    generations = list(log.generations())
    last = latest(generations) if newest is None else next((one for one in generations if one.id == newest), None)
    if last is None:
        return LogFacts()
    line = tuple(lineage(generations, last.id))
    facts = LogFacts(line, {one.id: log.stretches(one.id) for one in line})
    looking = _Looking(log, line)
    stretches = covered(facts)
    stops = sorted(anchor.stop for anchor in anchors)
    for stretch in reversed(stretches):
        looking.at_end(stretch)
        looking.at_start(stretch)
        place = bisect.bisect_left(stops, stretch.start)
        if place < len(stops) and stops[place] <= stretch.end:
            looking.around(stops[place])
    for one in line:
        carried = log.carried(one.id)
        if carried is not None:
            looking.samples[one.id].append(carried)
    if state is not None:
        _tell_removed(looking, stretches, line, rules.shortened(state, log.listing.ends()))
    others = frozenset(one.id for one in generations) - {one.id for one in line}
    return replace(facts, samples=looking.samples, reasons=looking.reasons, others=others)


class _Looking:
    """Reads headers until there were enough."""

    def __init__(self, log: StoredLog, line: Sequence[Generation]) -> None:
        self._log = log
        self._bounds = bounds(line)
        self._seen: set[str] = set()
        self._starts = {one.id: [span.name.start for span in log.spans(one.id)] for one in line}
        self.samples: dict[str, list[Sample]] = {one.id: [] for one in line}
        self.reasons: dict[int, str] = {}

    def at_end(self, stretch: Stretch) -> None:
        """Look for the samples nearest to the end of a stretch, in every generation that holds its end."""
        for generation in self._holding(stretch.end - 1):
            place = self._place(generation, stretch.end - 1)
            for span in reversed(self._log.spans(generation)[max(0, place + 1 - SPANS_BACK_MAX) : place + 1]):
                if self._look(generation, span):
                    break

    def at_start(self, stretch: Stretch) -> None:
        """Look why the bytes before a stretch are missing."""
        for generation in self._holding(stretch.start):
            if len(self._seen) >= HEADERS_MAX:
                return
            reason = self._log.gap_reason(generation, stretch.start)
            if reason is not None:
                self.reasons[stretch.start] = reason

    def around(self, position: int) -> None:
        """Look for the samples around a position."""
        for generation in self._holding(position) or self._holding(position - 1):
            place = self._place(generation, position)
            for span in self._log.spans(generation)[max(0, place - 1) : place + 2]:
                self._look(generation, span)

    def _holding(self, position: int) -> list[str]:
        return [
            generation
            for generation, (begins, fork) in self._bounds.items()
            if begins <= position and (fork is None or position <= fork)
        ]

    def _place(self, generation: str, position: int) -> int:
        return bisect.bisect_right(self._starts[generation], position) - 1

    def _look(self, generation: str, span: ListedSpan) -> bool:
        """Take over a span's samples; return whether there were any."""
        if span.name.digest in self._seen or len(self._seen) >= HEADERS_MAX:
            return False
        self._seen.add(span.name.digest)
        try:
            found = self._log.header(span).samples
        except (NotFound, IntegrityBroken):
            return False  # `check` tells; the window is then known less exactly
        self.samples[generation] += found
        return bool(found)


def _tell_removed(
    looking: _Looking, stretches: Sequence[Stretch], line: Sequence[Generation], shortened: Positions
) -> None:
    """Name the gaps, as far as stretches follow them, that come from an end the history tells and the store lacks."""
    missed = dict(shortened)
    for generation in line:
        end = missed.get(generation.id)
        following = next((one for one in stretches if end is not None and one.start >= end), None)
        if following is not None:
            looking.reasons.setdefault(following.start, REMOVED)
