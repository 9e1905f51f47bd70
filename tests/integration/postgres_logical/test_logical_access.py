"""What a role must be allowed, what happens where it is not, and that doctor's statements are what is missing."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from tests.integration.postgres_logical.logical_scene import (
    MemorySink,
    as_role,
    capture,
    clients,
    execute,
    make_database,
    make_role,
    settings_of,
    value,
)
from tests.servers import PostgresServers, installed, quick_settings

from holdfast.model.errors import Denied
from holdfast.model.secrets import Secret
from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.port import Finding, Identity, Severity
from holdfast.sources.postgres.logical.capture import LogicalSource
from holdfast.sources.postgres.logical.witness import How
from holdfast.sources.postgres.settings import PostgresSettings

OLDEST_AND_NEWEST = pytest.mark.parametrize("postgres_major", [15, 18], indirect=True)
NEWEST = pytest.mark.parametrize("postgres_major", [18], indirect=True)
GUARDED = (
    "CREATE TABLE guarded (owner text)",
    "INSERT INTO guarded VALUES ('me'), ('you')",
    "ALTER TABLE guarded ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY own ON guarded USING (owner = 'me')",
)
PASSWORD = "pa ss:w\\ord'\"1"


def refused(settings: PostgresSettings) -> Denied:
    sink = MemorySink()
    with pytest.raises(Denied) as caught:
        capture(settings, sink=sink)
    assert "@witness.json" not in sink.files
    return caught.value


def findings(settings: PostgresSettings) -> list[Finding]:
    return list(LogicalSource("shop", settings).probe().findings)


def broken(settings: PostgresSettings) -> list[Finding]:
    return [finding for finding in findings(settings) if finding.severity is Severity.BROKEN]


def statement_in(finding: Finding) -> str:
    found = re.search(r"DO \$\$.*\$\$;|(?:GRANT|ALTER ROLE) [^;]*;", finding.hint)
    assert found is not None, finding
    return found[0]


@OLDEST_AND_NEWEST
def test_row_security_hides_no_row_in_silence(shared_postgres: ThrowawayPostgres) -> None:
    database = make_database(shared_postgres, "guarded", *GUARDED)
    make_role(shared_postgres, "reads guarded", database, "IN ROLE pg_read_all_data")
    error = refused(as_role(shared_postgres, "reads guarded", database))
    assert "guarded" in error.message
    assert "BYPASSRLS" in error.hint


@NEWEST
def test_forced_row_security_stops_the_owner_too(shared_postgres: ThrowawayPostgres) -> None:
    database = make_database(shared_postgres, "forced", *GUARDED, "ALTER TABLE guarded FORCE ROW LEVEL SECURITY")
    make_role(shared_postgres, "reads_forced", database, "IN ROLE pg_read_all_data")
    execute(shared_postgres, "ALTER TABLE guarded OWNER TO reads_forced", database=database)
    assert "guarded" in refused(as_role(shared_postgres, "reads_forced", database)).message


@OLDEST_AND_NEWEST
def test_a_table_that_cannot_be_read_is_named(shared_postgres: ThrowawayPostgres) -> None:
    database = make_database(shared_postgres, "closed", "CREATE TABLE closed (a integer)")
    make_role(shared_postgres, "reads closed", database)
    error = refused(as_role(shared_postgres, "reads closed", database))
    assert "permission denied for table closed" in error.message
    assert 'GRANT pg_read_all_data TO "reads closed"' in error.hint


@OLDEST_AND_NEWEST
def test_a_large_object_that_cannot_be_read_ends_the_capture(shared_postgres: ThrowawayPostgres) -> None:
    database = make_database(shared_postgres, "lobs", "SELECT lo_from_bytea(12345, 'x')")
    make_role(shared_postgres, "reads lobs", database, "IN ROLE pg_read_all_data BYPASSRLS")
    assert "large object" in refused(as_role(shared_postgres, "reads lobs", database)).message


@OLDEST_AND_NEWEST
def test_what_doctor_says_is_exactly_what_is_missing(shared_postgres: ThrowawayPostgres) -> None:
    more = ("CREATE SCHEMA hidden", "CREATE TABLE hidden.t (a integer)", "SELECT lo_from_bytea(4711, 'x')")
    database = make_database(shared_postgres, "doctor", *GUARDED, *more)
    make_role(shared_postgres, "Hold-Fast", database)
    settings = as_role(shared_postgres, "Hold-Fast", database)
    told = broken(settings)
    assert any("hidden.t" in finding.message for finding in told)
    assert any("guarded" in finding.message for finding in told)
    assert any("large object" in finding.message for finding in told)
    for finding in told:
        execute(shared_postgres, statement_in(finding), database=database)
    assert broken(settings) == []
    assert any("can read every table" in finding.message for finding in findings(settings))
    taken = capture(settings)
    assert taken.table(database, "public.guarded").rows == 2
    assert taken.table(database, "public.guarded").how is How.COMPARED


@OLDEST_AND_NEWEST
def test_doctor_names_a_partitioned_table_that_pg_dump_could_not_lock(shared_postgres: ThrowawayPostgres) -> None:
    parted = ("CREATE TABLE parted (a integer) PARTITION BY RANGE (a)", "CREATE TABLE low PARTITION OF parted DEFAULT")
    database = make_database(shared_postgres, "parted", *parted)
    make_role(shared_postgres, "reader", database)
    execute(shared_postgres, "GRANT SELECT ON low TO reader", database=database)
    settings = as_role(shared_postgres, "reader", database)
    told = broken(settings)
    assert [finding.message.rpartition(": ")[2] for finding in told] == ["public.parted"]
    assert "permission denied for table parted" in refused(settings).message
    execute(shared_postgres, "GRANT SELECT ON parted TO reader", database=database)
    assert broken(settings) == []
    assert capture(settings).table(database, "public.low").rows == 0


@NEWEST
def test_a_managed_service_is_named(postgres_server: ThrowawayPostgres) -> None:
    execute(postgres_server, "CREATE ROLE rds_superuser")
    told = [finding for finding in findings(settings_of(postgres_server, "postgres")) if "managed" in finding.message]
    assert [finding.message.partition(",")[0] for finding in told] == ["Amazon RDS"]


@NEWEST
def test_a_server_that_hides_its_identifier_is_known_by_its_address_and_it_is_said(
    postgres_server: ThrowawayPostgres,
) -> None:
    execute(postgres_server, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    make_database(postgres_server, "hidden")
    make_role(postgres_server, "reader", "postgres", "IN ROLE pg_read_all_data BYPASSRLS")
    settings = as_role(postgres_server, "reader", "hidden")
    taken = capture(settings)
    address = f"127.0.0.1:{postgres_server.port}"
    assert taken.captured.identity == Identity("postgres", (("address", address), ("major_version", "18")))
    assert [notice for notice in taken.captured.notices if address in notice]
    probe = LogicalSource("shop", settings).probe()
    assert probe.identity == taken.captured.identity
    (told,) = [finding for finding in probe.findings if address in finding.message]
    execute(postgres_server, statement_in(told))
    assert [name for name, _ in capture(settings).captured.identity.facts] == ["major_version", "system_identifier"]


@NEWEST
def test_a_role_that_sees_no_passwords_keeps_roles_without_them_and_says_so(shared_postgres: ThrowawayPostgres) -> None:
    database = make_database(shared_postgres, "nopasswords", "CREATE TABLE t AS SELECT 1 AS a")
    make_role(shared_postgres, "owner_only", database)
    execute(shared_postgres, "ALTER TABLE t OWNER TO owner_only", database=database)
    settings = as_role(shared_postgres, "owner_only", database)
    taken = capture(settings)
    assert any("passwords" in notice for notice in taken.captured.notices)
    assert b"PASSWORD" not in taken.sink.files["globals.sql"]
    assert any("passwords" in finding.message for finding in findings(settings))


@NEWEST
def test_doctor_tells_of_clients_that_are_missing(shared_postgres: ThrowawayPostgres) -> None:
    told = broken(settings_of(shared_postgres, "postgres", programs=installed(15).folder))
    assert [("postgresql-client-18" in finding.hint) for finding in told] == [True]
    good = findings(settings_of(shared_postgres, "postgres"))
    assert any("client programs of PostgreSQL 18" in finding.message for finding in good)


@NEWEST
def test_doctor_finds_trouble_and_never_fails(shared_postgres: ThrowawayPostgres) -> None:
    settings = replace(settings_of(shared_postgres, "postgres"), dsn="host=127.0.0.1 port=1 dbname=postgres user=x")
    assert [finding.severity for finding in findings(settings)] == [Severity.BROKEN]


def watch(seen: dict[str, bytes], ended: threading.Event) -> None:
    """Gather the arguments and the environment of every child until the end."""
    while not ended.wait(0.005):
        for pid, name in clients():
            try:
                text = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
            except OSError:  # ended meanwhile
                continue
            if text not in seen.get(name, b""):
                seen[name] = seen.get(name, b"") + text


def test_the_password_is_in_no_childs_arguments_or_environment(postgres_servers: PostgresServers) -> None:
    server = postgres_servers.start(18, replace(quick_settings(), password=PASSWORD))
    try:
        database = make_database(
            server, "secret", "CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, 100000) i"
        )
        dsn = f"host=127.0.0.1 port={server.port} user=postgres dbname=postgres"
        settings = replace(settings_of(server, database), dsn=dsn, password=Secret(PASSWORD))
        seen: dict[str, bytes] = {}
        ended = threading.Event()
        watcher = threading.Thread(target=watch, args=(seen, ended))
        watcher.start()
        taken = capture(settings)
        ended.set()
        watcher.join()
        assert taken.table(database, "public.t").rows == 100000
        assert set(seen) >= {"psql", "pg_dump"}
        assert all(b"w\\ord" not in text and b"ss:w" not in text for text in seen.values())
        folders = {match for text in seen.values() for match in re.findall(rb"PGSERVICEFILE=([^\0]*)", text)}
        assert len(folders) == 1
        assert not Path(folders.pop().decode()).exists()
        wrong = refused(replace(settings, password=Secret("wrong")))
        assert "wrong" not in wrong.message.replace("wrong_password", "")
    finally:
        postgres_servers.drop(server)


class PidChanger:
    """A proxy that, as a pooler does, answers in a session that is not the one that was greeted."""

    def __init__(self, port: int) -> None:
        import socket

        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        import socket

        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            threading.Thread(target=self._copy, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._copy, args=(server, client, True), daemon=True).start()

    @staticmethod
    def _copy(source: object, target: object, changes: bool) -> None:
        import socket

        assert isinstance(source, socket.socket)
        assert isinstance(target, socket.socket)
        with source, target:
            try:
                while data := source.recv(65536):
                    changed = data.replace(b"K\x00\x00\x00\x0c\x00", b"K\x00\x00\x00\x0c\x01")
                    target.sendall(changed if changes else data)
            except OSError:
                return

    def close(self) -> None:
        self._listener.close()


@pytest.mark.parametrize("postgres_major", [15], indirect=True)
def test_a_pooler_in_the_way_is_explained(shared_postgres: ThrowawayPostgres) -> None:
    proxy = PidChanger(shared_postgres.port)
    dsn = f"host=127.0.0.1 port={proxy.port} user=postgres dbname=postgres sslmode=disable gssencmode=disable"
    settings = replace(settings_of(shared_postgres, "postgres"), dsn=dsn)
    try:
        with psycopg.connect(dsn) as connection:
            assert connection.info.backend_pid != connection.execute("SELECT pg_backend_pid()").fetchone()[0]  # type: ignore[index]
        with pytest.raises(Exception, match="not the one that greeted us") as caught:
            capture(settings)
        assert "PgBouncer" in getattr(caught.value, "hint", "")
        assert ["PgBouncer" in finding.hint for finding in broken(settings)] == [True]
    finally:
        proxy.close()
    assert value(shared_postgres, "SELECT 1") == 1
