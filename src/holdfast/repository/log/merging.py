"""Many small spans become few large ones: the union is put and read back, then the small ones are let go.

Nothing is rewritten in place, and nothing is deleted before its bytes were found in what stays.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime, timedelta

from holdfast.model.errors import IntegrityBroken, NotFound
from holdfast.model.logs import Sample, Stretch
from holdfast.repository import history as histories
from holdfast.repository.area import Area
from holdfast.repository.format import names, rules
from holdfast.repository.format.entry import EntryKind, HistoryEntry, Positions
from holdfast.repository.format.log import SPAN_BYTES_MAX, SpanHeader, thinned
from holdfast.repository.format.names import RunId, SpanName
from holdfast.repository.format.rules import HistoryState
from holdfast.repository.history import History
from holdfast.repository.log.listing import ListedSpan, LogListing, list_log
from holdfast.repository.log.reading import PART_BYTES, StoredLog
from holdfast.repository.log.spans import SpanReader, put_span, seal_span, span_title
from holdfast.repository.remembered import Remembered

FULL_BYTES = 32 << 20
"""A span of this size is large enough and is not merged again."""

HOURLY = timedelta(hours=1)
DAILY = timedelta(days=1)
DELETE_AFTER = timedelta(hours=24)
"""How long the small ones stay after they were let go: readers that listed before still find them."""


@dataclass(frozen=True, slots=True)
class MergeRun:
    """Spans without a hole between them, to become one that holds exactly their union."""

    generation: str
    stretch: Stretch
    spans: tuple[ListedSpan, ...]


@dataclass(frozen=True, slots=True)
class Author:
    """Who puts a history entry, and when."""

    run: RunId
    host: str
    at: datetime
    remembered: Remembered | None = None


def plan_merges(listing: LogListing, now: datetime) -> list[MergeRun]:
    """Decide what is merged: what is older than a day, and what is older than an hour and not much of a size. Pure.

    A span that alone is more than two thirds of a run stays out of the hourly ones, so that the same bytes are not
    written over and over; what lies within another span is left to that one. ``now`` is by the store's clock.
    """
    planned: list[MergeRun] = []
    for generation, listed in listing.spans.items():
        outer = _outermost(listed)
        taken: set[str] = set()
        for age, evenly in ((DAILY, False), (HOURLY, True)):
            old = [span for span in outer if now - span.put_at >= age and span.name.digest not in taken]
            for run in _runs(old):
                for part in _even(run) if evenly else [run]:
                    if len(part) > 1:
                        stretch = Stretch(part[0].name.start, max(span.name.end for span in part))
                        planned.append(MergeRun(generation, stretch, tuple(part)))
                        taken |= {span.name.digest for span in part}
    return planned


def _outermost(spans: Sequence[ListedSpan]) -> list[ListedSpan]:
    """Return the spans that lie within no other, in order of start; of equal ones, the one that would stay."""
    inner = {span.digest for span, _ in rules.keepers_of((one.name for one in spans), (one.name for one in spans))}
    return [span for span in spans if span.name.digest not in inner]


def _runs(spans: Sequence[ListedSpan]) -> Iterator[list[ListedSpan]]:
    run: list[ListedSpan] = []
    for span in spans:
        if span.name.end - span.name.start >= FULL_BYTES:
            if run:
                yield run
            run = []
            continue
        if run and (span.name.start > run[-1].name.end or span.name.end - run[0].name.start > SPAN_BYTES_MAX):
            yield run
            run = []
        run.append(span)
    if run:
        yield run


def _even(run: Sequence[ListedSpan]) -> Iterator[list[ListedSpan]]:
    """Split a run around spans that are more than two thirds of it."""
    total = run[-1].name.end - run[0].name.start
    for place, span in enumerate(run):
        if 3 * (span.name.end - span.name.start) > 2 * total and len(run) > 1:
            for part in (run[:place], run[place + 1 :]):
                if part:
                    yield from _even(part)
            return
    yield list(run)


def merge_run(log: StoredLog, area: Area, run: MergeRun, level: int = 3) -> SpanName:
    """Put the union of a run and read it back; may be repeated. Raises ``IntegrityBroken`` where spans differ."""
    headers = [log.header(span) for span in run.spans]
    content = bytearray()
    for piece in log.read(run.generation, run.stretch):
        content += piece
    samples: list[Sample] = sorted({one for header in headers for one in header.samples})
    header = SpanHeader(
        samples=thinned(samples),
        gap=next((one.gap for one in headers if one.gap is not None), None),
        identity=headers[0].identity,
        received_at=max(one.received_at for one in headers),
        merged=sum(max(one.merged, 1) for one in headers),
    )
    sealed = seal_span(area, run.generation, run.stretch.start, content, header, level)
    put_span(area, sealed)
    _prove(area, ListedSpan(sealed.name, len(sealed.data), header.received_at), content)
    return sealed.name


def _prove(area: Area, span: ListedSpan, content: bytearray) -> None:
    """Read a span back from the store and compare it with what it was made of."""
    reader = SpanReader.open(area, span.name, span.size_bytes)
    with memoryview(content) as view:
        for start in range(span.name.start, span.name.end, PART_BYTES):
            end = min(start + PART_BYTES, span.name.end)
            if reader.read(start, end) != view[start - span.name.start : end - span.name.start]:
                raise IntegrityBroken(
                    f"{span_title(area, span.name)} came back with other bytes than were put",
                    hint="The small spans stay. Run `holdfast doctor`: something answers in the store's place.",
                )


def merge_log(
    area: Area,
    executor: Executor,
    now: datetime,
    *,
    level: int = 3,
    stop_requested: Callable[[], bool] = lambda: False,
) -> list[SpanName]:
    """Merge what is due and return the new spans. The small ones stay until ``condemn_merged`` and a day after.

    Spans that are broken, or differ, keep only their own run from being merged: raises ``IntegrityBroken`` at the end.
    """
    log = StoredLog(area, executor)
    made = []
    broken: IntegrityBroken | None = None
    for run in plan_merges(log.listing, now):
        if stop_requested():
            break
        try:
            made.append(merge_run(log, area, run, level))
        except NotFound:
            continue  # another one merged them and cleaned up
        except IntegrityBroken as error:
            broken = broken or error
    if broken is not None:
        raise broken
    return made


def condemn_merged(area: Area, history: History, author: Author) -> History:
    """Put the entry that lets go of every span within another one; nothing is put where there is none.

    Raises ``KeyInvalid`` where the key at hand may not remove.
    """
    listing = list_log(area)
    every = [span.name for spans in listing.spans.values() for span in spans]
    kept = sorted({keeper for _, keeper in rules.keepers_of(every, every)})
    known = {span for entry, _ in history.entries if entry.counts for span in entry.spans}
    if all(span in known for span in kept):
        return history

    def decide(_: HistoryState) -> HistoryEntry:
        return HistoryEntry(
            number=0,
            kind=EntryKind.CONDEMN,
            previous=None,
            host=author.host,
            run=author.run,
            at=author.at,
            reason="merged",
            log_ends=listing.ends(),
            spans=tuple(kept),
        )

    return histories.append(area, history, decide, author.remembered)


def delete_condemned(area: Area, history: History, now: datetime, after: timedelta = DELETE_AFTER) -> list[SpanName]:
    """Delete the spans that a condemning entry let go of long enough ago; return them. May be repeated, by whomever.

    A span goes only when what stays in its place was read and has its bytes: what differs, or stays in name only, is
    left for ``check`` to tell. So is what was expired: spans that end where the log begins, or before.
    """
    listing = list_log(area)
    old = [entry for entry, _ in history.entries if entry.counts and now - entry.at >= after]
    listed = {span.name: span for spans in listing.spans.values() for span in spans}
    kept = {span for entry in old for span in entry.spans if span in listed}
    starts: Positions = ()
    for entry in old:
        starts = rules.furthest(starts, entry.log_starts)
    begins = dict(starts)
    gone = [span for span in listed if span.end <= begins.get(span.generation, 0)]
    replaced = [
        pair for pair in rules.keepers_of(kept, list(listed)) if pair[0].end > begins.get(pair[0].generation, 0)
    ]
    for keeper, pairs in itertools.groupby(sorted(replaced, key=lambda pair: pair[1]), key=lambda pair: pair[1]):
        gone += _proved_within(area, listed[keeper], [listed[span] for span, _ in pairs])
    for span in gone:
        area.store.delete(names.log_span(area.keys.area, span))
    return gone


def _proved_within(area: Area, keeper: ListedSpan, spans: Sequence[ListedSpan]) -> list[SpanName]:
    """Return those of the spans whose bytes the keeper has; none where it is gone or broken."""
    try:
        large = SpanReader.open(area, keeper.name, keeper.size_bytes)
    except (IntegrityBroken, NotFound):
        return []
    return [span.name for span in spans if _has_bytes_of(area, large, span)]


def _has_bytes_of(area: Area, large: SpanReader, span: ListedSpan) -> bool:
    try:
        small = SpanReader.open(area, span.name, span.size_bytes)
        return all(
            small.read(start, end) == large.read(start, end)
            for start in range(span.name.start, span.name.end, PART_BYTES)
            for end in [min(start + PART_BYTES, span.name.end)]
        )
    except (IntegrityBroken, NotFound):
        return False
