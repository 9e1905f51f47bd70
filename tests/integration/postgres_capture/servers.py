"""What the tests of the capture do with servers: SQL, a capture into a folder, and starting what was captured."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
from tests.integration.postgres_capture.folder_sink import FolderSink

from holdfast.sandbox import ThrowawayPostgres, server_account
from holdfast.sources.port import Captured, CaptureRequest, Identity, Tier
from holdfast.sources.postgres.capture import PostgresSource
from holdfast.sources.postgres.settings import PostgresSettings, settings_from_dsn

PROGRAM_SECONDS_MAX = 60


def execute(server: ThrowawayPostgres, *statements: str, database: str = "postgres") -> None:
    with psycopg.connect(server.connection_string(database), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def value(server: ThrowawayPostgres, query: str, database: str = "postgres") -> Any:
    with psycopg.connect(server.connection_string(database), autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


def settings_of(server: ThrowawayPostgres, **changes: Any) -> PostgresSettings:
    """The settings that reach a server, with short bounds."""
    settings = settings_from_dsn(server.connection_string())
    return replace(settings, **{"query_seconds_max": 20.0, "silence_seconds_max": 20.0, **changes})


@dataclass(frozen=True, slots=True)
class Taken:
    captured: Captured
    sink: FolderSink


def capture(
    server: ThrowawayPostgres,
    folder: Path,
    *,
    settings: PostgresSettings | None = None,
    expected: Identity | None = None,
    stop_requested: Callable[[], bool] = lambda: False,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> Taken:
    sink = FolderSink(folder / "captured", on_bytes)
    sink.folder.mkdir()
    source = PostgresSource("orders", settings or settings_of(server))
    captured = source.capture(CaptureRequest(Tier.FULL, expected, stop_requested), sink)
    assert sink.drained
    return Taken(captured, sink)


def prepare_start(data_folder: Path) -> None:
    """Add what makes a plain recovery: to consistency, then promoted, with nothing but its own log."""
    (data_folder / "recovery.signal").touch()
    with (data_folder / "postgresql.auto.conf").open("a") as conf:
        conf.write("restore_command = 'false'\nrecovery_target = 'immediate'\nrecovery_target_action = 'promote'\n")
        conf.write("recovery_target_timeline = 'current'\n")


def run_program(server: ThrowawayPostgres, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    account = server_account()
    return subprocess.run(
        [str(server.programs.path(name)), *arguments],
        capture_output=True,
        text=True,
        timeout=PROGRAM_SECONDS_MAX,
        user=account.user_id if account else None,
        cwd="/",
        check=False,
    )
