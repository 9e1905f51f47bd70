"""Where following goes on after whatever happened: told by listing and headers, by nothing remembered elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.model.logs import Generation
from holdfast.repository.log.listing import latest
from holdfast.repository.log.reading import StoredLog

HOLES_MAX = 64
"""How many untold holes are looked behind; a follower that dies leaves no more of them than it has spans in flight."""


@dataclass(frozen=True, slots=True)
class LogPlace:
    """A position in a generation."""

    generation: Generation
    position: int


def resume_place(log: StoredLog, generation: Generation | None = None) -> LogPlace | None:
    """Return where a generation goes on: the end of its last stretch that is not followed by an untold hole.

    Spans are stored out of order, so that a follower that dies may leave holes before the last of them: their bytes
    were not acknowledged, and the server still has them. Without ``generation`` it is that of the latest one or, where
    it holds nothing yet, of its nearest ancestor that does; None where nothing is stored at all.
    """
    if generation is not None:
        return _place_in(log, generation)
    by_id = {one.id: one for one in log.generations()}
    newest = latest(list(by_id.values()))
    at = newest
    for _ in range(len(by_id)):
        if at is None:
            break
        place = _place_in(log, at)
        if place is not None:
            return place
        at = by_id.get(at.parent) if at.parent is not None else None
    return LogPlace(newest, newest.begins) if newest is not None else None


def _place_in(log: StoredLog, generation: Generation) -> LogPlace | None:
    stretches = list(log.stretches(generation.id))
    for _ in range(HOLES_MAX):
        if len(stretches) < 2 or log.gap_reason(generation.id, stretches[-1].start) is not None:
            break
        stretches.pop()
    return LogPlace(generation, stretches[-1].end) if stretches else None
