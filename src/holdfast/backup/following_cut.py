"""Cuts a change log into pieces to be stored: where a span ends, which samples and which gap go with it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from holdfast.model.errors import IntegrityBroken
from holdfast.model.logs import Generation, Sample
from holdfast.repository.area import Area
from holdfast.repository.format.log import SpanHeader, identity_of, thinned
from holdfast.repository.log.spans import SealedSpan, seal_span

Data = bytes | bytearray | memoryview

TAIL_BYTES = 8192
"""How many of the last bytes are kept, to be compared when they come again."""

SAMPLES_WAITING_MAX = 4096


@dataclass(slots=True)
class Piece:
    """Bytes on their way to becoming a span. ``untold`` is a hole before them that nobody accounted for.

    The ``first`` of a generation is stored before any other: what a listing shows then begins where following began.
    """

    begun: int
    generation: Generation
    start: int
    end: int
    content: bytearray
    samples: tuple[Sample, ...]
    gap: str | None
    untold: bool
    first: bool
    received_at: datetime
    sealed: dict[int, SealedSpan] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    missing: set[int] = field(default_factory=set)

    @property
    def size_bytes(self) -> int:
        return self.end - self.start

    def seal(self, area: Area, level: int, epochs: int) -> SealedSpan:
        """Return the span, sealed once for all copies of the repository that are at one of ``epochs`` epochs."""
        epoch = area.keys.current_epoch
        with self.lock:
            known = self.sealed.get(epoch)
            if known is None:
                header = SpanHeader(thinned(self.samples), self.gap, identity_of(self.generation), self.received_at)
                known = seal_span(area, self.generation.id, self.start, self.content, header, level)
                self.sealed[epoch] = known
                if len(self.sealed) >= epochs:
                    self.content = bytearray()  # what waits for the store, waits sealed
        return known


class Cutter:
    """Gathers what is appended until it is cut. Not shared between threads without a lock around it."""

    def __init__(self, piece_bytes_max: int) -> None:
        self._piece_bytes_max = piece_bytes_max
        self.begun = 0
        self.generation: Generation | None = None
        self.end: int | None = None
        self.tail = b""
        self.since: float | None = None
        self._start = 0
        self._content = bytearray()
        self._samples: list[Sample] = []
        self._gap: str | None = None
        self._gap_of_piece: str | None = None
        self._untold = False
        self._first = False

    @property
    def size_bytes(self) -> int:
        """How much was appended and not cut yet."""
        return len(self._content)

    @property
    def waiting_samples(self) -> Sequence[Sample]:
        """The samples that no piece has taken along yet, in the order they came."""
        return self._samples

    def begin(self, generation: Generation, end: int | None, tail: bytes) -> None:
        """Append to a generation from now on, of which ``end`` and ``tail`` are known. All before was cut."""
        if self.generation is None or self.generation.id != generation.id:
            self._samples.clear()
            self._gap = None
        self.begun += 1
        self.generation, self.end, self.tail = generation, end, tail
        self._first = end is None

    def tell_gap(self, reason: str) -> None:
        self._gap = reason

    def sample(self, sample: Sample) -> None:
        """Keep a sample until its bytes are cut. Of many at one position, the first and the newest are kept."""
        known = self._samples
        if len(known) >= 2 and known[-1].position == sample.position == known[-2].position:
            known[-1] = sample
            return
        known.append(sample)
        if len(known) > SAMPLES_WAITING_MAX:
            known[:] = thinned(known, SAMPLES_WAITING_MAX // 2)

    def append(self, position: int, data: Data, now: float, received_at: datetime) -> list[Piece]:
        """Take bytes and return the pieces that are full, or end before a hole; raises ``IntegrityBroken``."""
        view = memoryview(data).cast("B")
        pieces: list[Piece] = []
        if self.end is not None and position < self.end:
            view = self._fresh(position, view)
            position = self.end
        if not view:
            return pieces
        if self.end is not None and position > self.end:
            pieces += self.cut(received_at)
            self._untold = self._gap is None
            self.tail = b""
        if not self._content:
            self._start, self.since = position, now
            self._gap_of_piece, self._gap = self._gap, None
        at = 0
        while at < len(view):
            room = self._piece_bytes_max - len(self._content)
            self._content += view[at : at + room]
            at += min(room, len(view) - at)
            self.end = self._start + len(self._content)
            if len(self._content) >= self._piece_bytes_max:
                pieces += self.cut(received_at)
                self._start, self.since = self.end, now
        last = bytes(view[-TAIL_BYTES:])
        self.tail = (self.tail + last)[-TAIL_BYTES:]
        return pieces

    def _fresh(self, position: int, view: memoryview) -> memoryview:
        """Return what of bytes that came again is new; as many of them as are remembered are compared."""
        assert self.end is not None
        start = max(position, self.end - len(self.tail))
        end = min(position + len(view), self.end)
        if end > start:
            known = self.tail[len(self.tail) - (self.end - start) :][: end - start]
            if view[start - position : end - position] != known:
                raise IntegrityBroken(
                    f"the server sent other bytes of its log at position {start:x} than before",
                    hint="Its history was replaced (restored, or another server answers): check which server the "
                    "source names; `holdfast adopt` accepts a new one.",
                )
        return view[max(0, self.end - position) :]

    def cut(self, received_at: datetime) -> list[Piece]:
        """Return what was gathered as a piece, if anything was."""
        if not self._content or self.generation is None:
            return []
        start, end = self._start, self._start + len(self._content)
        within = tuple(one for one in self._samples if start <= one.position <= end)
        self._samples = [one for one in self._samples if one.position > end]
        piece = Piece(
            begun=self.begun,
            generation=self.generation,
            start=start,
            end=end,
            content=self._content,
            samples=within,
            gap=self._gap_of_piece,
            untold=self._untold,
            first=self._first,
            received_at=received_at,
        )
        self._content, self._gap_of_piece, self.since = bytearray(), None, None
        self._untold = self._first = False
        return [piece]
