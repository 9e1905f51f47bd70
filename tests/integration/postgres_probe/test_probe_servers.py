"""What doctor finds on real servers, and that following its hints repairs it."""

from __future__ import annotations

import random
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from tests.servers import QUICK_PARAMETERS

from holdfast.model.secrets import Secret
from holdfast.sandbox import PostgresSettings as ServerSettings
from holdfast.sandbox import ThrowawayPostgres
from holdfast.sandbox.ports import free_port
from holdfast.sources.port import Finding, Probe, Severity
from holdfast.sources.postgres.probe import probe_postgres
from holdfast.sources.postgres.roles import EXTRAS, FILE_BYTES, create_role
from holdfast.sources.postgres.settings import PostgresSettings, settings_from_dsn

StartPostgres = Callable[..., ThrowawayPostgres]
OLDEST_AND_NEWEST = pytest.mark.parametrize("postgres_major", [15, 18], indirect=True)


def run(server: ThrowawayPostgres, *statements: str) -> None:
    with psycopg.connect(server.connection_string(), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def address(server: ThrowawayPostgres, role: str = "holdfast", extra: str = "dbname=postgres") -> PostgresSettings:
    return PostgresSettings(dsn=f"host=127.0.0.1 port={server.port} user={role} {extra}")


def found(probe: Probe, topic: str) -> list[Finding]:
    return [finding for finding in probe.findings if finding.topic == topic]


def broken(probe: Probe) -> list[Finding]:
    return [finding for finding in probe.findings if finding.severity is Severity.BROKEN]


def statements_in(hint: str) -> list[str]:
    return [f"{part.strip()};" for part in re.findall(r"((?:CREATE|ALTER|GRANT) [^;]*);", hint)]


def with_access(server: ThrowawayPostgres, *lines: str) -> None:
    path = server.data_folder / "pg_hba.conf"
    path.write_text("".join(f"{line}\n" for line in lines))


def test_the_minimal_role_is_enough_and_every_extra_can_be_had(postgres_server: ThrowawayPostgres) -> None:
    run(postgres_server, create_role())
    probe = probe_postgres(address(postgres_server))
    assert broken(probe) == []
    assert probe.identity is not None
    assert dict(probe.identity.facts)["major_version"] == str(postgres_server.programs.major)
    assert probe.version.startswith(str(postgres_server.programs.major))
    assert probe.size_bytes
    assert probe.clock_offset_seconds is not None
    assert abs(probe.clock_offset_seconds) < 1
    offers = [finding for finding in found(probe, "privileges") if finding.severity is Severity.NOTICE]
    assert len(offers) == len(EXTRAS)

    run(postgres_server, *(statement for offer in offers for statement in statements_in(offer.hint)))
    again = probe_postgres(address(postgres_server))
    assert [finding.severity for finding in found(again, "privileges")] == [Severity.OK]
    assert [finding.severity for finding in found(again, "configuration")] == [Severity.OK]


@OLDEST_AND_NEWEST
def test_the_grant_for_bytes_of_files_is_valid(postgres_server: ThrowawayPostgres) -> None:
    run(postgres_server, create_role(), *statements_in(FILE_BYTES.statements("holdfast")))
    with psycopg.connect(address(postgres_server).dsn) as connection:
        row = connection.execute("SELECT length(pg_read_binary_file('PG_VERSION', 0, 2))").fetchone()
    assert row == (2,)


@OLDEST_AND_NEWEST
def test_a_role_without_replication_is_completed_by_the_statement_in_the_hint(
    postgres_server: ThrowawayPostgres,
) -> None:
    run(postgres_server, 'CREATE ROLE "Hold-Fast" LOGIN')
    settings = address(postgres_server, "Hold-Fast")
    problems = broken(probe_postgres(settings))
    assert {finding.topic for finding in problems} == {"privileges", "replication"}
    for finding in problems:
        run(postgres_server, *statements_in(finding.hint))
    assert broken(probe_postgres(settings)) == []


@OLDEST_AND_NEWEST
def test_a_role_that_is_not_there_is_made_by_the_statement_in_the_hint(postgres_server: ThrowawayPostgres) -> None:
    problems = broken(probe_postgres(address(postgres_server, "nobody_yet")))
    assert {finding.topic for finding in problems} == {"connection", "replication"}
    run(postgres_server, *statements_in(problems[0].hint))
    assert broken(probe_postgres(address(postgres_server, "nobody_yet"))) == []


def test_without_a_database_in_the_address_the_usual_one_is_used(shared_postgres: ThrowawayPostgres) -> None:
    run(shared_postgres, "DROP ROLE IF EXISTS holdfast", create_role())
    probe = probe_postgres(address(shared_postgres, extra=""))
    assert broken(probe) == []
    assert "database postgres" in found(probe, "connection")[0].message


@OLDEST_AND_NEWEST
def test_the_missing_access_line_is_the_one_in_the_hint(postgres_server: ThrowawayPostgres) -> None:
    own = "local all postgres trust", "host all postgres 127.0.0.1/32 trust"
    run(postgres_server, create_role())
    with_access(postgres_server, *own)
    run(postgres_server, "SELECT pg_reload_conf()")
    closed = probe_postgres(address(postgres_server))
    assert {finding.topic for finding in broken(closed)} == {"connection", "replication"}
    line = found(closed, "connection")[0].hint.partition(": ")[2]
    assert line == "host  all,replication  holdfast  127.0.0.1/32  scram-sha-256"

    only_sql = "host all holdfast 127.0.0.1/32 trust"
    with_access(postgres_server, *own, only_sql)
    run(postgres_server, "SELECT pg_reload_conf()")
    half = probe_postgres(address(postgres_server))
    assert broken(half) == []
    (finding,) = found(half, "replication")
    assert finding.severity is Severity.NOTICE
    line = finding.hint.partition(": ")[2]
    assert line == "host  replication  holdfast  127.0.0.1/32  scram-sha-256"

    with_access(postgres_server, *own, only_sql, line.replace("scram-sha-256", "trust"))
    run(postgres_server, "SELECT pg_reload_conf()")
    assert found(probe_postgres(address(postgres_server)), "replication")[0].severity is Severity.OK


@OLDEST_AND_NEWEST
def test_a_role_that_may_only_replicate_can_back_up_and_is_told_what_it_misses(
    postgres_server: ThrowawayPostgres,
) -> None:
    run(postgres_server, create_role())
    with_access(postgres_server, "host all postgres 127.0.0.1/32 trust", "host replication holdfast 127.0.0.1/32 trust")
    run(postgres_server, "SELECT pg_reload_conf()")
    probe = probe_postgres(address(postgres_server))
    assert broken(probe) == []
    assert found(probe, "connection")[0].severity is Severity.WARNING
    assert found(probe, "checksums")[0].severity is Severity.OK
    assert probe.identity is not None


@OLDEST_AND_NEWEST
def test_a_superuser_is_told_that_less_is_enough(shared_postgres: ThrowawayPostgres) -> None:
    probe = probe_postgres(address(shared_postgres, "postgres"))
    assert broken(probe) == []
    (finding,) = found(probe, "privileges")
    assert finding.severity is Severity.NOTICE
    assert create_role() in finding.hint


def test_a_server_that_cannot_be_backed_up_says_why(new_postgres: StartPostgres) -> None:
    parameters = {**QUICK_PARAMETERS, "wal_level": "minimal", "max_wal_senders": "0", "max_replication_slots": "0"}
    server = new_postgres(15, ServerSettings(parameters=parameters, data_checksums=False))
    run(server, create_role(), "CREATE UNLOGGED TABLE fleeting (id int)")
    probe = probe_postgres(address(server))
    assert {finding.topic for finding in broken(probe)} == {"log", "wal senders", "slots", "replication"}
    assert found(probe, "checksums")[0].severity is Severity.WARNING
    assert found(probe, "unlogged tables")[0].message.startswith("1 unlogged")


def test_every_wal_sender_taken_is_told(new_postgres: StartPostgres) -> None:
    server = new_postgres(18, ServerSettings(parameters={**QUICK_PARAMETERS, "max_wal_senders": "1"}))
    run(server, create_role())
    with psycopg.connect(server.connection_string() + " replication=true", autocommit=True):
        problems = broken(probe_postgres(address(server)))
    assert {finding.topic for finding in problems} == {"wal senders", "replication"}


def test_in_place_tablespaces_on_15_are_refused(new_postgres: StartPostgres) -> None:
    server = new_postgres(15)
    run(server, create_role(), "SET allow_in_place_tablespaces = on", "SELECT 1")
    with psycopg.connect(server.connection_string(), autocommit=True) as connection:
        connection.execute("SET allow_in_place_tablespaces = on")
        connection.execute("CREATE TABLESPACE odd LOCATION ''")
    assert {finding.topic for finding in broken(probe_postgres(address(server)))} == {"tablespaces"}


@OLDEST_AND_NEWEST
def test_a_managed_service_is_recognised_by_its_role(postgres_server: ThrowawayPostgres) -> None:
    run(postgres_server, "CREATE ROLE rds_superuser", "CREATE ROLE holdfast LOGIN")
    (finding,) = found(probe_postgres(address(postgres_server)), "service")
    assert finding.severity is Severity.BROKEN
    assert "RDS" in finding.message


@OLDEST_AND_NEWEST
def test_a_clock_an_hour_off_is_measured(shared_postgres: ThrowawayPostgres) -> None:
    probe = probe_postgres(address(shared_postgres, "postgres"), lambda: datetime.now(UTC) - timedelta(hours=1))
    assert probe.clock_offset_seconds is not None
    assert 3598 < probe.clock_offset_seconds < 3602
    assert found(probe, "clock")[0].severity is Severity.WARNING


@OLDEST_AND_NEWEST
def test_a_failing_archive_command_is_told(postgres_server: ThrowawayPostgres) -> None:
    run(
        postgres_server,
        create_role(),
        "ALTER SYSTEM SET archive_mode = on",
        "ALTER SYSTEM SET archive_command = 'exit 1'",
    )
    postgres_server.restart()
    run(postgres_server, "SELECT pg_switch_wal()")
    with psycopg.connect(postgres_server.connection_string(), autocommit=True) as connection:
        for _ in range(300):
            row = connection.execute("SELECT pg_sleep(0.1), failed_count FROM pg_stat_archiver").fetchone()
            if row and row[1]:
                break
    assert found(probe_postgres(address(postgres_server)), "archiving")[0].severity is Severity.WARNING


def test_nobody_listening_is_a_finding_with_libpqs_reason() -> None:
    port = free_port(random.SystemRandom())
    probe = probe_postgres(PostgresSettings(dsn=f"host=127.0.0.1 port={port} user=x dbname=x"))
    assert probe.identity is None
    assert {finding.topic for finding in broken(probe)} == {"connection", "replication"}
    assert "refused" in broken(probe)[0].message
    assert broken(probe)[0].hint


@OLDEST_AND_NEWEST
def test_a_wrong_password_is_a_finding_that_does_not_show_it(new_postgres: StartPostgres, postgres_major: int) -> None:
    server = new_postgres(postgres_major, ServerSettings(password="right", parameters=QUICK_PARAMETERS))
    settings = replace(address(server, "postgres", "dbname=postgres"), password=Secret("wr0ng-s3cret"))
    probe = probe_postgres(settings)
    assert len(broken(probe)) == 2
    assert "wr0ng-s3cret" not in repr(probe)
    assert "password" in broken(probe)[0].hint


@contextmanager
def pooler() -> Iterator[int]:
    """Answers every start-up as PgBouncer does one that asks for replication."""
    listener = socket.create_server(("127.0.0.1", 0))
    message = b"SFATAL\0C08P01\0Munsupported startup parameter: replication\0\0"

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                head = connection.recv(8)
                if head[4:] == bytes.fromhex("04d2162f"):  # SSLRequest: not here.
                    connection.sendall(b"N")
                    head = connection.recv(8)
                connection.recv(int.from_bytes(head[:4], "big") - 8)
                connection.sendall(b"E" + (len(message) + 4).to_bytes(4, "big") + message)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_a_pooler_in_between_is_explained() -> None:
    with pooler() as port:
        probe = probe_postgres(PostgresSettings(dsn=f"host=127.0.0.1 port={port} user=x gssencmode=disable"))
    (finding,) = found(probe, "replication")
    assert finding.severity is Severity.BROKEN
    assert "PgBouncer" in finding.hint


def test_an_address_that_cannot_be_read_is_a_finding() -> None:
    probe = probe_postgres(replace(settings_from_dsn(""), dsn="postgresql://user@host:notaport/db"))
    assert [finding.severity for finding in probe.findings] == [Severity.BROKEN, Severity.BROKEN]
