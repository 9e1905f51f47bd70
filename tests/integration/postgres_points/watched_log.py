"""A server's log copied out of its pg_wal whenever a test looks: what a follower would have stored, without one."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import psycopg

from holdfast.model.errors import IntegrityBroken
from holdfast.model.logs import Generation, Sample, Stretch, holes, union
from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.postgres.details import parse_lsn
from holdfast.sources.postgres.wal_segments import segment_name

SETTLE_SECONDS = 1.1
"""A sample proves what was committed a second before it, and not sooner."""
HISTORY_LINE = re.compile(r"^(\d+)\t([0-9A-F]+/[0-9A-F]+)\t", re.MULTILINE)
PIECE_BYTES = 300_000


@dataclass
class WatchedLog:
    """Keeps the ``LogContent`` contract over bytes in memory. A test may take bytes out of ``held`` again."""

    segment_bytes: int = 16 << 20
    lines: dict[str, Generation] = field(default_factory=dict)
    held: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)
    seen: dict[str, list[Sample]] = field(default_factory=dict)
    upto: dict[str, int] = field(default_factory=dict)

    def look(self, server: ThrowawayPostgres, *, settle: bool = True) -> datetime:
        """Copy what was flushed so far; return a moment that the log now proves to be covered."""
        with psycopg.connect(server.connection_string(), autocommit=True) as connection:
            row = connection.execute("SELECT clock_timestamp()").fetchone()
            assert row is not None
            moment: datetime = row[0]
            if settle:
                time.sleep(SETTLE_SECONDS)
            row = connection.execute(
                "SELECT clock_timestamp(), pg_current_wal_flush_lsn()::text, timeline_id, system_identifier::text, "
                "pg_walfile_name(pg_current_wal_flush_lsn()) FROM pg_control_checkpoint(), pg_control_system()"
            ).fetchone()
            assert row is not None
        at, lsn, timeline, system, name = row
        timeline = max(int(timeline), int(name[:8], 16))
        end = parse_lsn(lsn)
        line = self._line(server, timeline, system)
        first = self.upto.get(line.id, self._first(server, timeline))
        for number in range(first // self.segment_bytes, -(-end // self.segment_bytes)):
            path = server.data_folder / "pg_wal" / segment_name(timeline, number, self.segment_bytes)
            begin = number * self.segment_bytes
            content = path.read_bytes()[: end - begin]
            skipped = max(0, first - begin)
            self.held[line.id].append((begin + skipped, content[skipped:]))
        self.upto[line.id] = end
        self.seen[line.id].append(Sample(at, end))
        return moment

    def _first(self, server: ThrowawayPostgres, timeline: int) -> int:
        names = sorted(path.name for path in (server.data_folder / "pg_wal").glob(f"{timeline:08X}" + "[0-9A-F]" * 16))
        per_id = 0x1_0000_0000 // self.segment_bytes
        return (int(names[0][8:16], 16) * per_id + int(names[0][16:], 16)) * self.segment_bytes

    def _line(self, server: ThrowawayPostgres, timeline: int, system: str) -> Generation:
        history, begins, fork, parent = "", 0, None, None
        if timeline > 1:
            history = (server.data_folder / "pg_wal" / f"{timeline:08X}.history").read_text()
            ancestor, lsn = HISTORY_LINE.findall(history)[-1]
            fork = parse_lsn(lsn)
            begins = fork - fork % self.segment_bytes
            parent = f"{int(ancestor):032x}"
        line = Generation(
            f"{timeline:032x}",
            begins,
            parent,
            fork,
            {
                "kind": "postgres",
                "system_identifier": system,
                "timeline": timeline,
                "history": history,
                "segment_bytes": self.segment_bytes,
            },
        )
        self.lines.setdefault(line.id, line)
        self.held.setdefault(line.id, [])
        self.seen.setdefault(line.id, [])
        return line

    def drop(self, timeline: int, stretch: Stretch) -> None:
        """Forget some bytes: a gap."""
        kept: list[tuple[int, bytes]] = []
        for start, content in self.held[f"{timeline:032x}"]:
            end = start + len(content)
            if start < stretch.start:
                kept.append((start, content[: stretch.start - start]))
            if end > stretch.end:
                kept.append((max(start, stretch.end), content[max(0, stretch.end - start) :]))
        self.held[f"{timeline:032x}"] = [piece for piece in kept if piece[1]]

    def generations(self) -> Sequence[Generation]:
        return [self.lines[name] for name in sorted(self.lines)]

    def stretches(self, generation: str) -> Sequence[Stretch]:
        return union(Stretch(start, start + len(content)) for start, content in self.held[generation])

    def read(self, generation: str, stretch: Stretch) -> Iterator[bytes]:
        if holes(self.stretches(generation), stretch):
            raise IntegrityBroken(f"the log has a hole in {stretch}")
        at = stretch.start
        for start, content in sorted(self.held[generation], key=lambda piece: piece[0]):
            while start <= at < min(start + len(content), stretch.end):
                piece = content[at - start : min(at - start + PIECE_BYTES, stretch.end - start)]
                yield piece
                at += len(piece)

    def samples(self, generation: str, stretch: Stretch) -> Sequence[Sample]:
        return sorted(one for one in self.seen[generation] if stretch.start <= one.position <= stretch.end)

    def samples_around(self, generation: str, at: datetime) -> tuple[Sample | None, Sample | None]:
        known = self.seen[generation]
        before = max((one for one in known if one.at <= at), default=None)
        return before, min((one for one in known if one.at > at), default=None)

    def age(self, delta: timedelta) -> None:
        """Move every sample, as a server with another clock would have told them."""
        self.seen = {name: [Sample(one.at + delta, one.position) for one in kept] for name, kept in self.seen.items()}
