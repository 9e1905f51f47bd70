"""What goes wrong during a capture ends it soon, with a clear error, and leaves nothing on the server."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from tests.conftest import StartPostgres
from tests.integration.postgres_capture.servers import (
    capture,
    execute,
    replace_hba,
    settings_of,
    start_standby,
    value,
)
from tests.servers import PostgresServers, quick_settings

from holdfast.model.errors import Conflict, Denied, HoldfastError, Interrupted, SourceFailed, Unavailable
from holdfast.model.secrets import Secret
from holdfast.sandbox import PostgresSettings, ThrowawayPostgres
from holdfast.sandbox.account import server_account
from holdfast.sandbox.folders import hand_over
from holdfast.sources.port import Identity
from holdfast.sources.postgres.logical.names import WITNESS
from holdfast.sources.postgres.settings import Checkpoint, settings_from_dsn

OLDEST_AND_NEWEST = pytest.mark.parametrize("postgres_major", [15, 18], indirect=True)
NEWEST = pytest.mark.parametrize("postgres_major", [18], indirect=True)
MIDDLE_BYTES = 5_000_000
GONE_SECONDS_MAX = 30


def dsn(server: ThrowawayPostgres, user: str) -> str:
    return f"host=127.0.0.1 port={server.port} user={user} dbname=postgres"


def once(action: Callable[[], object]) -> Callable[[int], None]:
    """Return what does something once, in the middle of the stream."""
    done: list[bool] = []

    def on_bytes(count: int) -> None:
        if count >= MIDDLE_BYTES and not done:
            done.append(True)
            action()

    return on_bytes


def wait_until_gone(server: ThrowawayPostgres) -> None:
    """Wait until the server has neither a WAL sender nor a slot left of us."""
    deadline = time.monotonic() + GONE_SECONDS_MAX
    query = "SELECT (SELECT count(*) FROM pg_stat_replication) + (SELECT count(*) FROM pg_replication_slots)"
    while value(server, query):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@OLDEST_AND_NEWEST
def test_a_role_with_replication_alone_is_enough(postgres_server: ThrowawayPostgres, server_folder: Path) -> None:
    execute(postgres_server, "CREATE ROLE holdfast LOGIN REPLICATION")
    taken = capture(postgres_server, server_folder, settings=settings_from_dsn(dsn(postgres_server, "holdfast")))
    assert taken.captured.damage == ()
    assert not any("SQL" in notice for notice in taken.captured.notices)


@OLDEST_AND_NEWEST
def test_without_a_line_for_replication_a_database_serves(
    postgres_server: ThrowawayPostgres, server_folder: Path
) -> None:
    replace_hba(postgres_server, "host postgres all 127.0.0.1/32 trust")
    settings = settings_from_dsn(dsn(postgres_server, "postgres").replace("dbname=postgres", "dbname=template1"))
    taken = capture(postgres_server, server_folder, settings=settings)
    assert taken.sink.paths[-2:] == ["backup_manifest", WITNESS]


@OLDEST_AND_NEWEST
def test_without_sql_the_capture_works_and_says_what_is_missing(
    postgres_server: ThrowawayPostgres, server_folder: Path
) -> None:
    replace_hba(postgres_server, "host replication all 127.0.0.1/32 trust")
    taken = capture(postgres_server, server_folder)
    assert any("no SQL connection" in notice for notice in taken.captured.notices)
    assert ["max_connections", "100"] in taken.captured.details["settings"]  # type: ignore[operator]


@OLDEST_AND_NEWEST
def test_a_role_without_replication_is_told_what_to_grant(
    postgres_server: ThrowawayPostgres, server_folder: Path
) -> None:
    execute(postgres_server, "CREATE ROLE weak LOGIN")
    with pytest.raises(Denied) as caught:
        capture(postgres_server, server_folder, settings=settings_from_dsn(dsn(postgres_server, "weak")))
    assert "REPLICATION" in caught.value.hint


@OLDEST_AND_NEWEST
def test_no_rule_in_pg_hba_is_told_with_the_line_to_add(
    postgres_server: ThrowawayPostgres, server_folder: Path
) -> None:
    replace_hba(postgres_server)
    with pytest.raises(Denied, match="pg_hba") as caught:
        capture(postgres_server, server_folder)
    assert "host replication" in caught.value.hint


@NEWEST
def test_a_wrong_password_is_denied_and_shown_nowhere(postgres_server: ThrowawayPostgres, server_folder: Path) -> None:
    execute(postgres_server, "CREATE ROLE holdfast LOGIN REPLICATION PASSWORD 'right'")
    replace_hba(postgres_server, "host all,replication holdfast 127.0.0.1/32 scram-sha-256")
    settings = replace(settings_from_dsn(dsn(postgres_server, "holdfast")), password=Secret("wr0ng"))
    with pytest.raises(Denied, match="password authentication failed") as caught:
        capture(postgres_server, server_folder, settings=settings)
    assert "wr0ng" not in "".join(traceback.format_exception(caught.value))

    again = server_folder / "again"
    again.mkdir()
    right = replace(settings, password=Secret("right"))
    assert capture(postgres_server, again, settings=right).captured.damage == ()


@NEWEST
def test_the_password_file_and_the_service_file_work_as_usual(
    postgres_server: ThrowawayPostgres, server_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(postgres_server, "CREATE ROLE holdfast LOGIN REPLICATION PASSWORD 'right'")
    replace_hba(postgres_server, "host all,replication holdfast 127.0.0.1/32 scram-sha-256")
    passwords, services = tmp_path / "passwords", tmp_path / "services"
    passwords.write_text("127.0.0.1:*:*:holdfast:right\n")
    passwords.chmod(0o600)
    services.write_text(f"[orders]\nhost=127.0.0.1\nport={postgres_server.port}\nuser=holdfast\ndbname=postgres\n")
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    assert capture(postgres_server, server_folder, settings=settings_from_dsn("service=orders")).captured.damage == ()


def make_certificate(folder: Path) -> Path:
    """Make a certificate for 127.0.0.1, its key beside it, and return its path."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "server.key").write_bytes(private)
    (folder / "server.key").chmod(0o600)
    (folder / "server.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    hand_over(folder, server_account())
    return folder / "server.crt"


@OLDEST_AND_NEWEST
def test_a_verified_tls_connection_carries_a_whole_backup(
    postgres_major: int, server_folder: Path, postgres_servers: PostgresServers, new_postgres: StartPostgres
) -> None:
    certificate = make_certificate(postgres_servers.new_folder("tls"))
    parameters = {"ssl": "on", "ssl_cert_file": str(certificate), "ssl_key_file": str(certificate.with_suffix(".key"))}
    server = new_postgres(postgres_major, quick_settings(parameters))
    replace_hba(server, "hostssl all,replication all 127.0.0.1/32 trust")
    settings = settings_from_dsn(f"{dsn(server, 'postgres')} sslmode=verify-full")

    taken = capture(server, server_folder, settings=replace(settings, tls_root_certificate=certificate))

    assert taken.sink.paths[-2:] == ["backup_manifest", WITNESS]
    plain = server_folder / "plain"
    plain.mkdir()
    with pytest.raises(Denied, match="pg_hba"):
        capture(server, plain, settings=settings_from_dsn(f"{dsn(server, 'postgres')} sslmode=disable"))


def test_nobody_listening_is_unavailable(server_folder: Path, postgres_servers: PostgresServers) -> None:
    with pytest.raises(Unavailable, match="refused") as caught:
        capture(
            postgres_servers.shared(18),
            server_folder,
            settings=settings_from_dsn("host=127.0.0.1 port=1 user=postgres"),
        )
    assert caught.value.hint


@OLDEST_AND_NEWEST
def test_taken_wal_senders_are_told(postgres_major: int, server_folder: Path, new_postgres: StartPostgres) -> None:
    server = new_postgres(postgres_major, quick_settings({"max_wal_senders": "1"}))
    with (
        psycopg.connect(f"{server.connection_string()} replication=true", autocommit=True),
        pytest.raises(Unavailable, match="max_wal_senders") as caught,
    ):
        capture(server, server_folder)
    assert "pg_stat_replication" in caught.value.hint


@OLDEST_AND_NEWEST
def test_taken_slots_are_told(postgres_major: int, server_folder: Path, new_postgres: StartPostgres) -> None:
    server = new_postgres(postgres_major, quick_settings({"max_replication_slots": "1"}))
    execute(server, "SELECT pg_create_physical_replication_slot('taken')")
    with pytest.raises(Unavailable, match="slots") as caught:
        capture(server, server_folder)
    assert "max_replication_slots" in caught.value.hint


@NEWEST
def test_another_system_is_a_conflict_before_anything_is_read(
    postgres_server: ThrowawayPostgres, server_folder: Path
) -> None:
    other = Identity("postgres", (("system_identifier", "1"), ("major_version", "18")))
    with pytest.raises(Conflict, match="another system") as caught:
        capture(postgres_server, server_folder, expected=other)
    assert "holdfast adopt orders" in caught.value.hint
    assert list((server_folder / "captured").iterdir()) == []


@OLDEST_AND_NEWEST
def test_a_stop_request_cancels_the_backup_and_leaves_nothing(
    postgres_server: ThrowawayPostgres, server_folder: Path
) -> None:
    asked: list[bool] = []
    with pytest.raises(Interrupted):
        capture(
            postgres_server,
            server_folder,
            settings=settings_of(postgres_server, max_rate_kib=4096),
            stop_requested=lambda: bool(asked),
            on_bytes=once(lambda: asked.append(True)),
        )
    wait_until_gone(postgres_server)


@NEWEST
def test_an_error_of_the_sink_is_the_one_raised_and_the_backup_is_cancelled(
    postgres_server: ThrowawayPostgres, server_folder: Path
) -> None:
    def fail() -> None:
        raise SourceFailed("the repository is full")

    with pytest.raises(SourceFailed, match="the repository is full"):
        capture(postgres_server, server_folder, on_bytes=once(fail))
    wait_until_gone(postgres_server)


@OLDEST_AND_NEWEST
def test_a_connection_cut_in_the_middle_yields_no_backup(
    postgres_server: ThrowawayPostgres, server_folder: Path
) -> None:
    def cut() -> None:
        execute(postgres_server, "SELECT pg_terminate_backend(pid) FROM pg_stat_replication")

    with pytest.raises(Unavailable) as caught:
        capture(
            postgres_server,
            server_folder,
            settings=settings_of(postgres_server, max_rate_kib=4096),
            on_bytes=once(cut),
        )
    assert caught.value.hint
    wait_until_gone(postgres_server)


@OLDEST_AND_NEWEST
@pytest.mark.parametrize("end", ["restart", "kill"])
def test_a_server_that_restarts_in_the_middle_yields_no_backup_and_serves_the_next(
    postgres_server: ThrowawayPostgres, server_folder: Path, end: str
) -> None:
    action = postgres_server.restart if end == "restart" else postgres_server.kill
    with pytest.raises(Unavailable):
        capture(
            postgres_server,
            server_folder,
            settings=settings_of(postgres_server, max_rate_kib=4096),
            on_bytes=once(action),
        )
    postgres_server.start()
    again = server_folder / "again"
    again.mkdir()
    assert capture(postgres_server, again).captured.damage == ()


@NEWEST
def test_a_server_that_falls_silent_is_not_waited_for_without_end(
    postgres_server: ThrowawayPostgres, server_folder: Path
) -> None:
    stopped: list[int] = []

    def freeze() -> None:
        stopped.append(value(postgres_server, "SELECT pid FROM pg_stat_replication"))
        os.kill(stopped[0], signal.SIGSTOP)

    try:
        with pytest.raises(Unavailable, match="silent"):
            capture(
                postgres_server,
                server_folder,
                settings=settings_of(postgres_server, max_rate_kib=4096, silence_seconds_max=1.0),
                on_bytes=once(freeze),
            )
    finally:
        os.kill(stopped[0], signal.SIGCONT)
    wait_until_gone(postgres_server)


@NEWEST
def test_a_spread_checkpoint_is_waited_for_within_its_own_bound(
    postgres_server: ThrowawayPostgres, server_folder: Path
) -> None:
    execute(postgres_server, "CREATE TABLE t AS SELECT n, repeat('x', 1000) FROM generate_series(1, 20000) n")
    settings = settings_of(postgres_server, checkpoint=Checkpoint.SPREAD, checkpoint_seconds_max=0.5)
    with pytest.raises(Unavailable, match="checkpoint"):
        capture(postgres_server, server_folder, settings=settings)
    wait_until_gone(postgres_server)


@OLDEST_AND_NEWEST
def test_a_standby_promoted_in_the_middle_yields_no_backup(
    postgres_server: ThrowawayPostgres,
    postgres_servers: PostgresServers,
    postgres_major: int,
    server_folder: Path,
    new_postgres: StartPostgres,
) -> None:
    standby = start_standby(postgres_server, postgres_servers, postgres_major, new_postgres)
    with pytest.raises(HoldfastError, match="promoted"):
        capture(
            standby,
            server_folder,
            settings=settings_of(standby, max_rate_kib=8192),
            on_bytes=once(lambda: execute(standby, "SELECT pg_promote()")),
        )


def plant(server: ThrowawayPostgres, path: str) -> None:
    """Damage three pages of a file while the server is down, each in another way."""
    server.stop()
    with (server.data_folder / path).open("r+b") as file:
        file.seek(1 * 8192 + 5000)
        file.write(b"\xff\x00\xff\x01")  # A checksum that is wrong, under an old position.
        file.seek(2 * 8192)
        file.write((0x7FFF_0000).to_bytes(4, "little") + b"\0" * 4)  # A position in the future.
        file.seek(3 * 8192 + 14)
        file.write(b"\0\0")  # pd_upper zero, as in a page never used.
    server.start()


def test_damaged_pages_are_found_in_each_way_and_the_backup_is_kept(
    postgres_major: int, server_folder: Path, new_postgres: StartPostgres
) -> None:
    server = new_postgres(postgres_major, quick_settings({"autovacuum": "off"}))
    execute(server, "CREATE TABLE hurt AS SELECT n, repeat('x', 500) AS w FROM generate_series(1, 500) n", "CHECKPOINT")
    path = value(server, "SELECT pg_relation_filepath('hurt')")
    plant(server, path)

    taken = capture(server, server_folder)

    assert [(damage.path, damage.count) for damage in taken.captured.damage] == [(path, 3)]
    detail = taken.captured.damage[0].detail
    assert "1 page wrong checksum (block 1)" in detail
    assert "1 page changed after the end of the backup (block 2)" in detail
    assert "1 page marked unused but not zero (block 3)" in detail
    assert taken.sink.paths[-2:] == ["backup_manifest", WITNESS]
    assert taken.captured.position


@OLDEST_AND_NEWEST
def test_every_damaged_page_is_counted_where_the_server_stops_naming_them(
    postgres_major: int, server_folder: Path, new_postgres: StartPostgres
) -> None:
    server = new_postgres(postgres_major, quick_settings({"autovacuum": "off"}))
    execute(server, "CREATE TABLE hurt AS SELECT n, repeat('x', 500) AS w FROM generate_series(1, 500) n", "CHECKPOINT")
    path = value(server, "SELECT pg_relation_filepath('hurt')")
    server.stop()
    with (server.data_folder / path).open("r+b") as file:
        for block in range(12):
            file.seek(block * 8192 + 6000)
            file.write(b"\xff\x00\xff\x01")
    server.start()

    damage = capture(server, server_folder).captured.damage

    assert [(item.path, item.count) for item in damage] == [(path, 12)]


@NEWEST
def test_without_checksums_the_headers_are_still_looked_at(
    postgres_major: int, server_folder: Path, new_postgres: StartPostgres
) -> None:
    parameters = quick_settings({"autovacuum": "off"}).parameters
    server = new_postgres(postgres_major, PostgresSettings(data_checksums=False, parameters=parameters))
    execute(server, "CREATE TABLE hurt AS SELECT n, repeat('x', 500) AS w FROM generate_series(1, 500) n", "CHECKPOINT")
    path = value(server, "SELECT pg_relation_filepath('hurt')")
    plant(server, path)

    taken = capture(server, server_folder)

    assert [(damage.path, damage.count) for damage in taken.captured.damage] == [(path, 2)]
    assert any("checksums are off" in notice for notice in taken.captured.notices)
