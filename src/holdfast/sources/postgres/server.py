"""What a server says of itself over a replication connection: identity, version, sizes, state."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.model.errors import Conflict, SourceFailed
from holdfast.sources.port import Identity
from holdfast.sources.postgres.connection import Session
from holdfast.sources.postgres.details import WAL_SEGMENT_SIZES, parse_lsn

KIND = "postgres"
MAJOR_FIRST, MAJOR_LAST = 15, 18

_UNITS = {"B": 1, "kB": 1024, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4}


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """A server as it was when asked. ``position`` is where its log ends; ``checksums`` None is unknown."""

    system_identifier: str
    timeline: int
    position: int
    version_num: int
    version: str
    block_size: int
    wal_segment_size: int
    blocks_per_segment: int
    checksums: bool | None
    in_recovery: bool

    @property
    def major(self) -> int:
        """The major version."""
        return self.version_num // 10000

    @property
    def identity(self) -> Identity:
        """What makes it the same system tomorrow. Timelines change by promotion, and are followed instead."""
        return Identity(KIND, (("system_identifier", self.system_identifier), ("major_version", str(self.major))))


def read_server(session: Session) -> ServerFacts:
    """Ask a replication session. Raises ``SourceFailed`` where an answer cannot be."""
    match session.query("IDENTIFY_SYSTEM"):
        case [(str() as system_identifier, str() as timeline, str() as position, *_)]:
            pass
        case _:
            raise SourceFailed(
                "the server did not identify itself", hint="Is there a proxy in between? Connect directly."
            )
    block_size = int(session.show("block_size") or 0)
    segment_bytes = parse_size(session.show("segment_size") or "0")
    wal_segment_size = parse_size(session.show("wal_segment_size") or "0")
    if block_size <= 0 or segment_bytes < block_size or wal_segment_size not in WAL_SEGMENT_SIZES:
        raise SourceFailed(
            f"the server tells impossible sizes: block {block_size}, WAL segment {wal_segment_size}",
            hint="Is there a proxy in between? Connect directly.",
        )
    checksums = session.show("data_checksums")
    return ServerFacts(
        system_identifier=system_identifier,
        timeline=int(timeline),
        position=parse_lsn(position),
        version_num=session.server_version,
        version=session.show("server_version") or str(session.server_version),
        block_size=block_size,
        wal_segment_size=wal_segment_size,
        blocks_per_segment=segment_bytes // block_size,
        checksums=None if checksums is None else checksums == "on",
        in_recovery=session.show("in_hot_standby") == "on",
    )


def require_supported(version_num: int) -> None:
    """Raise ``SourceFailed`` for a version that holdfast was not tried with."""
    major = version_num // 10000
    if not MAJOR_FIRST <= major <= MAJOR_LAST:
        raise SourceFailed(
            f"PostgreSQL {major} is not supported, only {MAJOR_FIRST} to {MAJOR_LAST}",
            hint="Use a holdfast that supports it, or upgrade the server (older ones get no fixes any more).",
        )


def require_same_system(source: str, expected: Identity | None, found: Identity) -> None:
    """Raise ``Conflict`` where the earlier backups came from another system."""
    if expected is None or expected == found:
        return
    known, now = dict(expected.facts), dict(found.facts)
    different = ", ".join(
        f"{name.replace('_', ' ')} {known.get(name)} became {now.get(name)}"
        for name in sorted(known | now)
        if known.get(name) != now.get(name)
    )
    raise Conflict(
        f"source {source} is another system than its earlier backups: {different or 'another kind'}",
        hint=f"Check the address. After pg_upgrade or for a new cluster: holdfast adopt {source} "
        "(the older backups stay restorable).",
    )


def parse_size(text: str) -> int:
    """Return the bytes that SHOW prints as ``16MB``, ``1GB`` or a bare number; 0 for anything else."""
    digits = text.rstrip("BkMGT")
    unit = text[len(digits) :]
    return int(digits) * _UNITS.get(unit or "B", 0) if digits.isdigit() else 0
