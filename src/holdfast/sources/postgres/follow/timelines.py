"""Timelines and their history files, and the generations of the log that they are. Pure.

Source: PostgreSQL's src/backend/access/transam/timeline.c (readTimeLineHistory, writeTimeLineHistory).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from blake3 import blake3

from holdfast.model.errors import Conflict, SourceFailed
from holdfast.model.logs import Generation
from holdfast.sources.postgres.details import parse_lsn

HISTORY_BYTES_MAX = 1 << 20
"""More than ten thousand switches; a longer history file is no history file."""

ID_BYTES = 16
_CONTEXT = "holdfast postgres log generation v1"
_LINE = re.compile(r"\s*(\d+)\s+([0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8})(?:\s.*)?")


@dataclass(frozen=True, slots=True)
class Switch:
    """Where a timeline was left for the next one."""

    timeline: int
    position: int


@dataclass(frozen=True, slots=True)
class TimelineHistory:
    """One timeline of one system, and where it came from: ``switches`` of its ancestors, the oldest first."""

    system_identifier: str
    timeline: int
    text: str
    switches: tuple[Switch, ...]

    def switch_from(self, timeline: int) -> int | None:
        """Return where an ancestor was left; None for a timeline that is none."""
        return next((one.position for one in self.switches if one.timeline == timeline), None)

    def next_after(self, timeline: int) -> int:
        """Return the timeline that followed an ancestor."""
        order = [one.timeline for one in self.switches] + [self.timeline]
        return order[order.index(timeline) + 1]


def read_history(system_identifier: str, timeline: int, content: bytes) -> TimelineHistory:
    """Return what a history file says; it is empty for a timeline without one. Raises ``SourceFailed``."""
    if len(content) > HISTORY_BYTES_MAX:
        raise SourceFailed(f"the history of timeline {timeline} has {len(content)} bytes, more than any has")
    text = content.decode("utf-8", "backslashreplace")  # Only the reasons of switches are free text.
    switches = tuple(_parse_line(timeline, line) for line in text.splitlines() if _tells(line))
    order = [one.timeline for one in switches] + [timeline]
    positions = [one.position for one in switches]
    if order != sorted(set(order)) or positions != sorted(positions):
        raise SourceFailed(f"the history of timeline {timeline} is out of order", hint="Look at the file.")
    return TimelineHistory(system_identifier, timeline, text, switches)


def _tells(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _parse_line(timeline: int, line: str) -> Switch:
    match = _LINE.fullmatch(line)
    if match is None:
        raise SourceFailed(f"the history of timeline {timeline} has a line {line[:80]!r}", hint="Look at the file.")
    return Switch(int(match[1]), parse_lsn(match[2]))


def history_name(timeline: int) -> str:
    """Return the name of a timeline's history file."""
    return f"{timeline:08X}.history"


def history_of(generation: Generation) -> TimelineHistory | None:
    """Return the timeline that a generation is; None where it is none of PostgreSQL's."""
    details = generation.details
    system, timeline, text = details.get("system_identifier"), details.get("timeline"), details.get("history")
    if not (isinstance(system, str) and isinstance(timeline, int) and isinstance(text, str)):
        return None
    return read_history(system, timeline, text.encode())


def generation_id(system_identifier: str, timeline: int, content: bytes) -> str:
    """Return the id of a timeline's generation: what it is and where it came from decide it, nothing else."""
    hasher = blake3(derive_key_context=_CONTEXT)
    for part in (system_identifier.encode(), str(timeline).encode(), content):
        hasher.update(len(part).to_bytes(4, "big") + part)
    return hasher.digest(ID_BYTES).hex()


def generation_of(history: TimelineHistory, segment_bytes: int) -> Generation:
    """Return the generation of a timeline; the same one whoever asks, and wherever its log is first seen."""
    parent = parent_of(history)
    fork = history.switches[-1].position if history.switches else None
    return Generation(
        id=generation_id(history.system_identifier, history.timeline, history.text.encode()),
        begins=0 if fork is None else fork - fork % segment_bytes,
        parent=None
        if parent is None
        else generation_id(parent.system_identifier, parent.timeline, parent.text.encode()),
        fork=fork,
        details={
            "kind": "postgres",
            "system_identifier": history.system_identifier,
            "timeline": history.timeline,
            "history": history.text,
            "segment_bytes": segment_bytes,
        },
    )


def parent_of(history: TimelineHistory) -> TimelineHistory | None:
    """Return the timeline before, as its child's history tells; None for one that has none.

    The server writes a child's file as its parent's, an empty line, and one line more.
    """
    if not history.switches:
        return None
    lines = history.text.splitlines(keepends=True)
    last = max(number for number, line in enumerate(lines) if _tells(line))
    text = "".join(lines[:last])
    text = text.removesuffix("\n") if len(history.switches) > 1 else ""
    return TimelineHistory(history.system_identifier, history.switches[-1].timeline, text, history.switches[:-1])


def is_ancestor(older: TimelineHistory, younger: TimelineHistory) -> bool:
    """Tell whether a timeline is on the way to another, or is that one."""
    if older.system_identifier != younger.system_identifier:
        return False
    if older.timeline == younger.timeline:
        return older.switches == younger.switches
    known = [one.timeline for one in younger.switches]
    return older.timeline in known and younger.switches[: known.index(older.timeline)] == older.switches


def ancestor(history: TimelineHistory, timeline: int) -> TimelineHistory:
    """Return the timeline itself or one of those before it; ``SourceFailed`` for one that is none of them."""
    found: TimelineHistory | None = history
    while found is not None and found.timeline != timeline:
        found = parent_of(found)
    if found is None:
        raise SourceFailed(f"timeline {timeline} is not in the history of timeline {history.timeline}")
    return found


def refuse_taken(history: TimelineHistory, generations: Sequence[Generation]) -> None:
    """Raise ``Conflict`` where the timeline's number belongs to another history that was stored first."""
    for generation in generations:
        known = history_of(generation)
        if known is None or known.system_identifier != history.system_identifier:
            continue
        if known.timeline == history.timeline and known.text != history.text:
            raise Conflict(
                f"timeline {history.timeline} of system {history.system_identifier} is not the one stored",
                hint="Two servers were promoted to the same timeline: a clone, or a restored copy. Find out which is "
                "the right one; the other must not use this area (give it a source of its own).",
            )
