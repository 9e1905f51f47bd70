"""Where a follower puts the log it reads: spans stored in one repository or several, behind bounded memory."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from holdfast.backup.following_cut import TAIL_BYTES, Cutter, Data, Piece
from holdfast.backup.following_settings import Acknowledge, LogFigures, LogSettings, LogSurroundings
from holdfast.backup.following_threads import DaemonThreads
from holdfast.model.documents import JsonObject
from holdfast.model.errors import HoldfastError, Unavailable
from holdfast.model.logs import Generation, Sample, Stretch
from holdfast.repository.area import Area
from holdfast.repository.leases import Lease
from holdfast.repository.log.carried import LANE, carried_document, read_carried
from holdfast.repository.log.reading import StoredLog
from holdfast.repository.log.resuming import LogPlace, resume_place
from holdfast.repository.log.spans import put_generation, put_span
from holdfast.sources.port import LogEnd

__all__ = ["Acknowledge", "LogFigures", "LogSettings", "LogSurroundings", "RepositoryLog", "open_log"]

BEGIN_FLUSH_SECONDS_MAX = 20.0
"""How long the beginning of another generation waits for the end of the one before to be stored."""


@dataclass(slots=True)
class _Lane:
    """One repository on its way. What waits there in ``queue`` was not begun."""

    number: int
    area: Area
    required: bool
    queue: deque[Piece] = field(default_factory=deque)
    busy: int = 0
    pending_bytes: int = 0
    alone: bool = False
    lagging: bool = False
    closed: bool = False
    waiting: bool = False
    lease: Lease | None = None


class RepositoryLog:
    """Keeps ``LogSink`` for one source, in one repository or in several copies of one.

    A span is cut when its oldest byte is ``flush_seconds`` old or ``span_bytes`` wait, and while commits wait for us
    as soon as nothing is in flight. ``durable`` is the end of the unbroken run that every repository it depends on has
    stored; a gap that was told is passed over, one that was not stops it until ``begin``. A repository that is away is
    tried for ever; any other failure of one that is depended on is raised by the next call. Made by ``open_log``.
    """

    def __init__(
        self, areas: Sequence[Area], around: LogSurroundings, settings: LogSettings, storers: Executor
    ) -> None:
        self._around = around
        self._settings = settings
        self._storers = storers
        waited_for = len(areas) if settings.acknowledge is Acknowledge.ALL else 1
        self._lanes = [_Lane(number, area, number < waited_for) for number, area in enumerate(areas)]
        self._epochs = len({area.keys.current_epoch for area in areas})
        self._changed = threading.Condition()
        self._cutter = Cutter(settings.span_bytes)
        self._pieces: deque[Piece] = deque()
        self._logs: dict[int, StoredLog] = {}
        self._carried = {lane.number: read_carried(lane.area) for lane in self._lanes if lane.required}
        self._leases: list[Lease] = []
        self._wakes: list[Callable[[], None]] = []
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._durable = 0
        self._stuck = False
        self._hurried = False
        self._proved: tuple[str, Sample] | None = None
        self._held_bytes = 0
        self._appended_bytes = self._stored_bytes = self._spans = 0
        self._clock = threading.Thread(target=self._tick, name="log-flush", daemon=True)

    # What is stored already

    def stored(self) -> LogEnd | None:
        """Return where following goes on: the least end of the repositories that are depended on.

        A hole behind the last told gap is not behind that end: it is what a follower that died left, and is asked for
        again. Repositories that hold no log yet do not count while another does.
        """
        found = [(lane, place) for lane in self._required() if (place := self._place(lane)) is not None]
        if not found:
            return None
        order = [generation.id for generation in self._known_generations()]
        lane, least = min(found, key=lambda item: (order.index(item[1].generation.id), item[1].position))
        return LogEnd(least.generation, least.position, self._tail(lane, least.generation, least.position))

    def _required(self) -> list[_Lane]:
        return [lane for lane in self._lanes if lane.required]

    def _log(self, lane: _Lane, *, fresh: bool) -> StoredLog:
        log = self._logs.get(lane.number)
        if log is None:
            log = self._logs[lane.number] = StoredLog(lane.area, self._around.executor)
        elif fresh:
            log.refresh()
        return log

    def _place(self, lane: _Lane) -> LogPlace | None:
        return resume_place(self._log(lane, fresh=True))

    def _tail(self, lane: _Lane, generation: Generation, position: int) -> bytes:
        log = self._log(lane, fresh=False)
        for stretch in log.stretches(generation.id):
            if stretch.start < position <= stretch.end:
                tail = Stretch(max(stretch.start, position - TAIL_BYTES), position)
                return b"".join(log.read(generation.id, tail))
        return b""

    def generations(self) -> Sequence[Generation]:
        """Return every generation that any repository depended on stores, parents before children."""
        for lane in self._required():
            self._log(lane, fresh=False).refresh_generations()
        return self._known_generations()

    def _known_generations(self) -> list[Generation]:
        listed = [self._log(lane, fresh=False).generations() for lane in self._required()]
        known = max(listed, key=len)
        ids = {generation.id for generation in known}
        return [*known, *(one for others in listed for one in others if one.id not in ids)]

    # What comes

    def begin(self, generation: Generation) -> None:
        """Store a generation, durably, and append to it from now on; the same again is fine.

        What was appended to the one before is stored first: raises ``Unavailable`` where that takes longer than
        ``BEGIN_FLUSH_SECONDS_MAX``, ``Conflict`` where the id is taken by another.
        """
        self._raise_error()
        if self._cutter.generation == generation:
            with self._changed:
                if self._stuck:
                    for piece in self._cutter.cut(self._around.now()):
                        self._send(piece)
                    # What lies beyond the hole is stored again with it, and compared when it is read.
                    self._cutter.begin(generation, self._durable or None, b"")
                    self._stuck = False
            return
        if not self.flush(BEGIN_FLUSH_SECONDS_MAX):
            raise Unavailable(
                "the end of the log's last generation could not be stored yet",
                hint="The repository is slow or away; following goes on by itself when it is back.",
            )
        for lane in self._lanes:
            self._put_generation(lane, generation)
        end, tail = self._known_end(generation)
        with self._changed:
            self._cutter.begin(generation, end, tail)
            self._durable, self._stuck = end or 0, False
            self._restate_carried(generation, end)

    def _put_generation(self, lane: _Lane, generation: Generation) -> None:
        try:
            put_generation(lane.area, generation, self._around.now())
            lane.closed, lane.lagging = False, False
        except HoldfastError as error:
            if lane.required:
                raise
            lane.closed = True
            self._around.on_notice(f"no log is stored in {lane.area.store.url}: {error.message}")

    def _known_end(self, generation: Generation) -> tuple[int | None, bytes]:
        """Return the least end of a generation in the repositories depended on that hold bytes of it, and the tail."""
        places = [
            (place.position, lane)
            for lane in self._required()
            if (place := resume_place(self._log(lane, fresh=True), generation)) is not None
        ]
        if not places:
            return None, b""
        position, lane = min(places, key=lambda item: item[0])
        return position, self._tail(lane, generation, position)

    def _restate_carried(self, generation: Generation, end: int | None) -> None:
        """Take over what the last follower's lease proved of a quiet time, so that the next span makes it permanent."""
        for carried in self._carried.values():
            if carried is not None and carried[0] == generation.id and end is not None and carried[1].position <= end:
                self._cutter.sample(carried[1])
                self._prove([carried[1]])

    def append(self, position: int, data: Data) -> None:
        """Take bytes (they are copied). Beyond the end so far they leave a gap. Never waits; look at ``has_room``.

        Bytes that came before are passed over, the last ``TAIL_BYTES`` of them compared. Raises the first error of
        storing, and ``IntegrityBroken`` where bytes differ.
        """
        self._raise_error()
        with self._changed:
            waited, size_before = self._cutter.size_bytes, self._appended_bytes
            pieces = self._cutter.append(position, data, time.monotonic(), self._around.now())
            grown = self._cutter.size_bytes - waited + sum(piece.size_bytes for piece in pieces)
            self._appended_bytes += grown
            self._held_bytes += grown
            for piece in pieces:
                self._send(piece)
            self._cut_if_due()
            if waited == 0 and self._appended_bytes > size_before:
                self._changed.notify_all()

    def sample(self, sample: Sample) -> None:
        """Take that the server's log ended at a position at a moment; it counts once all before it is durable."""
        with self._changed:
            self._cutter.sample(sample)
            self._prove([sample])

    def tell_gap(self, reason: str) -> None:
        """Say why the bytes before the next ``append`` are missing."""
        with self._changed:
            self._cutter.tell_gap(reason)

    @property
    def has_room(self) -> bool:
        """Whether more may be appended now."""
        return self._held_bytes < self._settings.held_bytes_max

    @property
    def durable(self) -> int:
        """The end of what is stored without a hole since ``begin``; 0 where nothing of the generation is stored."""
        return self._durable

    @property
    def figures(self) -> LogFigures:
        """What was done so far."""
        with self._changed:
            return LogFigures(self._appended_bytes, self._stored_bytes, self._spans, self._held_bytes)

    def hurry(self, waiting: bool) -> None:
        """Say that commits wait for us: store at once what is there, not only when it is old or large enough."""
        if waiting == self._hurried:
            return
        with self._changed:
            self._hurried = waiting
            self._cut_if_due()

    def when_durable(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called, from any thread, whenever ``durable`` moved or storing failed."""
        self._wakes.append(wake)

    def flush(self, seconds_max: float) -> bool:
        """Store all that was appended and wait for it; False where it took longer. Raises the error of storing."""
        with self._changed:
            for piece in self._cutter.cut(self._around.now()):
                self._send(piece)
            self._changed.wait_for(lambda: not self._pieces or self._error is not None, seconds_max)
            done = not self._pieces
        self._raise_error()
        return done

    def _raise_error(self) -> None:
        for lease in self._leases:
            lease.check()
        if self._error is not None:
            raise self._error

    # When it is cut; all below, up to the storing, is called with the lock held

    def _cut_if_due(self) -> None:
        since = self._cutter.since
        if since is None or not self._cutter.size_bytes:
            return
        outstanding = len(self._pieces)
        is_old = time.monotonic() - since >= self._settings.flush_seconds
        # While the repository is slow, what is old waits and grows: few spans, not thousands, when it is back.
        if (self._hurried and not outstanding) or (is_old and outstanding < self._settings.in_flight_max):
            for piece in self._cutter.cut(self._around.now()):
                self._send(piece)

    def _tick(self) -> None:
        """Cut what got old, until closed."""
        with self._changed:
            while not self._stopping.is_set():
                self._cut_if_due()
                since = self._cutter.since
                left = self._settings.flush_seconds
                if since is not None:
                    left = max(self._settings.flush_seconds - (time.monotonic() - since), 0.01)
                self._changed.wait(left if since is not None and self._has_slot() else None)

    def _has_slot(self) -> bool:
        return len(self._pieces) < self._settings.in_flight_max

    def _send(self, piece: Piece) -> None:
        self._pieces.append(piece)
        piece.missing = {lane.number for lane in self._lanes if lane.required}
        for lane in self._lanes:
            if lane.required or self._keeps_up(lane, piece):
                lane.queue.append(piece)
                lane.pending_bytes += piece.size_bytes
                self._pump(lane)

    def _keeps_up(self, lane: _Lane, piece: Piece) -> bool:
        """Whether a repository that is not waited for takes a piece; one that lags takes none until it caught up."""
        limit = self._settings.lag_bytes_max
        if not lane.lagging and lane.pending_bytes and lane.pending_bytes + piece.size_bytes > limit:
            lane.lagging = True
            self._around.on_notice(
                f"{lane.area.store.url} cannot keep up: its log gets a gap at {piece.start:x}; `holdfast copy` fills it"
            )
        elif lane.lagging and not lane.pending_bytes:
            lane.lagging = False
        return not lane.lagging and not lane.closed

    def _pump(self, lane: _Lane) -> None:
        while lane.queue and lane.busy < self._settings.in_flight_max and not self._stopping.is_set():
            if lane.alone:
                return
            lane.busy += 1
            lane.alone = lane.queue[0].first
            self._storers.submit(self._store, lane, lane.queue.popleft())

    def _advance(self) -> bool:
        """Take the pieces off that are stored, in order; return whether ``durable`` moved."""
        before = self._durable
        while self._pieces and not self._pieces[0].missing:
            piece = self._pieces.popleft()
            self._held_bytes -= piece.size_bytes
            if piece.begun != self._cutter.begun:
                continue  # begun anew since: what it held comes again
            self._stuck = self._stuck or piece.untold
            if not self._stuck:
                self._durable = max(self._durable, piece.end)
                self._prove(piece.samples)
        self._prove(self._cutter.waiting_samples)
        return self._durable != before

    def _prove(self, samples: Sequence[Sample]) -> None:
        """Keep the newest sample before which all is durable: the lease carries it."""
        generation = self._cutter.generation
        if generation is None:
            return
        for sample in samples:
            known = self._proved[1] if self._proved and self._proved[0] == generation.id else None
            if sample.position <= self._durable and (known is None or sample.at > known.at):
                self._proved = (generation.id, sample)

    # How it is stored, on other threads

    def _store(self, lane: _Lane, piece: Piece) -> None:
        failed: BaseException | None = None
        try:
            stored_bytes = self._put(lane, piece)
        except BaseException as error:  # noqa: BLE001  however a thread ends, the follower must hear of it
            failed, stored_bytes = error, 0
        with self._changed:
            lane.busy -= 1
            lane.alone = lane.alone and not piece.first
            lane.pending_bytes -= piece.size_bytes
            if failed is not None:
                self._fail(lane, failed)
            elif stored_bytes:
                self._stored_bytes += stored_bytes
                self._spans += 1
                piece.missing.discard(lane.number)
            moved = self._advance() or failed is not None
            self._pump(lane)
            self._cut_if_due()
            self._changed.notify_all()
        if moved:
            for wake in self._wakes:
                wake()

    def _fail(self, lane: _Lane, error: BaseException) -> None:
        if lane.required or not isinstance(error, HoldfastError):
            self._error = self._error or error
            return
        lane.closed = True
        lane.queue.clear()
        lane.pending_bytes = 0
        self._around.on_notice(f"no more log is stored in {lane.area.store.url}: {error.message}")

    def _put(self, lane: _Lane, piece: Piece) -> int:
        """Put a piece, for as long as it takes; return the size of its span, 0 where following ended before."""
        sealed = piece.seal(lane.area, self._settings.level, self._epochs)
        wait = self._settings.retry_seconds_first
        while not self._stopping.is_set():
            try:
                put_span(lane.area, sealed)
            except Unavailable as error:
                self._tell_waiting(lane, error)
                # Bounded by the follower's memory, not by time: it stops reading when there is no more room.
                self._stopping.wait(wait * random.uniform(0.5, 1.0))  # noqa: S311  spreads waits
                wait = min(wait * 2, self._settings.retry_seconds_max)
                continue
            if lane.waiting:
                lane.waiting = False
                self._around.on_notice(f"{lane.area.store.url} takes the log again")
            return len(sealed.data)
        return 0

    def _tell_waiting(self, lane: _Lane, error: Unavailable) -> None:
        if not lane.waiting:
            lane.waiting = True
            self._around.on_notice(f"the log waits for {lane.area.store.url}: {error.message}")

    # Beginning and end

    def _carry(self) -> JsonObject | None:
        with self._changed:
            proved = self._proved or next((one for one in self._carried.values() if one is not None), None)
        return carried_document(*proved) if proved is not None else None

    def open(self, leases: ExitStack) -> None:
        """Take the lane of every repository, which ``leases`` gives back; raises ``LeaseHeld``."""
        for lane in self._lanes:
            lease = Lease(
                lane.area,
                LANE,
                self._around.holder_of(self._around.run),
                self._settings.lease_period_seconds,
                carry=self._carry,
                endures=True,
            )
            try:
                lease.acquire(wait=self._settings.wait_for_lease, stop=self._around.stop_requested)
            except HoldfastError as error:
                if lane.required:
                    raise
                lane.closed = True
                self._around.on_notice(f"no log is stored in {lane.area.store.url}: {error.message}")
                continue
            leases.enter_context(lease)
            lane.lease = lease
            self._leases.append(lease)
        self._clock.start()

    def leave(self) -> None:
        """Give up the lanes of repositories that are away: telling them would take longer than an end may."""
        for lane in self._lanes:
            if lane.waiting and lane.lease is not None:
                lane.lease.abandon()

    def close(self) -> None:
        """Store nothing more and end the threads; what was not durable is asked for again by the next follower."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        if self._clock.ident is not None:
            self._clock.join(timeout=10)


@contextmanager
def open_log(
    areas: Sequence[Area], around: LogSurroundings, settings: LogSettings | None = None
) -> Iterator[RepositoryLog]:
    """Open the log of a source in its repositories, the first of the configuration first, and hold its lane.

    Their stores should retry only for a short time (the log itself goes on trying), so that ends come soon. Raises
    ``LeaseHeld`` where another follower lives. On leaving, what is stored stays, the rest is dropped: ``flush`` first.
    """
    chosen = settings or LogSettings()
    storers = DaemonThreads(chosen.in_flight_max * len(areas), "log-store")
    log = RepositoryLog(areas, around, chosen, storers)
    try:
        with ExitStack() as leases:
            log.open(leases)
            try:
                yield log
            finally:
                log.leave()
    finally:
        log.close()
        storers.shutdown(wait=False, cancel_futures=True)
