"""What a listing of an area's log tells: which spans there are, what they cover, which generations are stored."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from holdfast.model.logs import Generation, Stretch
from holdfast.repository.area import Area
from holdfast.repository.format import names
from holdfast.repository.format.names import SpanName

LISTINGS_MAX = 2000
"""How many short listings find the generations; where strange names make it more, one long one does."""


class ListedSpan(NamedTuple):
    """A span as listed: name, size of the object, and when the store took it, by the store's clock."""

    name: SpanName
    size_bytes: int
    put_at: datetime


@dataclass(frozen=True, slots=True)
class LogListing:
    """One listing of an area's log. ``spans`` are by generation, in order of start (then end); ``generations`` the ids
    of those whose own object is there."""

    spans: dict[str, tuple[ListedSpan, ...]]
    generations: frozenset[str]

    def stretches(self, generation: str) -> list[Stretch]:
        """Return what a generation itself holds, as few stretches, in order."""
        joined: list[Stretch] = []
        start = end = -1
        for (_, first, stop, _), _, _ in self.spans.get(generation, ()):
            if first > end:
                if end > start:
                    joined.append(Stretch(start, end))
                start, end = first, stop
            elif stop > end:
                end = stop
        return [*joined, Stretch(start, end)] if end > start else joined

    def end(self, generation: str) -> int | None:
        """Return the end of the last stretch of a generation, None where nothing of it is stored."""
        return max((span.name.end for span in self.spans.get(generation, ())), default=None)

    def ends(self) -> tuple[tuple[str, int], ...]:
        """Return (generation, end) of every generation that holds bytes."""
        found = ((generation, max(span.name.end for span in spans)) for generation, spans in self.spans.items())
        return tuple(sorted(found))


def list_log(area: Area) -> LogListing:
    """List the log of an area once; other people's names are passed over."""
    place = names.log(area.keys.area)
    return listing_of(
        (found, info.size_bytes, info.modified_at)
        for info in area.store.list(place)
        if (found := names.parse_log(place, info.name)) is not None
    )


def list_generations(area: Area) -> frozenset[str]:
    """Return the ids of the generations that are there, with two short listings for each, however many spans it has."""
    place, after = names.log(area.keys.area), ""
    found: set[str] = set()
    for _ in range(LISTINGS_MAX):
        info = next(iter(area.store.list(place, after)), None)
        if info is None:
            return frozenset(found)
        parsed = names.parse_log(place, info.name)
        if isinstance(parsed, str):
            found.add(parsed)
        # A generation's own object sorts behind all of its spans, whose names begin with a digit of at most f.
        folder = info.name[len(place) :].partition("/")[0]
        after = info.name if parsed is None or isinstance(parsed, str) else f"{place}{folder}/g"
    return list_log(area).generations


def listing_of(found: Iterable[tuple[SpanName | str, int, datetime]]) -> LogListing:
    """Gather listed names, in the order of names or any other."""
    spans: dict[str, list[ListedSpan]] = {}
    generations = set()
    for name, size, at in found:
        if isinstance(name, SpanName):
            spans.setdefault(name.generation, []).append(ListedSpan(name, size, at))
        else:
            generations.add(name)
    # Names sort by hash last; the order here must not depend on it.
    ordered = {generation: tuple(sorted(listed)) for generation, listed in spans.items()}
    return LogListing(ordered, frozenset(generations))


def in_order(generations: Collection[tuple[Generation, datetime]]) -> list[Generation]:
    """Return generations with parents before children, else in the order in which they were stored."""
    waiting = sorted(generations, key=lambda item: (item[1], item[0].id))
    known = {generation.id for generation, _ in waiting}
    done: list[Generation] = []
    placed: set[str] = set()
    while waiting:
        ready = [item for item in waiting if item[0].parent not in known or item[0].parent in placed]
        # A circle of parents cannot be made by us; whoever forged keys could, and must not hang a reader.
        for item in ready or waiting:
            done.append(item[0])
            placed.add(item[0].id)
        waiting = [item for item in waiting if item[0].id not in placed]
    return done


def lineage(generations: Sequence[Generation], newest: str) -> list[Generation]:
    """Return a generation and its ancestors as far as they are stored, the oldest first."""
    by_id = {generation.id: generation for generation in generations}
    line: list[Generation] = []
    at: str | None = newest
    while at is not None and at in by_id and len(line) <= len(by_id):
        line.append(by_id[at])
        at = by_id[at].parent
    return line[::-1]


def latest(generations: Sequence[Generation]) -> Generation | None:
    """Return the generation that was begun last and that none grew out of, of generations in order."""
    parents = {generation.parent for generation in generations}
    return next((one for one in reversed(generations) if one.id not in parents), None)
