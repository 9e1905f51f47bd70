"""A sink of plain files: a folder a generation, a file a piece. As slow, full or out of order as a test wants it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Condition, Thread

from holdfast.model.errors import Conflict, IntegrityBroken
from holdfast.model.logs import Generation, Sample, Stretch, union
from holdfast.sources.port import Data, LogEnd

TAIL_BYTES = 8192
PIECE_BYTES = 1 << 20


class FileSink:
    """Stores on one thread. ``available`` cleared: nothing is stored until it is set again."""

    def __init__(self, folder: Path, flush_seconds: float = 0.2, room_bytes: int = 16 << 20) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.samples: list[Sample] = []
        self.gaps: list[str] = []
        self.hurries: list[bool] = []
        self.available = True
        self._flush_seconds = flush_seconds
        self._room_bytes = room_bytes
        self._generation: Generation | None = None
        self._position: int | None = None
        self._durable = 0
        self._waiting: list[tuple[Generation, int, bytes]] = []
        self._waiting_bytes = 0
        self._flushing = False
        self._wake: Callable[[], None] = lambda: None
        self._changed = Condition()
        self._ended = False
        self._thread = Thread(target=self._store, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; what was not stored is lost, as in a crash."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()

    # What the follower asks for

    def stored(self) -> LogEnd | None:
        generations = self.generations()
        if not generations:
            return None
        last = generations[-1]
        stretches = self.stretches(last.id)
        if not stretches:
            return None
        end = stretches[-1]
        start = max(end.start, end.end - TAIL_BYTES)
        return LogEnd(last, end.end, b"".join(self.read(last.id, Stretch(start, end.end))))

    def generations(self) -> Sequence[Generation]:
        found = [Generation(**json.loads(path.read_text())) for path in self.folder.glob("*/generation.json")]
        return sorted(found, key=lambda one: int(str(one.details["timeline"])))

    def begin(self, generation: Generation) -> None:
        path = self.folder / generation.id / "generation.json"
        text = json.dumps({name: getattr(generation, name) for name in ("id", "begins", "parent", "fork", "details")})
        if path.exists() and path.read_text() != text:
            raise Conflict(f"generation {generation.id} differs")
        path.parent.mkdir(exist_ok=True)
        beside = path.with_suffix(".coming")
        beside.write_text(text)
        beside.rename(path)  # whoever looks meanwhile must not see half of it
        with self._changed:
            self._generation, self._position, self._durable = generation, None, 0

    def append(self, position: int, data: Data) -> None:
        with self._changed:
            assert self._generation is not None
            self._waiting.append((self._generation, position, bytes(data)))
            self._waiting_bytes += len(data)
            self._position = position + len(data)
            self._changed.notify_all()

    def sample(self, sample: Sample) -> None:
        self.samples.append(sample)

    def tell_gap(self, reason: str) -> None:
        self.gaps.append(reason)

    @property
    def has_room(self) -> bool:
        return self._waiting_bytes < self._room_bytes

    @property
    def durable(self) -> int:
        return self._durable

    def hurry(self, waiting: bool) -> None:
        with self._changed:
            self.hurries.append(waiting)
            self._changed.notify_all()

    def when_durable(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def flush(self, seconds_max: float) -> bool:
        with self._changed:
            self._flushing = True
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: not self._waiting, seconds_max)
            self._flushing = False
            return done

    def block(self, blocked: bool) -> None:
        """Let nothing be stored any more, or again."""
        with self._changed:
            self.available = not blocked
            self._changed.notify_all()

    # What was stored

    def stretches(self, generation: str) -> list[Stretch]:
        return union(Stretch(start, end) for start, end, _ in self._files(generation))

    def read(self, generation: str, stretch: Stretch) -> Iterator[bytes]:
        at = stretch.start
        while at < stretch.end:
            covering = [(s, e, path) for s, e, path in self._files(generation) if s <= at < e]
            if not covering:
                raise IntegrityBroken(f"no byte at {at:X}")
            start, end, path = covering[0]
            with path.open("rb") as file:
                file.seek(at - start)
                yield file.read(min(end, stretch.end) - at)
            at = min(end, stretch.end)

    def whole(self, generation: str, stretch: Stretch) -> bytes:
        return b"".join(self.read(generation, stretch))

    def _files(self, generation: str) -> list[tuple[int, int, Path]]:
        found = []
        for path in sorted((self.folder / generation).glob("*-*.log")):
            start, end = path.stem.split("-")
            found.append((int(start, 16), int(end, 16), path))
        return found

    def _store(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or (self._waiting and self.available))
                if not (self._ended or self._flushing or self._hurrying):
                    self._changed.wait_for(lambda: self._ended or self._flushing or self._hurrying, self._flush_seconds)
                if self._ended:
                    return
                if not self.available:
                    continue
                taken = list(self._waiting)
            for generation, start, data in _joined(taken):
                path = self.folder / generation.id / f"{start:016X}-{start + len(data):016X}.log"
                partial = path.with_suffix(".partial")
                partial.write_bytes(data)
                partial.rename(path)
            with self._changed:
                del self._waiting[: len(taken)]
                self._waiting_bytes -= sum(len(data) for _, _, data in taken)
                if taken and taken[-1][0] == self._generation:
                    self._durable = taken[-1][1] + len(taken[-1][2])
                self._changed.notify_all()
            self._wake()

    @property
    def _hurrying(self) -> bool:
        return bool(self.hurries and self.hurries[-1])


def _joined(taken: list[tuple[Generation, int, bytes]]) -> Iterator[tuple[Generation, int, bytes]]:
    pieces: list[tuple[Generation, int, bytearray]] = []
    for generation, start, data in taken:
        if pieces and pieces[-1][0] == generation and pieces[-1][1] + len(pieces[-1][2]) == start:
            pieces[-1][2].extend(data)
        else:
            pieces.append((generation, start, bytearray(data)))
    for generation, start, piece in pieces:
        yield generation, start, bytes(piece)
