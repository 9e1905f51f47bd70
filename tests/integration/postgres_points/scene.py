"""A server that is backed up and whose log is watched, and folders restored to points of it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.postgres_capture.servers import settings_of, value
from tests.integration.postgres_points.watched_log import WatchedLog
from tests.servers import PostgresServers, quick_settings

from holdfast.model.documents import JsonObject
from holdfast.restore.log_files import write_log
from holdfast.sandbox import ThrowawayPostgres, server_account
from holdfast.sandbox.folders import hand_over
from holdfast.sources.port import CaptureRequest, Data, Entry, FolderTarget, Inspect, StoredEntry, Tier
from holdfast.sources.postgres.capture import PostgresSource
from holdfast.sources.postgres.details import BackupDetails, parse_lsn
from holdfast.sources.postgres.locate import Base, Point, Target, locate
from holdfast.sources.postgres.refill import PostgresFolderRefill

WATCHED = {
    "wal_keep_size": "2GB",
    "max_wal_size": "2GB",
    "max_prepared_transactions": "5",
    "timezone": "UTC",
    "autovacuum": "off",
}


class MemorySink:
    """Keeps what a capture yields, in memory."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.contents: list[bytearray] = []

    def add(self, entry: Entry) -> None:
        self.open(entry)

    def open(self, entry: Entry, inspect: Inspect | None = None) -> MemorySink:
        self.entries.append(entry)
        self.contents.append(bytearray())
        return self

    def write(self, data: Data) -> None:
        self.contents[-1] += data

    def close(self) -> None:
        return

    def drain(self) -> None:
        return

    def expect(self, size_bytes: int) -> None:
        return

    def stored(self) -> list[StoredEntry]:
        return [StoredEntry(entry, len(data)) for entry, data in zip(self.entries, self.contents, strict=True)]


@dataclass(frozen=True, slots=True)
class Kept:
    sink: MemorySink
    details: JsonObject


@dataclass
class Scene:
    """Backups of a server, its log, and what is restored of them."""

    servers: PostgresServers
    server: ThrowawayPostgres
    log: WatchedLog = field(default_factory=WatchedLog)
    bases: list[Base] = field(default_factory=list)
    kept: dict[str, Kept] = field(default_factory=dict)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def back_up(self, server: ThrowawayPostgres | None = None) -> Base:
        sink = MemorySink()
        source = PostgresSource("shop", settings_of(server or self.server))
        captured = source.capture(CaptureRequest(Tier.FULL), sink)
        details = BackupDetails.from_document(captured.details)
        base = Base(
            f"{next(self.numbers):032x}",
            details.system_identifier,
            details.stop_timeline,
            parse_lsn(details.start_lsn),
            parse_lsn(details.stop_lsn),
            captured.ended_at,
        )
        self.bases.append(base)
        self.kept[base.id] = Kept(sink, captured.details)
        return base

    def locate(self, point: Point) -> Target:
        return locate(self.log, self.bases, point)

    def restore(self, point: Point | Target) -> Path:
        """Restore a folder and hand it to the account that runs servers."""
        target = point if isinstance(point, Target) else self.locate(point)
        kept = self.kept[target.backup]
        folder = self.servers.new_folder("restored") / "data"
        refill = PostgresFolderRefill(target)
        place = FolderTarget(folder)
        refill.refuse_target(place)
        plan = refill.plan_folder(place, kept.details, kept.sink.stored(), lambda i: bytes(kept.sink.contents[i]))
        for made, mode in plan.folders:
            made.mkdir(mode, parents=True, exist_ok=True)
        for step in (*plan.files, *plan.last):
            content = bytes(kept.sink.contents[step.index])
            if step.zero_from is not None:
                content = content[: step.zero_from] + bytes(len(content) - step.zero_from)
            step.path.write_bytes(content)
            step.path.chmod(step.mode)
        write_log(self.log, plan.log, lambda _: None, lambda: False)
        for path, content, mode in plan.generated:
            path.write_bytes(content)
            path.chmod(mode)
        hand_over(folder, server_account())
        return folder

    def start(self, point: Point | Target) -> ThrowawayPostgres:
        """Restore, start, and wait for the end of recovery."""
        folder = self.restore(point)
        return self.servers.start(self.server.programs.major, quick_settings(), data_folder=folder)

    def rows(self, point: Point | Target, query: str = "SELECT coalesce(max(id), 0) FROM ledger") -> int:
        """Restore, start, ask, and drop again."""
        server = self.start(point)
        try:
            return int(value(server, query))
        finally:
            self.servers.drop_folder(server.data_folder.parent)
