"""What our own capture takes from a server, our own refill brings back (real servers)."""

from __future__ import annotations

import random
from pathlib import Path

import psycopg
import pytest
from plain_backup import await_promotion, restore_entries, run_program, start_folder

from holdfast.sandbox import ThrowawayPostgres, server_account
from holdfast.sandbox.folders import make_private_folder
from holdfast.sandbox.ports import free_port
from holdfast.sources.port import CaptureRequest, Data, Entry, FolderTarget, Inspect, StoredEntry, Tier
from holdfast.sources.postgres.capture import PostgresSource
from holdfast.sources.postgres.settings import PostgresSettings

ODD_NAMES = ("with space", 'quo"te', "a=b[1]#?", "Київ")


class MemorySink:
    """Keeps what a capture yields."""

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


@pytest.mark.parametrize("postgres_major", [15, 16, 17, 18], indirect=True)
def test_a_captured_cluster_comes_back_whole(postgres_server: ThrowawayPostgres, server_folder: Path) -> None:
    space = server_folder / "a space"
    make_private_folder(space, server_account())
    with psycopg.connect(postgres_server.connection_string(), autocommit=True) as connection:
        connection.execute("CREATE ROLE holdfast LOGIN REPLICATION")
        connection.execute(f"CREATE TABLESPACE beside LOCATION '{space}'")
        connection.execute("CREATE TABLE placed TABLESPACE beside AS SELECT generate_series(1, 1000) AS id")
        connection.execute("SELECT lo_from_bytea(4242, 'a large object')")
        for name in ODD_NAMES:
            connection.execute('CREATE DATABASE "' + name.replace('"', '""') + '"')
    sink = MemorySink()
    settings = PostgresSettings(dsn=f"host=127.0.0.1 port={postgres_server.port} user=holdfast dbname=postgres")
    captured = PostgresSource("shop", settings).capture(CaptureRequest(Tier.FULL), sink)
    postgres_server.stop()

    target = server_folder / "restored"
    moved = server_folder / "elsewhere"
    restore_entries(
        FolderTarget(target, ((str(space), moved),)),
        captured.details,
        sink.stored(),
        lambda index: bytes(sink.contents[index]),
    )
    run_program(postgres_server.programs, "pg_verifybackup", str(target))
    logs = server_folder / "logs"
    make_private_folder(logs, server_account())
    port = free_port(random.SystemRandom())
    start_folder(postgres_server.programs, target, logs / "log", f"-p {port} -k {logs}")
    try:
        address = f"host={logs} port={port} user=postgres dbname=postgres"
        await_promotion(address)
        with psycopg.connect(address, autocommit=True) as connection:
            assert connection.execute("SELECT sum(id) FROM placed").fetchone() == (500500,)
            assert connection.execute("SELECT lo_get(4242)").fetchone() == (b"a large object",)
            location = connection.execute(
                "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'beside'"
            ).fetchone()
            assert location == (str(moved),)
            names = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
            assert set(ODD_NAMES) <= names
    finally:
        run_program(postgres_server.programs, "pg_ctl", "stop", "-w", "-D", str(target))
