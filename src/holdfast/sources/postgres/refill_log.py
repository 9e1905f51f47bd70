"""Chooses what of the stored log goes into pg_wal of a restored folder: what follows the backup, up to the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.model.errors import IntegrityBroken
from holdfast.model.logs import Stretch
from holdfast.sources.port import LogFile
from holdfast.sources.postgres.details import BackupDetails, format_lsn, parse_lsn
from holdfast.sources.postgres.locate import Target
from holdfast.sources.postgres.recovery import RecoveryTarget
from holdfast.sources.postgres.refill_wal import STATUS_FOLDER, WAL_FOLDER, segment_name
from holdfast.sources.postgres.wal_path import Leg


@dataclass(frozen=True, slots=True)
class PlannedLog:
    """The segments to write, and small files to make: histories, and marks that all of it was archived already."""

    files: tuple[LogFile, ...]
    made: dict[str, bytes]


def recovery_target(target: Target) -> RecoveryTarget:
    """Return the target in the words of the server's settings."""
    return RecoveryTarget(format_lsn(target.lsn), target.inclusive, target.timeline)


def refuse_other_base(details: BackupDetails, target: Target) -> None:
    """Raise ``IntegrityBroken`` where a target does not follow on a backup."""
    stop = parse_lsn(details.stop_lsn)
    is_right = bool(target.legs) and target.legs[0].stretch.start == stop and target.end >= stop
    if not is_right or any(leg.line.system != details.system_identifier for leg in target.legs):
        raise IntegrityBroken(
            f"the log up to {format_lsn(target.lsn)} does not follow on the backup that ends at {details.stop_lsn}",
            hint="Plan the restore again; report this if it comes back.",
        )


def plan_log(details: BackupDetails, target: Target, folder: Path, mode: int) -> PlannedLog:
    """Lay the legs of a target out as segments of their timelines; the last one ends in zeros, after the target.

    The segment of a switch is the new timeline's, as the server looks for it there first. That of the backup's stop
    gets the rest behind what the backup itself wrote.
    """
    size = details.wal_segment_size
    files = []
    for number in range(target.legs[0].stretch.start // size, -(-target.end // size)):
        begin = number * size
        parts = _within(target.legs, begin, begin + size)
        timeline = parts[-1].line.timeline
        first = parts[0]
        if first.stretch.start > begin and timeline != details.stop_timeline:
            # The backup's own segment has another name: this one needs all of its bytes from the log.
            parts[0] = Leg(first.line, Stretch(begin, first.stretch.end))
        pieces = tuple((part.line.generation, part.stretch) for part in parts)
        files.append(LogFile(folder / segment_name(timeline, number, size), mode, begin, size, pieces))
    made = {f"{WAL_FOLDER}/{number:08X}.history": text.encode() for number, text in target.histories}
    names = [*(file.path.name for file in files), *(path.rpartition("/")[2] for path in made)]
    return PlannedLog(tuple(files), {**made, **{f"{STATUS_FOLDER}/{name}.done": b"" for name in names}})


def _within(legs: Sequence[Leg], start: int, end: int) -> list[Leg]:
    found = []
    for leg in legs:
        part = Stretch(max(start, leg.stretch.start), min(end, leg.stretch.end))
        if part.start < part.end:
            found.append(Leg(leg.line, part))
    return found
