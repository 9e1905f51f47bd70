"""The helper of `wal push`: stores the segments that are ready beside the one asked for, notes them, and ends soon."""

from __future__ import annotations

import heapq
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from holdfast.application.wal import PUSH_POLICY, WalFiles, WalOrder, opened
from holdfast.application.wal_notes import (
    LOCK,
    NOT,
    NOTE_SECONDS_MAX,
    READY,
    WANTED,
    is_not,
    is_segment,
    notes_folder,
    ready_segments,
    say_not,
    write_note,
)
from holdfast.config.loading import load_config
from holdfast.model.errors import HoldfastError, NotFound
from holdfast.sources.postgres.wal_files import parse_wal_name

AHEAD_FILES_MAX = 64
AHEAD_BYTES_MAX = 1 << 30
"""How far the helper may be ahead of what PostgreSQL has asked for."""
IDLE_SECONDS_MAX = 3.0
"""How long it stays when nothing is ready: the next segment of a busy server comes soon."""
UNASKED_SECONDS_MAX = 60.0
"""After that it stops although more is ready: nobody is archiving."""
RUN_SECONDS_MAX = 300.0
"""Then the next one takes over, with the configuration, the keys and the history read anew."""
POLL_SECONDS = 0.01
SWEEP_SECONDS = 86_400.0
SWEPT_MAX = 64


@dataclass(frozen=True, slots=True)
class PushAhead:
    """What a helper works for: its folder of notes, the folder of segments, and what the command line names."""

    folder: str
    wal: str
    config: str = ""
    source: str = ""
    repository: str = ""

    def is_current(self) -> bool:
        """Tell whether the configuration still is what the folder of notes stands for."""
        try:
            now = notes_folder(os.environ, self.wal, self.config, self.source, self.repository)
        except OSError:
            return False
        return now == self.folder


def run_push_ahead(order: PushAhead) -> None:
    """Store what is ready until nothing is. The caller holds the folder's lock.

    Raises what keeps it from reading the repository; then every segment is pushed by itself, as without a helper.
    """
    place = Path(order.folder)
    for path in place.glob(f"*{NOT}"):
        path.unlink(missing_ok=True)
    # Looked at before the file is read: a change in between leads to another folder, and to no note of this one.
    if not order.is_current():
        return
    settings = load_config(Path(order.config) if order.config else None, os.environ)
    with opened(settings, WalOrder(order.source or None, order.repository or None), PUSH_POLICY) as files:
        pusher = Pusher(order, files, time.monotonic)
        try:
            pusher.run()
        finally:
            pusher.drop()
    sweep(place.parent, place.name, time.time())


class Pusher:
    """Stores and notes segments until there is nothing to do; ``drop`` is called last."""

    def __init__(self, order: PushAhead, files: WalFiles, clock: Callable[[], float]) -> None:
        self._order = order
        self._files = files
        self._clock = clock
        self._wal = Path(order.wal)
        self._place = Path(order.folder)
        self._queue: deque[str] = deque()
        self._ahead_max = 1  # until it is known how large a segment is

    def run(self) -> None:
        until, worked_at = self._clock() + RUN_SECONDS_MAX, self._clock()
        while self._clock() < until:
            wanted, asked_seconds = self._wanted()
            name = self._next(wanted)
            if name is None:
                if self._clock() - worked_at > IDLE_SECONDS_MAX and asked_seconds > IDLE_SECONDS_MAX:
                    return
                time.sleep(POLL_SECONDS)
            elif asked_seconds > UNASKED_SECONDS_MAX or not self._push(name):
                return
            else:
                worked_at = self._clock()

    def _wanted(self) -> tuple[str, float]:
        """Return the segment that was asked for last, and how long ago that was."""
        path = self._place / WANTED
        try:
            return path.read_text("ascii"), max(0.0, time.time() - path.stat().st_mtime)
        except OSError:
            return "", UNASKED_SECONDS_MAX

    def _next(self, wanted: str) -> str | None:
        """Return the segment that is asked for, or else the next one that is ready; None where there is nothing."""
        if is_segment(wanted) and self._is_open(wanted):
            return wanted
        if not self._queue:
            ready = set(ready_segments(self._order.wal))
            noted = self.drop(ready)
            free = max(0, self._ahead_max - noted)
            self._queue.extend(heapq.nsmallest(free, (name for name in ready if self._is_open(name))))
        while self._queue:
            name = self._queue.popleft()
            if self._is_open(name):
                return name
        return None

    def _is_open(self, name: str) -> bool:
        ready = self._wal / "archive_status" / f"{name}{READY}"
        return not (self._place / name).exists() and not is_not(self._order.folder, name) and ready.exists()

    def drop(self, ready: set[str] | None = None) -> int:
        """Remove notes that nobody will ask for any more; return how many are left."""
        left = 0
        ready = set(ready_segments(self._order.wal)) if ready is None else ready
        for path in self._place.iterdir():
            name = path.name.removesuffix(NOT)
            if not is_segment(name):
                continue
            if name in ready and time.time() - path.stat().st_mtime < NOTE_SECONDS_MAX:
                left += 1
            else:
                path.unlink(missing_ok=True)
        return left

    def _push(self, name: str) -> bool:
        """Store a segment and note it; False where the helper had better end."""
        parsed = parse_wal_name(name)
        try:
            if parsed is None or not self._order.is_current():
                return False
            stored = self._files.push_segment(parsed, self._wal / name)
            area = self._files.area
            paths = [area.store.local_path(self._files.object_name(span)) for span in stored.spans]
            whose = f"{area.keys.repository.hex()} {area.store_id.hex()} {area.store.url}"
            objects = [str(path) for path in paths if path is not None]
            write_note(self._order.folder, name, stored.content, whose, objects)
        except (HoldfastError, NotFound, OSError):
            say_not(self._order.folder, name)  # Whoever needs it pushes it, and is told.
            return False
        self._ahead_max = max(1, min(AHEAD_FILES_MAX, AHEAD_BYTES_MAX // len(stored.content)))
        return True


def sweep(parent: Path, own: str, now: float) -> None:
    """Remove folders of notes that nobody has asked for a day: of configurations that are no more."""
    for place in sorted(parent.iterdir())[:SWEPT_MAX]:
        try:
            if place.name == own or now - (place / WANTED).stat().st_mtime < SWEEP_SECONDS:
                continue
            # The lock goes last: a folder without it is nobody's.
            for path in sorted(place.iterdir(), key=lambda one: one.name == LOCK):
                path.unlink(missing_ok=True)
            place.rmdir()
        except OSError:
            continue  # in use, or not ours: it is looked at again another day
