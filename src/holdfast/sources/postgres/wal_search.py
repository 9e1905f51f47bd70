"""Finds things on the way along the log without reading all of it: a moment, the last record, the last transaction."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from holdfast.model.errors import IntegrityBroken
from holdfast.model.logs import Sample, Stretch
from holdfast.sources.postgres.wal_path import Path
from holdfast.sources.postgres.wal_walk import (
    ENDS,
    LONG_HEADER_BYTES,
    PAGE_BYTES,
    SHORT_HEADER_BYTES,
    Extent,
    Notable,
    Walk,
)

CLOCK_STEP = timedelta(seconds=10)
"""How far commit times may stand out of order without a search by halves losing its way."""
NEAR_BYTES = 32 << 20
"""What is short enough to be walked rather than halved."""
LOOK_BACK_BYTES = (1 << 20, 16 << 20, 128 << 20, 1 << 30)
REACHED_BYTES_MAX = 128 << 20
"""How far back the last transaction is looked for, where the walk met none."""


def newest_sample(path: Path) -> Sample | None:
    """Return the newest sample on a way: at that moment the log ended where the way still goes."""
    for leg in reversed(path.legs):
        end = leg.stretch.end
        for size in (*LOOK_BACK_BYTES, leg.stretch.size_bytes):
            start = max(leg.stretch.start, end - size)
            samples = path.log.samples(leg.line.generation, Stretch(start, end))
            if samples:
                return max(samples)
            if start == leg.stretch.start:
                break
    return None


def samples_in(path: Path, start: int, end: int) -> list[Sample]:
    found: list[Sample] = []
    for leg in path.cut(start, end):
        found += path.log.samples(leg.line.generation, leg.stretch)
    return found


def near(path: Path, moment: datetime) -> tuple[int, bool]:
    """Return a position before which nothing is later than a moment, and whether the log tells that it is after one.

    All that lies before a sample's position was written before its time.
    """
    lower, upper, is_proven = path.before, path.end, False
    for leg in path.legs:
        before, _ = path.log.samples_around(leg.line.generation, moment)
        if before is not None and leg.stretch.start <= before.position <= leg.stretch.end:
            lower, is_proven = max(lower, before.position), True
        _, after = path.log.samples_around(leg.line.generation, moment + CLOCK_STEP)
        if after is not None and leg.stretch.start <= after.position <= leg.stretch.end:
            upper = max(lower, min(upper, after.position))
    return _halved(path, moment, lower, upper), is_proven


def _halved(path: Path, moment: datetime, lower: int, upper: int) -> int:
    """Move a lower bound up by looking at commits in the middle, until the rest is short enough to be walked."""
    while upper - lower > NEAR_BYTES:
        middle = lower + (upper - lower) // 2
        middle -= middle % path.segment_bytes
        if middle <= lower:
            break
        one = next((one for one in notables(path, middle, upper) if one.kind in ENDS), None)
        if one is not None and one.at <= moment - CLOCK_STEP:
            lower = middle
        else:
            upper = middle
    return lower


def _walk(path: Path, position: int, stop: int | None = None) -> Walk:
    """Walk from the page that holds a position, or the first whole one, to the end of the way."""
    start = position - position % PAGE_BYTES
    if start < path.before:
        start = -(-path.before // PAGE_BYTES) * PAGE_BYTES
    # A record that begins before `stop` is told only if it is complete; it may end behind it.
    return Walk(start, path.segment_bytes, path.read(start, path.end), stop)


def notables(path: Path, position: int, stop: int | None = None) -> Iterator[Notable]:
    """Yield what is notable from the page that holds a position on, or some earlier one.

    Raises ``IntegrityBroken`` where what is stored is no log.
    """
    for start in dict.fromkeys((position, position - position % path.segment_bytes)):
        walk = _walk(path, start, stop)
        yield from walk
        _refuse_trouble(path, walk)
        if walk.last is not None:
            return
        # The rest of a segment behind a switch is empty pages: the records before it lead on.


def last_record(path: Path, limit: int) -> Extent | None:
    """Return the last complete record that begins before ``limit``, None where it lies before the way."""
    for size in (*LOOK_BACK_BYTES, limit - path.before):
        start = max(path.before, limit - size)
        for begin in dict.fromkeys((start, max(path.before, start - start % path.segment_bytes))):
            walk = _walk(path, begin, limit)
            walk.run()
            _refuse_trouble(path, walk)
            if walk.last is not None:
                return walk.last
        if start == path.before:
            break
    return None


def _refuse_trouble(path: Path, walk: Walk) -> None:
    if walk.trouble is not None:
        raise IntegrityBroken(
            f"the log of timeline {path.line_at(walk.ended).timeline} cannot be read: {walk.trouble}",
            hint="Restore to a moment before it (--lsn), and take a new backup with `holdfast backup --tier full`.",
        )


def transaction_before(path: Path, position: int) -> Notable | None:
    """Return the last transaction that ended before a position, as far as it is near."""
    for size in LOOK_BACK_BYTES:
        if size > REACHED_BYTES_MAX:
            break
        start = max(path.before, position - size)
        start = max(path.before, start - start % path.segment_bytes)
        found = None
        for one in notables(path, start, position):
            if one.kind in ENDS and one.start < position:
                found = one
        if found is not None or start == path.before:
            return found
    return None


def without_header(position: int, segment_bytes: int) -> int:
    """Return the page's start for a position right behind its header: so a server tells where it writes next."""
    header = LONG_HEADER_BYTES if position % segment_bytes < PAGE_BYTES else SHORT_HEADER_BYTES
    return position - header if position % PAGE_BYTES == header else position
