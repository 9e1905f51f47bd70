"""Which bytes of the stored log make up a file that restore_command asks for. Pure, but for what it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.model.errors import ConfigInvalid, IntegrityBroken
from holdfast.model.logs import Generation, Stretch, holes
from holdfast.sources.port import LogContent
from holdfast.sources.postgres.details import format_lsn
from holdfast.sources.postgres.follow.timelines import TimelineHistory, history_of
from holdfast.sources.postgres.wal_files import WalFileName


@dataclass(frozen=True, slots=True)
class SegmentPart:
    """A segment as far as it is stored: ``stretch`` of a generation, then ``zeros`` to its full size."""

    generation: str
    stretch: Stretch
    zeros: int

    @property
    def is_complete(self) -> bool:
        """Whether it is the whole segment, which never changes any more."""
        return self.zeros == 0


def generations_of(
    generations: Sequence[Generation], timeline: int, system_identifier: str | None
) -> tuple[Generation, TimelineHistory] | None:
    """Return a timeline's generation; None where it certainly is not stored.

    Raises ``ConfigInvalid`` where the log holds that timeline of several systems and none was named.
    """
    known = [(one, history) for one in generations if (history := history_of(one)) is not None]
    found = [
        (one, history)
        for one, history in known
        if history.timeline == timeline and system_identifier in (None, history.system_identifier)
    ]
    if len(found) > 1:
        raise ConfigInvalid(
            f"the log holds timeline {timeline} of several systems",
            hint="Run the command in the data folder, as PostgreSQL does: global/pg_control tells which one is wanted.",
        )
    return found[0] if found else None


def find_segment(log: LogContent, name: WalFileName, system_identifier: str | None) -> SegmentPart | None:
    """Return what is stored of a segment; None where it certainly is not part of the log.

    The last one is filled with zeros, as the server itself would have it. Raises ``IntegrityBroken`` for a hole: the
    server must not take that for the end of the log.
    """
    found = generations_of(log.generations(), name.timeline, system_identifier)
    if found is None:
        return None
    generation, _ = found
    segment_bytes = generation.details.get("segment_bytes")
    wanted = name.stretch(segment_bytes) if isinstance(segment_bytes, int) else None
    stretches = log.stretches(generation.id)
    if wanted is None or not stretches or wanted.start < generation.begins or wanted.start >= stretches[-1].end:
        return None
    missing = holes(stretches, wanted)
    end = stretches[-1].end
    if missing == [] or (len(missing) == 1 and missing[0] == Stretch(end, wanted.end)):
        stored = Stretch(wanted.start, min(wanted.end, end))
        return SegmentPart(generation.id, stored, wanted.end - stored.end)
    raise IntegrityBroken(
        f"the log has a hole: timeline {name.timeline} lacks {format_lsn(missing[0].start)} to "
        f"{format_lsn(missing[0].end)}, and goes on behind it",
        hint="Restore to a moment before it, or from a base backup taken after it (holdfast windows names both).",
    )
