"""The stored log read back: by range, each overlap compared, with its samples and the reasons of its gaps."""

from __future__ import annotations

import bisect
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from datetime import datetime

from holdfast.model.errors import IntegrityBroken, NotFound
from holdfast.model.logs import Generation, Sample, Stretch
from holdfast.repository.area import Area
from holdfast.repository.format.log import SpanHeader
from holdfast.repository.log.carried import read_carried
from holdfast.repository.log.listing import ListedSpan, LogListing, in_order, list_generations, list_log
from holdfast.repository.log.spans import SpanReader, read_generation

PART_BYTES = 4 << 20
PARTS_AHEAD = 8
READERS_MAX = 16
GAP_SPANS_MAX = 8
LISTINGS_MAX = 3
"""How often a read lists anew because spans went away (merged into larger ones) before it gives up."""


@dataclass(frozen=True, slots=True)
class Part:
    """Positions read at once from one span; ``others`` are spans that hold some of them too."""

    start: int
    end: int
    span: ListedSpan
    others: tuple[ListedSpan, ...]


def plan_parts(spans: Sequence[ListedSpan], start: int, end: int) -> tuple[list[Part], int]:
    """Cover ``[start, end)`` with parts, each from the span that reaches furthest; return how far that went. Pure."""
    overlapping = [span for span in spans if span.name.start < end and span.name.end > start]
    parts: list[Part] = []
    active: list[ListedSpan] = []
    at, place = start, 0
    while at < end:
        while place < len(overlapping) and overlapping[place].name.start <= at:
            active.append(overlapping[place])
            place += 1
        active = [span for span in active if span.name.end > at]
        if not active:
            break
        best = max(active, key=lambda span: span.name.end)
        stop = min(end, best.name.end, at + PART_BYTES)
        later = place
        while later < len(overlapping) and overlapping[later].name.start < stop:
            later += 1
        others = tuple(span for span in (*active, *overlapping[place:later]) if span is not best)
        parts.append(Part(at, stop, best, others))
        at = stop
    return parts, at


class StoredLog:
    """The log of one area as listed when it was opened, or at ``refresh``. Keeps ``LogContent``.

    ``executor`` fetches ahead; a read must not run on a thread of that same executor.
    """

    def __init__(self, area: Area, executor: Executor) -> None:
        self._area = area
        self._executor = executor
        self._lock = threading.Lock()
        self._readers: OrderedDict[str, SpanReader] = OrderedDict()
        self._generations: list[Generation] | None = None
        self._carried: tuple[str, Sample] | None = None
        self._stretches: dict[str, list[Stretch]] = {}
        self.listing = LogListing({}, frozenset())
        self.refresh()

    def refresh(self) -> None:
        """List anew, and look again at what the follower's lease carries."""
        listing = list_log(self._area)
        with self._lock:
            if self._generations is not None and listing.generations != {one.id for one in self._generations}:
                self._generations = None
            self.listing, self._stretches = listing, {}
        self._carried = read_carried(self._area)

    def refresh_generations(self) -> None:
        """Look anew which generations there are, and at nothing else."""
        found = list_generations(self._area)
        with self._lock:
            if found != self.listing.generations:
                self.listing = replace(self.listing, generations=found)
                self._generations = None

    def generations(self) -> Sequence[Generation]:
        """Return every generation, parents before children, else in the order in which they were stored."""
        with self._lock:
            known, wanted = self._generations, sorted(self.listing.generations)
        if known is None:
            read = self._executor.map(lambda one: read_generation(self._area, one), wanted)
            known = in_order(list(read))
            with self._lock:
                self._generations = known
        return known

    def stretches(self, generation: str) -> Sequence[Stretch]:
        """Return what a generation itself holds, as few stretches, in order."""
        with self._lock:
            if generation not in self._stretches:
                self._stretches[generation] = self.listing.stretches(generation)
            return self._stretches[generation]

    def spans(self, generation: str) -> Sequence[ListedSpan]:
        """Return the spans of a generation in order of start, each with the time at which the store took it."""
        return self.listing.spans.get(generation, ())

    def read(self, generation: str, stretch: Stretch) -> Iterator[bytes]:
        """Yield the bytes of a stretch, verified, in order and in pieces of at most ``PART_BYTES``.

        Raises ``IntegrityBroken`` before the first piece where the listing has a hole, at a piece where no sound span
        holds it, and where spans that overlap differ.
        """
        parts, reached = plan_parts(self.spans(generation), stretch.start, stretch.end)
        if reached < stretch.end:
            raise self._hole(generation, reached)
        ahead: deque[Future[bytes]] = deque()
        coming = iter(parts)
        try:
            for part in coming:
                ahead.append(self._executor.submit(self._fetch, generation, part))
                if len(ahead) >= PARTS_AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for waiting in ahead:
                waiting.cancel()

    def _hole(self, generation: str, position: int) -> IntegrityBroken:
        return IntegrityBroken(
            f"the log of {self._area.title} lacks position {position:x} of generation {generation[:12]}",
            hint="`holdfast windows` names the gaps and the moments that can be reached; bring spans in from another "
            "copy of the repository if it has them.",
        )

    def _fetch(self, generation: str, part: Part) -> bytes:
        """Return the bytes of a part; from other spans where its own is gone or broken."""
        try:
            return self._compared(part)
        except (NotFound, IntegrityBroken) as error:
            return self._elsewhere(generation, part, error)

    def _compared(self, part: Part) -> bytes:
        reader = self._reader(part.span)
        content = reader.read(part.start, part.end)
        for other in part.others:
            inside = reader.span.start <= other.name.start and other.name.end <= reader.span.end
            if reader.header.merged and inside:
                continue  # it was compared when it was merged, and waits to be deleted
            self._compare(part, content, other)
        return bytes(content)

    def _compare(self, part: Part, content: memoryview, other: ListedSpan) -> None:
        start, end = max(part.start, other.name.start), min(part.end, other.name.end)
        try:
            same = self._reader(other).read(start, end) == content[start - part.start : end - part.start]
        except (NotFound, IntegrityBroken):
            return  # gone, or broken by itself: `check` tells; what is read here is sound
        if not same:
            raise Differing(
                f"two spans of the log of {self._area.title} tell different bytes of positions {start:x} to {end:x} of "
                f"generation {part.span.name.generation[:12]}",
                hint="Two servers wrote to this source as if they were one. Restore to a moment before that position, "
                "and give each server a source of its own.",
            )

    def _elsewhere(self, generation: str, part: Part, reason: NotFound | IntegrityBroken) -> bytes:
        if isinstance(reason, Differing):
            raise reason
        bad = {part.span.name.digest}
        for _ in range(LISTINGS_MAX):
            spans = [span for span in self.spans(generation) if span.name.digest not in bad]
            parts, reached = plan_parts(spans, part.start, part.end)
            if reached < part.end:
                # Merged and deleted since the listing: the larger span is in the next one.
                fresh = list_log(self._area).spans.get(generation, ())
                spans = [span for span in fresh if span.name.digest not in bad]
                parts, reached = plan_parts(spans, part.start, part.end)
            if reached < part.end:
                break
            try:
                return b"".join(self._compared(other) for other in parts)
            except Differing:
                raise
            except (NotFound, IntegrityBroken):
                bad |= {other.span.name.digest for other in parts if not self._is_sound(other)}
        if isinstance(reason, NotFound):
            raise self._hole(generation, part.start) from reason
        raise reason

    def _is_sound(self, part: Part) -> bool:
        try:
            self._reader(part.span).read(part.start, part.end)
        except (NotFound, IntegrityBroken):
            return False
        return True

    def _reader(self, span: ListedSpan) -> SpanReader:
        with self._lock:
            known = self._readers.get(span.name.digest)
            if known is not None:
                self._readers.move_to_end(span.name.digest)
                return known
        opened = SpanReader.open(self._area, span.name, span.size_bytes)
        with self._lock:
            self._readers[span.name.digest] = opened
            if len(self._readers) > READERS_MAX:
                self._readers.popitem(last=False)
        return opened

    def header(self, span: ListedSpan) -> SpanHeader:
        """Return what a span tells beside its bytes; raises ``NotFound`` or ``IntegrityBroken``."""
        return self._reader(span).header

    def samples(self, generation: str, stretch: Stretch) -> Sequence[Sample]:
        """Return the samples with positions in a stretch, its end included, in order of time.

        One read for each span of the stretch: ``samples_around`` finds a moment in a long log. What the follower's
        lease carries counts too.
        """
        near = [
            span for span in self.spans(generation) if span.name.start <= stretch.end and span.name.end >= stretch.start
        ]
        found = {one for header in self._executor.map(self.header, near) for one in header.samples}
        carried = self.carried(generation)
        if carried is not None:
            found.add(carried)
        return sorted(one for one in found if stretch.start <= one.position <= stretch.end)

    def carried(self, generation: str) -> Sample | None:
        """Return the sample of the follower's lease where it is of this generation and all before it is stored."""
        if self._carried is None or self._carried[0] != generation:
            return None
        sample = self._carried[1]
        covered = any(one.start <= sample.position <= one.end for one in self.stretches(generation))
        return sample if covered else None

    def samples_around(self, generation: str, at: datetime) -> tuple[Sample | None, Sample | None]:
        """Return the newest sample not after a moment and the oldest one after it, None where there is none.

        Reads a span's header a step, as often as the number of spans has binary digits, and a few more.
        """
        spans = self.spans(generation)
        low, high = 0, len(spans)
        while low < high:
            middle = (low + high) // 2
            first = self._first_sample(spans, middle)
            if first is not None and first.at <= at:
                low = middle + 1
            else:
                high = middle
        near = spans[max(0, low - 2) : low + 2]
        known = {one for span in near for one in self.header(span).samples}
        carried = self.carried(generation)
        if carried is not None:
            known.add(carried)
        before = max((one for one in known if one.at <= at), default=None)
        after = min((one for one in known if one.at > at), default=None)
        return before, after

    def _first_sample(self, spans: Sequence[ListedSpan], place: int) -> Sample | None:
        """Return the first sample at or behind a place in the order of spans; a few spans may have none."""
        for span in spans[place : place + 4]:
            samples = self.header(span).samples
            if samples:
                return samples[0]
        return None

    def gap_reason(self, generation: str, position: int) -> str | None:
        """Return why the bytes before ``position``, where a stretch begins, are missing, as far as somebody told.

        One of the first spans tells it: what a follower that died left beyond a hole may begin before it.
        """
        spans = self.spans(generation)
        place = bisect.bisect_left(spans, position, key=lambda span: span.name.start)
        for span in spans[place : place + GAP_SPANS_MAX]:
            try:
                reason = self.header(span).gap
            except (NotFound, IntegrityBroken):
                continue  # `check` tells; the gap then has no reason
            if reason is not None:
                return reason
        return None


class Differing(IntegrityBroken):
    """Spans that overlap have different bytes: no other span helps."""
