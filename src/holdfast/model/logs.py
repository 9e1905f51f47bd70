"""The change log of a source as values: generations, stretches of positions, and when the log had reached where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from holdfast.model.documents import JsonObject


@dataclass(frozen=True, slots=True, order=True)
class Stretch:
    """Positions from ``start`` up to, and without, ``end``."""

    start: int
    end: int

    @property
    def size_bytes(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Generation:
    """One line of a log's history: a position in it means the same byte for ever.

    ``id`` is 32 hexadecimal digits. It grew out of ``parent`` at position ``fork``: below that its bytes are those of
    the parent, and only from ``begins`` on (not after ``fork``) it holds bytes itself. ``details`` is the kind's own
    document (identity, timeline, ...).
    """

    id: str
    begins: int
    parent: str | None = None
    fork: int | None = None
    details: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True, order=True)
class Sample:
    """At ``at``, by the server's clock, its log ended at ``position``: all that was committed then lies before it."""

    at: datetime
    position: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Positions that the log lacks, and why, as far as somebody told."""

    stretch: Stretch
    reason: str


def union(stretches: Iterable[Stretch]) -> list[Stretch]:
    """Return the same positions as few stretches that do not touch, in order; empty ones are left out."""
    joined: list[Stretch] = []
    for stretch in sorted(stretches):
        if stretch.end <= stretch.start:
            continue
        if joined and stretch.start <= joined[-1].end:
            joined[-1] = Stretch(joined[-1].start, max(joined[-1].end, stretch.end))
        else:
            joined.append(stretch)
    return joined


def holes(stretches: Iterable[Stretch], within: Stretch) -> list[Stretch]:
    """Return what of ``within`` no stretch covers, in order."""
    found: list[Stretch] = []
    at = within.start
    for stretch in union(stretches):
        if stretch.start >= within.end:
            break
        if stretch.start > at:
            found.append(Stretch(at, stretch.start))
        at = max(at, stretch.end)
    if at < within.end:
        found.append(Stretch(at, within.end))
    return found
