"""One START_REPLICATION, start to end: reads while there is room, always answers, acknowledges what is durable.

Source: PostgreSQL's documentation, "Streaming Replication Protocol", and src/backend/replication/walsender.c.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum

from psycopg import pq

from holdfast.model.errors import Conflict, HoldfastError, SourceFailed, Unavailable
from holdfast.model.logs import Generation, Sample
from holdfast.sources.port import LogSink
from holdfast.sources.postgres.connection import Session, result_rows
from holdfast.sources.postgres.details import format_lsn, parse_lsn
from holdfast.sources.postgres.failures import failed, primary_message, sqlstate
from holdfast.sources.postgres.follow.messages import Keepalive, LogData, compose_status, parse_message
from holdfast.sources.postgres.follow.wake import Wake

TAIL_BYTES = 8192
"""As much as is asked for again, and compared, when a stream is taken up."""
STATUS_SECONDS = 1.0
"""How often the server hears from us, and is asked where its log ends."""
ANSWER_SECONDS_MAX = 1.0
"""An answer that took longer may have waited behind log that was not sent: it proves no quiet."""
SAMPLE_EVERY = timedelta(milliseconds=100)
STALL_SECONDS_MAX = 30.0
"""So long may bytes that somebody waits for stay undurable; then the server must not wait for us any more."""
TICK_SECONDS = 0.1
MESSAGES_MAX = 64
"""Messages taken in one go, between two looks at everything else."""
RESULT_SECONDS_MAX = 60.0

DOING = "following the log"
_REMOVED, _NOT_READY, _IN_USE = "58P01", "55000", "55006"


class LogRemovedError(SourceFailed):
    """The server has no longer what was asked for."""


class SlotLostError(SourceFailed):
    """The slot was invalidated: it holds nothing back any more."""


class SlotBusyError(Unavailable):
    """Another connection uses the slot: a follower that lives, or ours of before that the server still believes in."""


class End(Enum):
    """Why a stream ended, where nothing was wrong."""

    STOPPED = "asked to stop"
    SERVER = "the server ended it"
    SWITCHED = "the timeline ends here"
    STALLED = "nothing became durable"


@dataclass(slots=True)
class Reached:
    """How far a generation was read. ``floor`` is known to be durable; ``tail`` are the last bytes before position."""

    generation: Generation
    timeline: int
    position: int
    floor: int = 0
    tail: bytearray = field(default_factory=bytearray)
    appended: bool = False

    def acknowledged(self, sink: LogSink) -> int:
        """Return what may be acknowledged to the server; 0 is nothing."""
        return max(self.floor, sink.durable) if self.appended else self.floor

    def take(self, sink: LogSink, data: memoryview) -> None:
        """Append what follows."""
        sink.append(self.position, data)
        self.appended = True
        self.position += len(data)
        self.tail += data[-TAIL_BYTES:]
        if len(self.tail) > 4 * TAIL_BYTES:
            del self.tail[:-TAIL_BYTES]

    def is_durable(self, sink: LogSink) -> bool:
        """Tell whether everything read so far is stored."""
        return not self.appended or sink.durable >= self.position


@dataclass(slots=True)
class Beside:
    """What is learned beside the stream, by another thread. ``sync`` None is unknown."""

    sync: bool | None = None
    sample: Sample | None = None


class LogStream:
    """One stream over one session, run by the thread that owns the session."""

    def __init__(self, session: Session, sink: LogSink, reached: Reached, wake: Wake, beside: Beside) -> None:
        self._session = session
        self._sink = sink
        self._reached = reached
        self._wake = wake
        self._beside = beside
        self._from_standby = False
        self._expected = b""
        self._at = reached.position
        self._server_end = 0
        self._asked_at: float | None = None
        self._status_at = 0.0
        self._told = -1
        self._unsent = False
        self._drained = False
        self._ended = False
        self._reply_wanted = False
        self._hurried = False
        self._wanted_end = 0
        self._progress_at = time.monotonic()
        self._pending: Sample | None = None
        self._sampled_at: datetime | None = None

    def start(self, slot: str, *, compare: bool, from_standby: bool) -> tuple[int, int] | None:
        """Begin to stream; with ``compare`` a little earlier, to see that what is stored is what the server has.

        Return (next timeline, where it began) where the timeline ended here already. Raises ``LogRemovedError``,
        ``SlotLostError``, ``SlotBusyError`` and what the server says otherwise.
        """
        reached = self._reached
        self._from_standby = from_standby
        self._expected = bytes(reached.tail[-TAIL_BYTES:]) if compare else b""
        self._at = reached.position - len(self._expected)
        command = f'START_REPLICATION SLOT "{slot}" PHYSICAL {format_lsn(self._at)} TIMELINE {reached.timeline}'
        self._session.send(command)
        result = self._session.next_result(RESULT_SECONDS_MAX, DOING)
        if result is not None and result.status == pq.ExecStatus.COPY_BOTH:
            return None
        return self._switch(result)

    def run(self, stop_requested: Callable[[], bool]) -> End:
        """Stream until something ends it; after SWITCHED ask ``finish`` where to. Raises what went wrong."""
        try:
            while not stop_requested():
                busy = self._read()
                if self._ended:
                    return End.SWITCHED
                self._hurry()
                self._answer()
                if self._stalled():
                    return End.STALLED
                if not busy:
                    self._wait()
            return End.STOPPED
        finally:
            self._push_sample()

    def finish(self) -> tuple[int, int] | None:
        """Take the server's last word: (next timeline, where it began), None where it just ended. Raises its error."""
        result = self._session.next_result(RESULT_SECONDS_MAX, DOING)
        if result is not None and result.status == pq.ExecStatus.COPY_IN:
            self._session.end_copy()
            self._flush(time.monotonic() + RESULT_SECONDS_MAX)
            result = self._session.next_result(RESULT_SECONDS_MAX, DOING)
        return self._switch(result)

    @property
    def is_comparing(self) -> bool:
        """Whether not all of what is stored was seen again yet."""
        return bool(self._expected)

    def say_goodbye(self, seconds_max: float) -> None:
        """Acknowledge what is durable by now and end the copy."""
        self._send_status(wants_reply=False)
        self._session.end_copy()
        self._flush(time.monotonic() + seconds_max)

    # Reading

    def _read(self) -> bool:
        """Take what is there, while there is room; return whether there may be more at once."""
        self._drained = looked = False
        for _ in range(MESSAGES_MAX):
            if not self._sink.has_room:
                self._asked_at = None  # What comes now may have waited for us.
                return False
            size, message = self._session.take_copy_message()
            if size > 0:
                self._take(parse_message(message))
                looked = False
            elif size < 0:
                self._ended = True
                return False
            elif looked:
                self._drained = True
                return False
            else:
                self._session.look()
                looked = True
        return True

    def _take(self, message: LogData | Keepalive) -> None:
        now = time.monotonic()
        if isinstance(message, Keepalive):
            asked, self._asked_at = self._asked_at, None
            if message.wants_reply:
                # A server that shuts down asks so, and goes only when all it sent is acknowledged.
                self._reply_wanted = True
                self._wanted_end = self._reached.position
            prompt = asked is not None and now - asked <= ANSWER_SECONDS_MAX
            if prompt and message.sent_end >= self._server_end:
                self._sample(message.sent_at, message.sent_end)
            return
        if message.start != self._at:
            raise SourceFailed(
                f"the server sent the log from {format_lsn(message.start)}, not from {format_lsn(self._at)}",
                hint="Is there a proxy in between? Connect directly.",
            )
        self._at += len(message.data)
        data = self._compare(message.data) if self._expected else message.data
        if len(data):
            self._reached.take(self._sink, data)
        self._server_end = max(self._server_end, message.server_end)
        self._sample(message.sent_at, message.server_end)

    def _compare(self, data: memoryview) -> memoryview:
        """Hold the first bytes against what is stored; return those that are new."""
        again = min(len(data), len(self._expected))
        if data[:again] != self._expected[:again]:
            where = format_lsn(self._reached.position - len(self._expected))
            raise Conflict(
                f"the server's log differs from the stored one after {where}, on the same timeline",
                hint="This server was set back (a snapshot of its disk, a copy) without a new timeline, or is a clone. "
                "Follow the right server; for this one use a source of its own, or promote it and adopt it.",
            )
        self._expected = self._expected[again:]
        return data[again:]

    def _sample(self, at: datetime, position: int) -> None:
        if self._from_standby:
            return  # Its own clock says nothing of what the primary had committed.
        self._pending = Sample(at, position)
        if self._sampled_at is None or at - self._sampled_at >= SAMPLE_EVERY or at < self._sampled_at:
            self._push_sample()

    def _push_sample(self) -> None:
        pending, self._pending = self._pending, None
        beside, self._beside.sample = self._beside.sample, None
        if pending is not None:
            self._sampled_at = pending.at
            self._sink.sample(pending)
        if self._from_standby and beside is not None:
            self._sink.sample(beside)

    # Answering

    def _hurry(self) -> None:
        acknowledged = self._reached.acknowledged(self._sink)
        wanted = bool(self._beside.sync) or acknowledged < self._wanted_end or not self._sink.has_room
        now = time.monotonic()
        if not wanted or acknowledged > self._told or acknowledged >= self._reached.position:
            self._progress_at = now
        if wanted != self._hurried:
            self._hurried = wanted
            self._sink.hurry(wanted)

    def _stalled(self) -> bool:
        return time.monotonic() - self._progress_at > STALL_SECONDS_MAX

    def _answer(self) -> None:
        due = time.monotonic() - self._status_at >= STATUS_SECONDS
        if due:
            self._push_sample()
        if due or self._reply_wanted or self._reached.acknowledged(self._sink) > self._told:
            self._send_status(wants_reply=due and self._drained)

    def _send_status(self, *, wants_reply: bool) -> None:
        self._told = self._reached.acknowledged(self._sink)
        now = time.monotonic()
        self._session.put_copy_message(compose_status(self._told, datetime.now(UTC), wants_reply=wants_reply))
        self._unsent = not self._session.flush()
        self._status_at = now if wants_reply or now - self._status_at >= STATUS_SECONDS else self._status_at
        self._reply_wanted = False
        if wants_reply:
            self._asked_at = now

    def _flush(self, deadline: float) -> None:
        while not self._session.flush():
            if time.monotonic() > deadline:
                raise Unavailable("PostgreSQL took nothing any more", hint="Look at the server and the network.")
            time.sleep(TICK_SECONDS / 10)

    def _wait(self) -> None:
        """Wait a moment for the server or the repository."""
        poll = select.poll()
        events = (select.POLLIN if self._sink.has_room else 0) | (select.POLLOUT if self._unsent else 0)
        poll.register(self._session.socket, events)
        poll.register(self._wake, select.POLLIN)
        remaining = self._status_at + STATUS_SECONDS - time.monotonic()
        for descriptor, event in poll.poll(max(0.0, min(remaining, TICK_SECONDS)) * 1000):
            if descriptor == self._wake.fileno():
                self._wake.drain()
            elif event & (select.POLLHUP | select.POLLERR) and not event & select.POLLIN:
                raise Unavailable("the connection to PostgreSQL was lost", hint="Read the server's log at this time.")
        if self._unsent:
            self._unsent = not self._session.flush()

    # Ends

    def _switch(self, result: pq.abc.PGresult | None) -> tuple[int, int] | None:
        found: tuple[int, int] | None = None
        problem: HoldfastError | None = None
        while result is not None:
            if result.status == pq.ExecStatus.FATAL_ERROR:
                problem = problem or _stream_error(result)
            elif result.status == pq.ExecStatus.TUPLES_OK:
                match result_rows(result):
                    case [(str() as timeline, str() as position)]:
                        found = int(timeline), parse_lsn(position)
            result = self._session.next_result(RESULT_SECONDS_MAX, DOING)
        if problem is not None:
            raise problem
        return found


def _stream_error(result: pq.abc.PGresult) -> HoldfastError:
    error = failed(result, DOING)
    state, words = sqlstate(result), primary_message(result)
    if state == _REMOVED:
        return LogRemovedError(error.message, hint=error.hint)
    if state == _NOT_READY and "slot" in words:
        return SlotLostError(error.message, hint=error.hint)
    if state == _IN_USE:
        hint = "Another follower uses the slot, or the server has not noticed yet that ours of before is gone; "
        return SlotBusyError(error.message, hint=hint + "it is tried again.")
    return error
