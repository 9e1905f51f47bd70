"""What the tests of restores into live servers share: a backup in a plain folder, and a program that restores it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import psycopg
from psycopg import sql
from tests.servers import installed

from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.port import CaptureRequest, Data, Entry, Inspect, StoredEntry, Tier
from holdfast.sources.postgres.logical.capture import LogicalSource
from holdfast.sources.postgres.logical.names import Selection
from holdfast.sources.postgres.logical.refill import LiveReport, PostgresServerRefill, ServerTarget
from holdfast.sources.postgres.settings import settings_from_dsn

PIECE_BYTES = 64 << 10
STAMP = datetime(2026, 1, 15, 12, 0, 0, tzinfo=UTC)
STAMP_TEXT = "20260115t120000"


class FolderStream:
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = path.open("xb")

    def write(self, data: Data) -> None:
        self._file.write(data)

    def close(self) -> None:
        self._file.close()


class FolderBackup:
    """A logical backup as plain files: a sink that several threads may use, and the content of what is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, entry: Entry) -> None:
        raise AssertionError(f"a logical backup has files only, not {entry}")

    def open_stream(self, entry: Entry) -> FolderStream:
        return FolderStream(self.folder / entry.path)

    def drain(self) -> None:
        """Everything is where it belongs."""

    def expect(self, size_bytes: int) -> None:
        """Nobody waits."""


class FolderSink(FolderBackup):
    def open(self, entry: Entry, inspect: Inspect | None = None) -> FolderStream:
        assert inspect is None
        return self.open_stream(entry)


class FolderContent(FolderBackup):
    @property
    def paths(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    @property
    def entries(self) -> Sequence[StoredEntry]:
        return [StoredEntry(Entry(str(path.relative_to(self.folder))), path.stat().st_size) for path in self.paths]

    def open(self, index: int) -> Iterator[bytes]:
        with self.paths[index].open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                yield piece


def execute(server: ThrowawayPostgres, *statements: str, database: str = "postgres", role: str = "postgres") -> None:
    address = psycopg.conninfo.make_conninfo(server.connection_string(database), user=role)
    with psycopg.connect(address, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def rows(server: ThrowawayPostgres, query: str, database: str = "postgres") -> list[tuple[Any, ...]]:
    with psycopg.connect(server.connection_string(database), autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def value(server: ThrowawayPostgres, query: str, database: str = "postgres") -> Any:
    return rows(server, query, database)[0][0]


def databases(server: ThrowawayPostgres) -> set[str]:
    return {name for (name,) in rows(server, "SELECT datname FROM pg_database WHERE NOT datistemplate")}


def drop_all(server: ThrowawayPostgres) -> None:
    """Drop every database and role of a test."""
    for name in databases(server) - {"postgres"}:
        with psycopg.connect(server.connection_string(), autocommit=True) as connection:
            connection.execute(sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(sql.Identifier(name)))
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
    for (name,) in rows(server, "SELECT rolname FROM pg_roles WHERE rolname <> 'postgres' AND rolname !~ '^pg_'"):
        with psycopg.connect(server.connection_string(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def take(server: ThrowawayPostgres, folder: Path, database: str, programs: Path | None = None) -> FolderContent:
    """Back up a database into a new folder."""
    settings = replace(settings_from_dsn(server.connection_string()), programs=programs)
    LogicalSource("shop", settings, Selection(database)).capture(CaptureRequest(Tier.FULL), FolderSink(folder))
    return FolderContent(folder)


def target(server: ThrowawayPostgres, database: str | None = None, **changes: Any) -> ServerTarget:
    settings = settings_from_dsn(server.connection_string())
    return ServerTarget(replace(settings, programs=installed(server.programs.major).folder), database, **changes)


def refill(**changes: Any) -> PostgresServerRefill:
    return PostgresServerRefill(now=lambda: STAMP, **changes)


def restore(content: FolderContent, wish: ServerTarget, **changes: Any) -> LiveReport:
    """Plan and run."""
    doing = refill(**changes)
    return doing.run(content, wish, doing.plan(content, wish))


def main() -> None:
    """Restore as a process of its own, which kills itself as a step begins: FOLDER DSN DATABASE IN_PLACE STEP.

    ``STEP+0.05`` is so many seconds later.
    """
    folder, dsn, database, in_place, last = sys.argv[1:6]
    wanted, _, later = last.partition("+")

    def at_step(step: str) -> None:
        if step == wanted and later:
            threading.Timer(float(later), os.kill, (os.getpid(), signal.SIGKILL)).start()
        elif step == wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    wish = ServerTarget(settings_from_dsn(dsn), database, in_place=in_place == "yes")
    content = FolderContent(Path(folder))
    doing = PostgresServerRefill(at_step=at_step)
    doing.run(content, wish, doing.plan(content, wish))


if __name__ == "__main__":
    main()
