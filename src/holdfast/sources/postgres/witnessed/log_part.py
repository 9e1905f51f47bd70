"""A short part of the log, read at once from the server."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import pq

from holdfast.model.errors import SourceFailed
from holdfast.sources.postgres.connection import Session
from holdfast.sources.postgres.details import format_lsn
from holdfast.sources.postgres.failures import failed

DOING = "reading the last of the log"
HEADER_BYTES = 25
"""Before the bytes of a piece of the log: a letter, where it begins, where the log ends, the time."""
PART_BYTES_MAX = 256 << 20


def read_log(session: Session, timeline: int, start: int, end: int, seconds_max: float) -> Iterator[bytes]:
    """Yield the log from ``start`` to ``end`` or a little beyond; the session then takes commands again.

    Raises ``SourceFailed`` where the server has it no longer, ``Unavailable`` where it does not flush so far.
    """
    session.send(f"START_REPLICATION PHYSICAL {format_lsn(start)} TIMELINE {timeline}")
    result = session.next_result(seconds_max, DOING)
    if result is None or result.status != pq.ExecStatus.COPY_BOTH:
        raise failed(result, DOING) if result is not None else SourceFailed(f"{DOING}: no answer")
    at = start
    for message in session.copy_messages(seconds_max):
        if bytes(message[:1]) == b"w":
            at = int.from_bytes(message[1:9], "big") + len(message) - HEADER_BYTES
            yield bytes(message[HEADER_BYTES:])
        if at >= end or at - start > PART_BYTES_MAX:
            break
    session.end_copy()
    session.flush()
    for _ in session.copy_messages(seconds_max):
        continue
    while session.next_result(seconds_max, DOING) is not None:
        continue
    if at < end:
        raise SourceFailed(f"{DOING}: it ended at {format_lsn(at)}, before {format_lsn(end)}")
