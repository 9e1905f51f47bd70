"""What the tests of the capture do with servers: SQL, a capture into a folder, and starting what was captured."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
from tests.integration.postgres_capture.folder_sink import FolderSink
from tests.servers import PostgresServers, quick_settings

from holdfast.sandbox import PostgresSettings as ServerSettings
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
    try:
        captured = source.capture(CaptureRequest(Tier.FULL, expected, stop_requested), sink)
    finally:
        sink.abandon()
    assert sink.drained
    return Taken(captured, sink)


def prepare_start(data_folder: Path) -> None:
    """Add what makes a plain recovery: to the end of its own log, then promoted.

    No target: ``immediate`` is only reached where one more record follows, and a backup may end with its segment.
    """
    (data_folder / "recovery.signal").touch()
    with (data_folder / "postgresql.auto.conf").open("a") as conf:
        conf.write("restore_command = 'false'\n")
        conf.write("recovery_target_timeline = 'current'\n")


def replace_hba(server: ThrowawayPostgres, *lines: str) -> None:
    """Put other access rules in force; the superuser keeps the socket."""
    path = server.data_folder / "pg_hba.conf"
    path.write_text("".join(f"{line}\n" for line in ("local all postgres trust", *lines)))
    with psycopg.connect(
        f"host='{server.sockets_folder}' port={server.port} user=postgres dbname=postgres", autocommit=True
    ) as connection:
        connection.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + PROGRAM_SECONDS_MAX
        while (row := connection.execute("SELECT count(*) FROM pg_hba_file_rules").fetchone()) != (len(lines) + 1,):
            assert time.monotonic() < deadline, row
        connection.execute("SELECT pg_sleep(0.2)")


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


def start_standby(
    primary: ThrowawayPostgres, servers: PostgresServers, major: int, start: Callable[..., ThrowawayPostgres]
) -> ThrowawayPostgres:
    """Start a standby made from a capture, and wait until it has replayed what the primary wrote."""
    folder = servers.new_folder("standby")
    taken = capture(primary, folder)
    data = taken.sink.make_data_folder(folder)
    (data / "standby.signal").touch()
    with (data / "postgresql.auto.conf").open("a") as conf:
        conf.write(f"primary_conninfo = '{primary.connection_string().replace(chr(39), chr(39) * 2)}'\n")
    settings = ServerSettings(parameters=quick_settings().parameters, standby=True)
    standby = start(major, settings, data_folder=data)
    execute(primary, "CHECKPOINT", "SELECT pg_switch_wal()")
    position = value(primary, "SELECT pg_current_wal_lsn()::text")
    deadline = time.monotonic() + 30
    while not value(standby, f"SELECT pg_last_wal_replay_lsn() >= '{position}'"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return standby
