"""Recovery windows of sources: from what moment to what moment each can be brought back, and what lies between."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.application.points import base_of
from holdfast.model.windows import Anchor, Reach, Window, WindowGap, common_reach, reach_of
from holdfast.repository.format.record import BackupRecord
from holdfast.repository.format.rules import HistoryState
from holdfast.repository.log.overview import facts_of
from holdfast.repository.log.reading import StoredLog
from holdfast.sources.kinds import PHYSICAL, POSTGRES

COMMON = "*"
OTHER_SERVER = "the source's server became another one"


@dataclass(frozen=True, slots=True)
class SourceReach:
    """What can be reached of a source, or (named ``*``) of all of them at once."""

    source: str
    reach: Reach


def reach_of_source(records: Sequence[BackupRecord], state: HistoryState, log: StoredLog) -> Reach:
    """Return the windows of one source: of each server it had, along its newest timeline.

    Reads a bounded number of spans. ``records`` are its live backups in order.
    """
    from holdfast.sources.postgres.wal_path import lines_of

    bases = [base_of(record) for record in records if record.form == PHYSICAL.form and record.kind == POSTGRES]
    systems = lines_of(log.generations())
    found: list[Reach] = []
    for system in dict.fromkeys(base.system for base in bases):
        lines = systems.get(system, {})
        anchors = [
            Anchor(
                base.id,
                lines[base.timeline].generation if base.timeline in lines else f"timeline {base.timeline}",
                base.stop,
                base.ended_at,
            )
            for base in bases
            if base.system == system
        ]
        if lines:
            facts = facts_of(log, anchors, state, lines[max(lines)].generation)
            found.append(reach_of(facts, anchors))
        else:
            # No log: each backup is a moment of its own.
            found += [_moment(anchor) for anchor in anchors]
    return _joined(found)


def _moment(anchor: Anchor) -> Reach:
    return Reach((Window(anchor.ended_at, anchor.ended_at, anchor.stop, anchor.stop, anchor.backup),))


def _joined(reaches: Sequence[Reach]) -> Reach:
    """Put what was reached of one server after another together."""
    windows = sorted((window for reach in reaches for window in reach.windows), key=lambda one: (one.start, one.end))
    known = [gap for reach in reaches for gap in reach.gaps]
    for before, after in itertools.pairwise(windows):
        if before.end < after.start and not any(gap.start < after.start and gap.end > before.end for gap in known):
            other = after.start_position < before.end_position
            reason = OTHER_SERVER if other else "no log was followed"
            known.append(WindowGap(before.end, after.start, reason))
    return Reach(tuple(windows), tuple(sorted(known, key=lambda one: (one.start, one.end))))


def with_common(reaches: Sequence[SourceReach]) -> list[SourceReach]:
    """Return the reaches of sources, and last that of all of them at once."""
    return [*reaches, SourceReach(COMMON, common_reach([one.reach for one in reaches]))]
