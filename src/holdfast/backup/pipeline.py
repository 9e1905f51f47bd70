"""The way of a source's bytes into packs: bounded stages on threads, the first error stops all (docs/format.md, 5).

source thread -> slabs -> workers (inspect, hash, look up, compress) -> packer (order, seal, lists, tree) -> uploaders
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
import time
from dataclasses import dataclass

from holdfast.backup.dedup import SAMPLE_SHARE, Deduplicator
from holdfast.backup.packer import FullPack, PackedChunk, Packer
from holdfast.backup.slabs import Piece, Slab, SlabFiller, SlabPool, StreamState, content_cutter
from holdfast.backup.stages import Channel, Run
from holdfast.model.errors import SourceFailed
from holdfast.model.events import OnProgress, Progress
from holdfast.repository.area import Area
from holdfast.repository.format import names
from holdfast.repository.format.container import compress_many
from holdfast.repository.format.lists import ContentRef
from holdfast.repository.format.names import PackName
from holdfast.repository.index.lookup import ChunkIndex
from holdfast.sources.port import SINK_STREAMS_MAX, Data, Entry, Inspect

WORKERS_MAX = 8
UPLOADERS = 2
PACKS_WAITING_MAX = 1
SWITCH_INTERVAL_SECONDS = 0.0005
PROGRESS_SECONDS = 0.2
PROGRESS_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PipelineSettings:
    """``level`` is zstd's; ``sample`` the share of reused packs to read back; ``workers`` 0 means one a core."""

    level: int = 3
    sample: float = SAMPLE_SHARE
    workers: int = 0


@dataclass(frozen=True, slots=True)
class Poured:
    """What a pipeline leaves: the tree, every pack it counts on, and figures."""

    tree: ContentRef
    packs: dict[PackName, int]
    entries: int
    size_bytes: int
    stored_bytes: int
    distrusted: dict[PackName, str]


@dataclass(frozen=True, slots=True)
class _Processed:
    """A slab with its chunks, one list a piece."""

    slab: Slab
    chunks: list[list[PackedChunk]]


class _Stream:
    def __init__(self, pipeline: Pipeline, filler: SlabFiller, state: StreamState) -> None:
        self._pipeline = pipeline
        self._filler = filler
        self._state = state

    def write(self, data: Data) -> None:
        self._filler.write(self._state, data)
        self._pipeline.count(len(data))

    def close(self) -> None:
        self._filler.close(self._state)
        self._pipeline.give_back(self._filler)


class Pipeline:
    """A ``StreamSink``: use it as a context, write everything, then ``finish``. Leaving without it abandons all."""

    def __init__(self, area: Area, index: ChunkIndex, settings: PipelineSettings, on_progress: OnProgress) -> None:
        self._area = area
        self._index = index
        self._settings = settings
        self._on_progress = on_progress
        self._run = Run()
        cut = content_cutter(area.keys.chunker_seed)
        # The sample is drawn anew each time: a fixed seed would look at the same packs for ever.
        self._dedup = Deduplicator(area, index, settings.sample, random.SystemRandom())
        self._slabs: Channel[Slab | None] = Channel(self._run, 64)
        self._packs: Channel[FullPack | None] = Channel(self._run, PACKS_WAITING_MAX)
        self._done: dict[int, _Processed] = {}
        self._arrived = threading.Condition()
        self._packed = 0
        self._ended = False
        self._uploads = 0
        self._tree: ContentRef | None = None
        self._cut = cut
        self._pool = SlabPool(self._run, self._send)
        self._idle: list[SlabFiller] = []
        self._fillers = 0
        self._packer = Packer(area, settings.level, cut, lambda chunk: self._dedup.must_store([chunk])[0], self._ship)
        self._bytes = self._expected = 0
        self._sharing = threading.Lock()
        self._tell_from = 0
        self._told_at = 0.0
        self._interval = sys.getswitchinterval()

    def __enter__(self) -> Pipeline:
        # One busy Python thread starves the others at the default interval of 5 ms.
        sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
        workers = self._settings.workers or min(WORKERS_MAX, max(2, os.cpu_count() or 2))
        for number in range(workers):
            self._run.start(f"worker-{number}", self._work)
        self._run.start("packer", self._pack)
        for number in range(UPLOADERS):
            self._run.start(f"uploader-{number}", self._upload)
        self._workers = workers
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._run.fail(error)
        elif self._tree is None:
            self._run.failed.set()
        self._run.join()
        sys.setswitchinterval(self._interval)
        # The first error is the one reported, even where a later one came up through the source.
        if error is not None and self._run.error is not None and self._run.error is not error:
            raise self._run.error from error

    # The source's side.

    def expect(self, size_bytes: int) -> None:
        self._expected = size_bytes

    def add(self, entry: Entry) -> None:
        filler = self._take_filler()
        filler.add(entry)
        self.give_back(filler)

    def open(self, entry: Entry, inspect: Inspect | None = None) -> _Stream:
        filler = self._take_filler()
        return _Stream(self, filler, filler.open(entry, inspect))

    def _take_filler(self) -> SlabFiller:
        """Return the filler used last that has no stream: a source of one stream at a time always gets the same."""
        with self._sharing:
            if self._idle:
                return self._idle.pop()
            # Each holds a slab while it fills it: with too many there would be none left to go round.
            if self._fillers == SINK_STREAMS_MAX:
                raise SourceFailed(f"more than {SINK_STREAMS_MAX} streams of one backup are open at once")
            self._fillers += 1
        return SlabFiller(self._run, self._cut, self._pool)

    def give_back(self, filler: SlabFiller) -> None:
        with self._sharing:
            self._idle.append(filler)

    def count(self, size: int) -> None:
        with self._sharing:
            self._bytes += size
            if self._bytes < self._tell_from:
                return
            self._tell_from = self._bytes + PROGRESS_BYTES
            now = time.monotonic()
            if now - self._told_at < PROGRESS_SECONDS:
                return
            self._told_at = now
            progress = Progress(self._bytes, self._expected, self._packer.stored_bytes)
        self._on_progress(progress)

    def drain(self) -> None:
        if len(self._idle) < self._fillers:
            raise SourceFailed(f"{self._fillers - len(self._idle)} streams were not ended")
        for filler in self._idle:
            filler.flush()
        with self._arrived:
            while self._packed < self._pool.sent:
                self._run.check()
                self._arrived.wait(0.2)
        self._run.check()

    def finish(self) -> Poured:
        """End all streams; return when every byte is durable. Raises the first error of any stage."""
        self.drain()
        self._ended = True
        for _ in range(self._workers):
            self._slabs.put(None)
        with self._arrived:
            self._arrived.notify_all()
        self._run.join()
        self._run.check()
        assert self._tree is not None
        packer = self._packer
        self._on_progress(Progress(self._bytes, self._bytes, packer.stored_bytes))
        return Poured(
            self._tree,
            self._dedup.packs,
            packer.entries,
            packer.size_bytes,
            packer.stored_bytes,
            dict(self._dedup.distrusted),
        )

    # The stages.

    def _send(self, slab: Slab) -> None:
        self._slabs.put(slab)

    def _work(self) -> None:
        while (slab := self._slabs.get()) is not None:
            chunks = [self._process(slab.view, piece) if isinstance(piece, Piece) else [] for piece in slab.pieces]
            with self._arrived:
                self._done[slab.number] = _Processed(slab, chunks)
                self._arrived.notify_all()

    def _process(self, view: memoryview, piece: Piece) -> list[PackedChunk]:
        if not piece.lengths:
            return []
        if piece.stream.inspect is not None:
            piece.stream.inspect(view[piece.start : piece.start + piece.length], piece.offset)
        parts = []
        start = piece.start
        for length in piece.lengths:
            parts.append(view[start : start + length])
            start += length
        ids = [self._area.keys.chunk_id(part, data=True) for part in parts]
        new = self._dedup.must_store(ids)
        payloads = iter(compress_many(list(itertools.compress(parts, new)), self._settings.level))
        packed = []
        for chunk, part, wanted in zip(ids, parts, new, strict=True):
            if wanted:
                algorithm, payload = next(payloads)
                # Incompressible bytes are copied out: the slab is used again before the packer is done with them.
                packed.append(PackedChunk(chunk, len(part), algorithm, bytes(payload)))
            else:
                packed.append(PackedChunk(chunk, len(part)))
        return packed

    def _pack(self) -> None:
        number = 0
        while (processed := self._next(number)) is not None:
            for piece, chunks in zip(processed.slab.pieces, processed.chunks, strict=True):
                if isinstance(piece, Piece):
                    self._packer.take_chunks(piece.stream, chunks, last=piece.last)
                else:
                    self._packer.take_entry(piece)
            self._pool.give_back(processed.slab)
            number += 1
            with self._arrived:
                self._packed = number
                self._arrived.notify_all()
        self._tree = self._packer.finish()
        for _ in range(UPLOADERS):
            self._packs.put(None)

    def _next(self, number: int) -> _Processed | None:
        with self._arrived:
            while number not in self._done:
                self._run.check()
                if self._ended and self._packed == self._pool.sent:
                    return None
                self._arrived.wait(0.2)
            return self._done.pop(number)

    def _ship(self, pack: FullPack) -> None:
        self._packs.put(pack)

    def _upload(self) -> None:
        while (pack := self._packs.get()) is not None:
            self._area.store.create(names.pack(self._area.keys.area, pack.facts.name), pack.data)
            # Index first: a chunk must never be neither pending nor found.
            self._index.add_pack(pack.facts, pack.frames, pack.ids)
            self._dedup.arrived(pack.facts, pack.ids)
