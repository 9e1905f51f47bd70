"""Follows a cluster's log as long as it is wanted: servers come and go, timelines change, no loss is silent."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from holdfast.model.errors import Conflict, Interrupted, SourceFailed, Unavailable
from holdfast.sources.port import Identity, LogSink
from holdfast.sources.postgres.connection import Session
from holdfast.sources.postgres.details import format_lsn
from holdfast.sources.postgres.follow.hosts import Found, find_server
from holdfast.sources.postgres.follow.keeper import Keeper, sync_by_names
from holdfast.sources.postgres.follow.slots import create_slot, drop_slot, read_slot
from holdfast.sources.postgres.follow.stream import (
    TICK_SECONDS,
    Beside,
    End,
    LogRemovedError,
    LogStream,
    Reached,
    SlotLostError,
)
from holdfast.sources.postgres.follow.timelines import (
    TimelineHistory,
    ancestor,
    generation_of,
    history_of,
    is_ancestor,
    read_history,
    refuse_taken,
)
from holdfast.sources.postgres.follow.wake import Wake
from holdfast.sources.postgres.server import ServerFacts, require_same_system
from holdfast.sources.postgres.settings import PostgresSettings

PAUSE_SECONDS_FIRST, PAUSE_SECONDS_MAX = 0.25, 30.0
STEADY_SECONDS = 10.0
"""A connection that held so long was a good one: the next pause is short again."""
FLUSH_SECONDS_MAX = 20.0
"""Of the 30 s after which a follower has ended, for all that is still to be stored."""
GOODBYE_SECONDS_MAX = 3.0
STARTS_MAX = 4
"""Ways to begin that are tried on one connection before it is made anew."""


@dataclass(frozen=True, slots=True)
class FollowOrder:
    """What to follow. ``expected`` is the identity of the source's backups; None: that of the log, whatever it is."""

    source: str
    settings: PostgresSettings
    slot: str
    expected: Identity | None = None


class Follower:
    """One run of following, by one thread. What it knows is how far it has come; the rest is asked again each time."""

    def __init__(
        self, order: FollowOrder, sink: LogSink, stop_requested: Callable[[], bool], tell: Callable[[str], None]
    ) -> None:
        self._order = order
        self._sink = sink
        self._stop_requested = stop_requested
        self._tell = tell
        self._reached: Reached | None = None
        self._steady = False
        self._last_told = ""
        self._flush_until: float | None = None

    def run(self) -> None:
        """Follow until asked to stop. Raises what no waiting mends, and the sink's own errors."""
        with Wake() as wake:
            self._sink.when_durable(wake)
            self._reached = self._stored()
            pause = PAUSE_SECONDS_FIRST
            while not self._stop_requested():
                self._steady = False
                try:
                    self._connect_and_stream(wake)
                    self._wait_until_durable()
                except (Unavailable, SourceFailed) as error:
                    self._say(f"{error.message}; trying again. {error.hint}")
                except Interrupted:
                    break
                pause = PAUSE_SECONDS_FIRST if self._steady else min(2 * pause, PAUSE_SECONDS_MAX)
                self._pause(pause * random.uniform(0.75, 1.25))  # noqa: S311 - spreads reconnects, no secret
            self._flush()

    def _flush(self) -> None:
        """Store what is left, on the way out."""
        if self._flush_until is None:
            self._flush_until = time.monotonic() + FLUSH_SECONDS_MAX
        if not self._sink.flush(max(0.0, self._flush_until - time.monotonic())):
            self._say("not everything that was read could be stored in time; the next follower asks for it again")

    def _stored(self) -> Reached | None:
        """Return where the stored log ends. It alone counts: not what this machine remembers, nor the slot."""
        end = self._sink.stored()
        history = None if end is None else history_of(end.generation)
        if end is None or history is None:
            return None
        expected = self._order.expected
        if expected is not None and dict(expected.facts).get("system_identifier") != history.system_identifier:
            return None  # Adopted since: the log of the system before stays, and ends there.
        return Reached(end.generation, history.timeline, end.position, end.position, bytearray(end.tail))

    def _say(self, text: str) -> None:
        if text != self._last_told:
            self._tell(text)
        self._last_told = text

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._stop_requested() and (remaining := deadline - time.monotonic()) > 0:
            time.sleep(min(remaining, TICK_SECONDS))

    def _wait_until_durable(self) -> None:
        """Stay away from the server until everything read is stored: it must not wait for us while nothing can be."""
        reached = self._reached
        if reached is None or reached.is_durable(self._sink):
            return
        self._sink.hurry(True)
        while not reached.is_durable(self._sink) and not self._stop_requested():
            time.sleep(TICK_SECONDS)
        self._sink.hurry(False)

    # One connection

    def _connect_and_stream(self, wake: Wake) -> None:
        order = self._order
        found = find_server(order.settings, self._accept, self._stop_requested)
        with found.session as session:
            session.stop_requested = self._stop_requested
            history = _read_server_history(session, found.server)
            refuse_taken(history, self._sink.generations())
            restart = self._own_slot(session)
            reached = self._take_up(found.server, history, restart)
            beside = Beside(sync=sync_by_names(session, order.settings))
            with Keeper(found, order.slot, beside, wake, lambda: self._sink.durable):
                self._stream_on(_Way(found, history, wake, beside), reached)

    def _accept(self, server: ServerFacts) -> None:
        """Raise ``Conflict`` for a server that is not the one followed so far, ``Unavailable`` for one behind it."""
        order, reached = self._order, self._reached
        require_same_system(order.source, order.expected, server.identity)
        if reached is None:
            return
        known = history_of(reached.generation)
        if known is not None and known.system_identifier != server.system_identifier:
            raise Conflict(
                f"source {order.source} is system {server.system_identifier}, its stored log is of system "
                f"{known.system_identifier}",
                hint=f"Check the address. After pg_upgrade or for a new cluster: holdfast adopt {order.source}.",
            )
        where = f"timeline {server.timeline} at {format_lsn(server.position)}"
        stored = f"timeline {reached.timeline} up to {format_lsn(reached.position)}"
        older = server.timeline < reached.timeline
        if (older or server.timeline == reached.timeline) and server.position < reached.position and server.in_recovery:
            raise Unavailable(f"the standby is behind: it has {where}, stored is {stored}", hint="It will catch up.")
        if older or (server.timeline == reached.timeline and server.position < reached.position):
            raise Conflict(
                f"the server is on {where}, stored is {stored}: it was set back, or it is an old primary",
                hint="Follow the server that is the primary now. One that was restored on purpose must be promoted "
                "(a restore by holdfast is), so that it has a timeline of its own.",
            )

    def _own_slot(self, session: Session, *, anew: bool = False) -> int:
        """Return from where our slot holds the log back; make it where it is missing, or lost, or ``anew``."""
        name = self._order.slot
        state = read_slot(session, name)
        if state is not None and (anew or state.restart is None):
            self._say(f"slot {name} was lost (max_slot_wal_keep_size, or idle_replication_slot_timeout): made anew")
            drop_slot(session, name)
            state = None
        if state is not None and state.restart is not None:
            return state.restart
        return create_slot(session, name)

    def _take_up(self, server: ServerFacts, history: TimelineHistory, restart: int) -> Reached:
        """Decide where to go on: where the log ends, on the next timeline, or where the slot begins."""
        reached = self._reached
        if reached is None:
            return self._begin(history, server, restart - restart % server.wal_segment_size)
        known = history_of(reached.generation)
        if known is not None and is_ancestor(known, history):
            switch = history.switch_from(reached.timeline)
            if switch is None or reached.position <= switch:
                if not reached.appended:
                    self._sink.begin(reached.generation)
                return reached
            self._say(
                f"timeline {reached.timeline} was left at {format_lsn(switch)}; what is stored of it up to "
                f"{format_lsn(reached.position)} stays, as a fork"
            )
            return self._enter(history, history.next_after(reached.timeline), server)
        stored = [one for one in map(history_of, self._sink.generations()) if one is not None]
        older = [one for one in stored if is_ancestor(one, history)]
        if older:
            return self._enter(history, history.next_after(max(one.timeline for one in older)), server)
        return self._begin(history, server, restart - restart % server.wal_segment_size, "another history before it")

    def _enter(self, history: TimelineHistory, timeline: int, server: ServerFacts) -> Reached:
        """Go over to a timeline, from the start of the segment that holds its fork."""
        entered = ancestor(history, timeline)
        return self._begin(entered, server, generation_of(entered, server.wal_segment_size).begins)

    def _begin(self, history: TimelineHistory, server: ServerFacts, position: int, gap: str = "") -> Reached:
        refuse_taken(history, self._sink.generations())
        self._settle()
        generation = generation_of(history, server.wal_segment_size)
        self._sink.begin(generation)
        if gap:
            self._sink.tell_gap(gap)
        self._reached = Reached(generation, history.timeline, max(position, generation.begins))
        return self._reached

    def _settle(self) -> None:
        """Wait until what was read is stored, before another generation or a gap begins."""
        self._wait_until_durable()
        if self._reached is not None and not self._reached.is_durable(self._sink):
            raise Interrupted("stopped before everything was stored")

    # Streaming

    def _stream_on(self, way: _Way, reached: Reached) -> None:
        """Stream timeline after timeline, until something ends it."""
        compare, starts = True, 0
        while starts < STARTS_MAX:
            starts += 1
            stream = LogStream(way.found.session, self._sink, reached, way.wake, way.beside)
            before = reached.position
            self._say(f"following timeline {reached.timeline} from {format_lsn(reached.position)}")
            try:
                switched = stream.start(self._order.slot, compare=compare, from_standby=way.found.server.in_recovery)
                if switched is None:
                    end = self._run_stream(stream)
                    if end is not End.SWITCHED:
                        return
                    switched = stream.finish()
            except LogRemovedError as error:
                # Of what is compared the first bytes may lie in a segment before those that the slot keeps.
                if not (compare and stream.is_comparing):
                    reached = self._lose(way, reached, error)
                compare = False
                continue
            except SlotLostError:
                self._own_slot(way.found.session, anew=True)
                continue
            if switched is None:
                self._say("the server ended the stream: it shuts down, or was told to")
                return
            starts = 0 if reached.position > before or switched[0] > reached.timeline else starts
            reached, compare = self._cross(way, switched), True

    def _run_stream(self, stream: LogStream) -> End:
        begun = time.monotonic()
        try:
            end = stream.run(self._stop_requested)
        finally:
            self._steady = self._steady or time.monotonic() - begun >= STEADY_SECONDS
        if end is End.STOPPED:
            self._flush()
            stream.say_goodbye(GOODBYE_SECONDS_MAX)
        elif end is End.STALLED:
            self._say("nothing became durable while the server waits for it: disconnected, the slot is kept")
        return end

    def _lose(self, way: _Way, reached: Reached, error: LogRemovedError) -> Reached:
        """Go on where the server still has its log, and say what is missing."""
        lost_from = f"timeline {reached.timeline} from {format_lsn(reached.position)}"
        reason = f"the server had removed its log of {lost_from}: {error.message}"
        if reached.timeline != way.history.timeline:
            entered = self._enter(way.history, way.history.next_after(reached.timeline), way.found.server)
            self._sink.tell_gap(reason)
        else:
            restart = self._own_slot(way.found.session, anew=True)
            start = restart - restart % way.found.server.wal_segment_size
            if start <= reached.position:
                raise error
            self._settle()
            self._sink.begin(reached.generation)
            self._sink.tell_gap(reason)
            entered = self._reached = Reached(reached.generation, reached.timeline, start)
        self._say(
            f"GAP: {lost_from} up to timeline {entered.timeline} at {format_lsn(entered.position)} is lost. Nothing in "
            "it can be reached, nor anything after it, until there is a new base backup: take one now"
        )
        return entered

    def _cross(self, way: _Way, switched: tuple[int, int]) -> Reached:
        """Go over to the next timeline; one that came up while we were streaming has a history to be asked for."""
        timeline, _ = switched
        if timeline > way.history.timeline:
            way.history = _read_history(way.found.session, way.history.system_identifier, timeline)
            refuse_taken(way.history, self._sink.generations())
        return self._enter(way.history, timeline, way.found.server)


@dataclass(slots=True)
class _Way:
    """One connection's surroundings. ``history`` moves on when the server is promoted."""

    found: Found
    history: TimelineHistory
    wake: Wake
    beside: Beside


def _read_server_history(session: Session, server: ServerFacts) -> TimelineHistory:
    if server.timeline == 1:
        return read_history(server.system_identifier, 1, b"")
    return _read_history(session, server.system_identifier, server.timeline)


def _read_history(session: Session, system_identifier: str, timeline: int) -> TimelineHistory:
    match session.query(f"TIMELINE_HISTORY {timeline}"):
        case [(_, str() as content)]:
            return read_history(system_identifier, timeline, content.encode("utf-8", "surrogateescape"))
    raise SourceFailed(f"the server does not tell the history of timeline {timeline}", hint="Is there a proxy between?")
