"""The first stage: gathers what a source writes into slabs and cuts it into chunks (docs/format.md, section 5)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from holdfast.backup.stages import Channel, Run
from holdfast.model.errors import IntegrityBroken, SourceFailed
from holdfast.sources.port import Data, Entry, Inspect, Layout

PAGES_CHUNK_BYTES = 131072
CONTENT_MIN_BYTES = 256 << 10
CONTENT_AVERAGE_BYTES = 1 << 20
CONTENT_MAX_BYTES = 4 << 20
SLAB_BYTES = 8 << 20
SLABS_MAX = 8
ALIGNMENT = 4096

Cut = Callable[[memoryview], list[int]]


def content_cutter(seed: int) -> Cut:
    """Return the function that gives the lengths of the chunks of a buffer, cut by its content (FastCDC)."""
    from pyfastcdc import FastCDC

    if FastCDC.__module__.startswith("pyfastcdc.py."):
        raise IntegrityBroken(
            "the chunker's compiled part is missing; its slow replacement is not used",
            hint="Install the pyfastcdc package in a build for this platform.",
        )

    def cut(data: memoryview) -> list[int]:
        chunker: Any = FastCDC(
            CONTENT_AVERAGE_BYTES,
            min_size=CONTENT_MIN_BYTES,
            max_size=CONTENT_MAX_BYTES,
            normalized_chunking=1,
            seed=seed,
        )
        return [chunk.length for chunk in chunker.cut_buf(data)]

    return cut


@dataclass(slots=True)
class StreamState:
    """One entry's content while it passes through: ``done`` by whoever is last in the pipeline."""

    entry: Entry
    inspect: Inspect | None
    size: int = 0
    closed: bool = False


@dataclass(slots=True)
class Piece:
    """Whole chunks of one stream that lie together in a slab; ``last`` ends the stream."""

    stream: StreamState
    start: int
    offset: int
    lengths: list[int]
    last: bool

    @property
    def length(self) -> int:
        return sum(self.lengths)


@dataclass(slots=True)
class Slab:
    """A buffer with pieces of streams, numbered in order; entries without content ride along in ``pieces`` order."""

    # Written through the view: a bytearray copies what is assigned to a part of it twice.
    view: memoryview = field(default_factory=lambda: memoryview(bytearray(SLAB_BYTES)))
    number: int = 0
    end: int = 0
    pieces: list[Piece | Entry] = field(default_factory=list)

    def reset(self) -> None:
        self.end = 0
        self.pieces = []


class Onward(Protocol):
    """Takes a filled slab, at once."""

    def __call__(self, slab: Slab) -> None: ...


class SlabPool:
    """All the slabs there are, and the numbers that put filled ones in order. Shared by the fillers of a pipeline."""

    def __init__(self, run: Run, onward: Onward) -> None:
        self._onward = onward
        self._free: Channel[Slab] = Channel(run, SLABS_MAX)
        for _ in range(SLABS_MAX):
            self._free.put(Slab())
        self._lock = threading.Lock()
        self._next = 0

    def take(self) -> Slab:
        """Return an empty slab; waits until there is one."""
        return self._free.get()

    def give_back(self, slab: Slab) -> None:
        """Take a slab that nobody needs any more."""
        slab.reset()
        self._free.put(slab)

    def send(self, slab: Slab) -> None:
        """Number a filled slab and pass it on."""
        with self._lock:
            slab.number = self._next
            self._next += 1
            self._onward(slab)

    @property
    def sent(self) -> int:
        """How many slabs were passed on."""
        return self._next


class SlabFiller:
    """Fills slabs in the order of its streams, of which one is open at a time. Holds one slab. Not for two threads."""

    def __init__(self, run: Run, cut: Cut, pool: SlabPool) -> None:
        self._run = run
        self._cut = cut
        self._pool = pool
        self._slab = pool.take()
        self._stream: StreamState | None = None
        self._start = 0
        self._offset = 0

    def add(self, entry: Entry) -> None:
        self._no_stream()
        self._slab.pieces.append(entry)

    def _no_stream(self) -> None:
        if self._stream is not None:
            raise SourceFailed(f"{self._stream.entry.path} was not ended before the next entry began")

    def open(self, entry: Entry, inspect: Inspect | None) -> StreamState:
        self._no_stream()
        self._stream = StreamState(entry, inspect)
        self._begin_piece()
        return self._stream

    def _begin_piece(self) -> None:
        start = -(-self._slab.end // ALIGNMENT) * ALIGNMENT
        if start + PAGES_CHUNK_BYTES > SLAB_BYTES:
            self._send()
            start = 0
        self._start = self._slab.end = start

    def write(self, stream: StreamState, data: Data) -> None:
        if stream is not self._stream:
            raise SourceFailed(f"{stream.entry.path} was written to after its end")
        self._run.check()
        slab, size = self._slab, len(data)
        end = slab.end + size
        if end <= SLAB_BYTES and (not isinstance(data, memoryview) or data.format == "B"):
            slab.view[slab.end : end] = data
            slab.end = end
            stream.size += size
            return
        view = memoryview(data).cast("B")
        while len(view):
            room = SLAB_BYTES - self._slab.end
            if not room:
                self._overflow(stream)
                continue
            part = view[:room]
            self._slab.view[self._slab.end : self._slab.end + len(part)] = part
            self._slab.end += len(part)
            stream.size += len(part)
            view = view[len(part) :]

    def _overflow(self, stream: StreamState) -> None:
        """Send the slab with the whole chunks it holds; what begins a chunk moves to the next slab."""
        slab = self._slab
        lengths = self._lengths(stream, slab.view[self._start : slab.end])
        kept = sum(lengths)
        tail = bytes(slab.view[self._start + kept : slab.end])
        if lengths:
            slab.pieces.append(Piece(stream, self._start, self._offset, lengths, last=False))
            self._offset += kept
        slab.end = self._start + kept
        self._send()
        self._slab.view[: len(tail)] = tail
        self._start, self._slab.end = 0, len(tail)

    def _lengths(self, stream: StreamState, data: memoryview) -> list[int]:
        """Return the lengths of chunks that are certain although more bytes follow."""
        if stream.entry.layout is Layout.PAGES:
            return [PAGES_CHUNK_BYTES] * (len(data) // PAGES_CHUNK_BYTES)
        # The last chunk the cutter gives may be longer with what follows; the others may not.
        return self._cut(data)[:-1] if len(data) > CONTENT_MIN_BYTES else []

    def close(self, stream: StreamState) -> None:
        if stream is not self._stream:
            raise SourceFailed(f"{stream.entry.path} was ended twice")
        slab = self._slab
        data = slab.view[self._start : slab.end]
        if stream.entry.layout is Layout.PAGES:
            lengths = [PAGES_CHUNK_BYTES] * (len(data) // PAGES_CHUNK_BYTES)
            lengths += [rest] if (rest := len(data) % PAGES_CHUNK_BYTES) else []
        else:
            lengths = self._cut(data) if len(data) > CONTENT_MIN_BYTES else [len(data)] if len(data) else []
        slab.pieces.append(Piece(stream, self._start, self._offset, lengths, last=True))
        stream.closed = True
        self._stream, self._offset = None, 0

    def _send(self) -> None:
        self._pool.send(self._slab)
        self._slab = self._pool.take()

    def flush(self) -> None:
        """Send what is there, though not full; not inside a stream."""
        self._no_stream()
        if self._slab.pieces:
            self._send()
