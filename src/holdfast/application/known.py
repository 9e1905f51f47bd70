"""What the history of a source says of the server it belongs to."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast import bootstrap
from holdfast.repository import history as histories
from holdfast.repository.area import Area
from holdfast.sources.kinds import PHYSICAL
from holdfast.sources.port import Identity


@dataclass(frozen=True, slots=True)
class Known:
    """What the history knows of a source: whose log it may be, and whether a physical backup lies in it."""

    identity: Identity | None
    has_base: bool


def known_of(area: Area, tools: bootstrap.Tools, kind: str) -> Known:
    """Return what the backups of a source, and what was adopted since, say of its server."""
    history = histories.read_history(area, tools.executor, tools.remembered)
    for entry in reversed(history.live_entries()):
        record = histories.record_of(area, entry)
        if record.form == PHYSICAL.form:
            return Known(Identity(kind, history.state.identity or record.identity), True)
    adopted = history.state.identity
    return Known(Identity(kind, adopted) if adopted else None, False)
