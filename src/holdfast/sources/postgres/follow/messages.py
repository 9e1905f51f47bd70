"""The messages inside a running START_REPLICATION, as bytes.

Source: PostgreSQL's documentation, "Streaming Replication Protocol" (XLogData, Primary keepalive, Standby status
update).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from holdfast.model.errors import SourceFailed

DATA_HEADER_BYTES = 25
_DATA = struct.Struct(">cQQq")
_KEEPALIVE = struct.Struct(">cQqB")
_STATUS = struct.Struct(">cQQQqB")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class LogData:
    """Bytes of the log from ``start`` on; when they were sent the server's own log ended at ``server_end``."""

    start: int
    server_end: int
    sent_at: datetime
    data: memoryview


@dataclass(frozen=True, slots=True)
class Keepalive:
    """What the server had sent so far, by its clock, and whether it waits for an answer."""

    sent_end: int
    sent_at: datetime
    wants_reply: bool


def parse_message(message: memoryview) -> LogData | Keepalive:
    """Return what a message says; its data is good as long as the message is. Raises ``SourceFailed``."""
    kind = bytes(message[:1])
    if kind == b"w" and len(message) >= DATA_HEADER_BYTES:
        _, start, end, micros = _DATA.unpack_from(message)
        return LogData(start, end, from_micros(micros), message[DATA_HEADER_BYTES:])
    if kind == b"k" and len(message) == _KEEPALIVE.size:
        _, end, micros, wants = _KEEPALIVE.unpack_from(message)
        return Keepalive(end, from_micros(micros), bool(wants))
    raise SourceFailed(f"log stream: message of unknown type {kind!r}", hint="Is there a proxy in between?")


def compose_status(durable: int, now: datetime, *, wants_reply: bool) -> bytes:
    """Return a status update. All three positions are what is durable: nothing less may free the log or a commit."""
    micros = (now - _EPOCH) // timedelta(microseconds=1)
    return _STATUS.pack(b"r", durable, durable, durable, micros, wants_reply)


def from_micros(micros: int) -> datetime:
    """Return the moment that lies so many microseconds after the year 2000 began."""
    return _EPOCH + timedelta(microseconds=micros)
