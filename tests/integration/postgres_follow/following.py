"""A follower on a thread, and what a test asks a server beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

import psycopg
from tests.integration.postgres_follow.file_sink import FileSink

from holdfast.model.logs import Stretch
from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.port import Identity, LogSink
from holdfast.sources.postgres.details import parse_lsn
from holdfast.sources.postgres.follow.follower import Follower, FollowOrder
from holdfast.sources.postgres.follow.timelines import history_of
from holdfast.sources.postgres.settings import settings_from_dsn

SLOT = "holdfast_test"
SECONDS_MAX = 30.0


class Running:
    """A follower that runs until ``stop``; ``told`` is what it said, ``error`` what ended it."""

    def __init__(self, dsn: str, sink: LogSink, expected: Identity | None = None) -> None:
        self.told: list[str] = []
        self.error: BaseException | None = None
        self._stop = Event()
        order = FollowOrder("orders", settings_from_dsn(dsn), SLOT, expected)
        self._follower = Follower(order, sink, self._stop.is_set, self.told.append)
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._follower.run()
        except Exception as error:  # noqa: BLE001 - told to the test
            self.error = error

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(SECONDS_MAX)
        assert not self._thread.is_alive()

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def heard(self, words: str) -> bool:
        return any(words in text for text in self.told)


@contextmanager
def following(dsn: str, sink: LogSink, expected: Identity | None = None) -> Iterator[Running]:
    running = Running(dsn, sink, expected)
    try:
        yield running
    finally:
        running.stop()


def until(fact: Callable[[], object], what: str, seconds: float = SECONDS_MAX) -> None:
    """Wait for a fact to come true."""
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def run_sql(server: ThrowawayPostgres, *statements: str) -> list[tuple[object, ...]]:
    """Run statements, each committed; return the rows of the last."""
    with psycopg.connect(server.connection_string(), autocommit=True) as connection:
        rows: list[tuple[object, ...]] = []
        for statement in statements:
            cursor = connection.execute(statement.encode())
            rows = cursor.fetchall() if cursor.description else []
        return rows


def flushed(server: ThrowawayPostgres) -> int:
    return parse_lsn(str(run_sql(server, "SELECT pg_current_wal_flush_lsn()")[0][0]))


def stored_end(sink: FileSink, timeline: int = 1) -> int:
    stretches = stretches_of(sink, timeline)
    return stretches[-1].end if stretches else 0


def stretches_of(sink: FileSink, timeline: int) -> list[Stretch]:
    for generation in sink.generations():
        history = history_of(generation)
        if history is not None and history.timeline == timeline:
            return sink.stretches(generation.id)
    return []


def bytes_on_disk(server: ThrowawayPostgres, timeline: int, stretch: Stretch, segment_bytes: int) -> bytes:
    """Return what the server's own files hold of its log."""
    data = bytearray()
    at = stretch.start
    per_id = (1 << 32) // segment_bytes
    while at < stretch.end:
        number = at // segment_bytes
        name = f"{timeline:08X}{number // per_id:08X}{number % per_id:08X}"
        size = min(stretch.end, (number + 1) * segment_bytes) - at
        with (server.data_folder / "pg_wal" / name).open("rb") as file:
            file.seek(at % segment_bytes)
            data += file.read(size)
        at += size
    return bytes(data)
