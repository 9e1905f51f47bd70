"""What was captured starts as a cluster and holds what the server held (real servers)."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import psycopg
import pytest
from tests.conftest import StartPostgres
from tests.integration.postgres_capture.servers import (
    Taken,
    capture,
    execute,
    prepare_start,
    replace_hba,
    run_program,
    settings_of,
    start_standby,
    value,
)
from tests.servers import PostgresServers, quick_settings

from holdfast.model.documents import JsonObject
from holdfast.model.errors import SourceFailed
from holdfast.sandbox import PostgresSettings, ThrowawayPostgres
from holdfast.sandbox.account import server_account
from holdfast.sandbox.folders import hand_over, make_private_folder
from holdfast.sandbox.ports import LOCAL_ADDRESS
from holdfast.sources.port import EntryType, Layout
from holdfast.sources.postgres.details import BackupDetails, parse_lsn
from holdfast.sources.postgres.logical.names import WITNESS
from holdfast.sources.postgres.server_settings import FOLDER

OLDEST_AND_NEWEST = pytest.mark.parametrize("postgres_major", [15, 18], indirect=True)
ODD_DATABASES = ('with "space"', "a=b[c]#?\\їжак")
PAUSE_SECONDS = 0.02


def tablespace_folder(servers: PostgresServers) -> Path:
    folder = servers.new_folder("tablespace") / "odd name=[1] #"
    make_private_folder(folder, server_account())
    return folder


def start_captured(taken: Taken, into: Path, start: StartPostgres, major: int) -> ThrowawayPostgres:
    data = taken.sink.make_data_folder(into)
    prepare_start(data)
    for beside in into.glob("tablespace-*"):
        hand_over(beside, server_account())
    return start(major, quick_settings(), data_folder=data)


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def make_content(server: ThrowawayPostgres, tablespace: Path) -> None:
    execute(
        server,
        f"CREATE TABLESPACE fast LOCATION '{tablespace}'",
        "CREATE TABLE quiet AS SELECT n AS id, md5(n::text) AS word FROM generate_series(1, 20000) n",
        "CREATE TABLE placed TABLESPACE fast AS SELECT n AS id FROM generate_series(1, 5000) n",
        "CREATE UNLOGGED TABLE fleeting AS SELECT 1 AS id",
        "CREATE TABLE parts (id int) PARTITION BY RANGE (id)",
        "CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (100)",
        "INSERT INTO parts SELECT generate_series(0, 99)",
        "SELECT lo_from_bytea(4711, 'large')",
        "CREATE TABLE moving (id bigserial PRIMARY KEY, word text)",
        *(f"CREATE DATABASE {identifier(name)}" for name in ODD_DATABASES),
    )
    for name in ODD_DATABASES:
        execute(server, "CREATE TABLE here AS SELECT 42 AS answer", database=name)


class WriteLoad:
    """Inserts, and creates, fills, truncates, rewrites and drops tables until stopped."""

    def __init__(self, server: ThrowawayPostgres) -> None:
        self._dsn = server.connection_string()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._insert), threading.Thread(target=self._define)]
        self.problems: list[Exception] = []

    def __enter__(self) -> WriteLoad:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self.problems

    def _insert(self) -> None:
        self._repeat("INSERT INTO moving (word) SELECT repeat('x', 500) FROM generate_series(1, 200)")

    def _define(self) -> None:
        self._repeat(
            "CREATE TABLE passing AS SELECT n, repeat('y', 300) AS word FROM generate_series(1, 3000) n",
            "VACUUM FULL passing",
            "TRUNCATE passing",
            "DROP TABLE passing",
        )

    def _repeat(self, *statements: str) -> None:
        try:
            with psycopg.connect(self._dsn, autocommit=True) as connection:
                while not self._stop.is_set():
                    for statement in statements:
                        connection.execute(statement.encode())
                    self._stop.wait(PAUSE_SECONDS)
        except psycopg.Error as error:
            self.problems.append(error)


def test_a_cluster_written_to_during_the_capture_starts_from_what_was_captured(
    postgres_server: ThrowawayPostgres,
    postgres_servers: PostgresServers,
    postgres_major: int,
    server_folder: Path,
    new_postgres: StartPostgres,
) -> None:
    make_content(postgres_server, tablespace_folder(postgres_servers))
    quiet = value(postgres_server, "SELECT md5(string_agg(id || word, ',' ORDER BY id)) FROM quiet")
    with WriteLoad(postgres_server):
        # Slowed down, so that the load has time to change what is being read.
        taken = capture(postgres_server, server_folder, settings=settings_of(postgres_server, max_rate_kib=20_000))
    assert taken.captured.damage == ()
    assert any("unlogged" in notice for notice in taken.captured.notices)

    copy = start_captured(taken, server_folder, new_postgres, postgres_major)

    assert value(copy, "SELECT md5(string_agg(id || word, ',' ORDER BY id)) FROM quiet") == quiet
    assert value(copy, "SELECT count(*) FROM placed") == 5000
    assert value(copy, "SELECT count(*) FROM parts") == 100
    assert value(copy, "SELECT convert_from(lo_get(4711), 'UTF8')") == "large"
    assert value(copy, "SELECT count(*) FROM fleeting") == 0
    assert value(copy, "SELECT count(*) FROM moving") % 200 == 0
    for name in ODD_DATABASES:
        assert value(copy, "SELECT answer FROM here", name) == 42
    where = ("-h", LOCAL_ADDRESS, "-p", str(copy.port), "-U", "postgres")
    run_program_cleanly(copy, "pg_amcheck", *where, "--all", "--install-missing", "--heapallindexed")


def run_program_cleanly(server: ThrowawayPostgres, name: str, *arguments: str) -> None:
    result = run_program(server, name, *arguments)
    assert result.returncode == 0, result.stdout + result.stderr


def test_pg_verifybackup_agrees_with_the_stored_manifest(
    postgres_server: ThrowawayPostgres, postgres_servers: PostgresServers, server_folder: Path
) -> None:
    make_content(postgres_server, tablespace_folder(postgres_servers))
    taken = capture(postgres_server, server_folder)

    data = taken.sink.make_data_folder(server_folder)
    hand_over(data, server_account())
    for beside in server_folder.glob("tablespace-*"):
        hand_over(beside, server_account())

    run_program_cleanly(postgres_server, "pg_verifybackup", str(data))


def test_the_capture_tells_what_a_restore_needs(
    postgres_server: ThrowawayPostgres, postgres_servers: PostgresServers, postgres_major: int, server_folder: Path
) -> None:
    place = tablespace_folder(postgres_servers)
    execute(postgres_server, f"CREATE TABLESPACE fast LOCATION '{place}'", "CREATE TABLE t TABLESPACE fast AS SELECT 1")
    taken = capture(postgres_server, server_folder)

    captured, sink = taken.captured, taken.sink
    details = BackupDetails.from_document(captured.details)
    oid = value(postgres_server, "SELECT oid FROM pg_tablespace WHERE spcname = 'fast'")
    assert details.major == postgres_major
    assert details.system_identifier == value(
        postgres_server, "SELECT system_identifier::text FROM pg_control_system()"
    )
    assert details.catalog_version == value(postgres_server, "SELECT catalog_version_no FROM pg_control_system()")
    assert details.checksums is True
    assert details.configuration_outside is False
    assert details.setting("max_connections") == "100"
    assert details.setting("shared_buffers") == "32MB"
    assert [(space.oid, space.location) for space in details.tablespaces] == [(oid, str(place))]
    assert sink.links == {f"pg_tblspc/{oid}": str(place)}
    assert parse_lsn(details.start_lsn) < parse_lsn(details.stop_lsn)
    assert dict(captured.identity.facts)["major_version"] == str(postgres_major)
    assert sink.paths[-2:] == ["backup_manifest", WITNESS]
    assert sink.expected_bytes is not None
    assert "tablespace_map" not in sink.paths
    assert not any(path.startswith("pg_replslot/") for path in sink.paths)
    pages = {entry.path for entry in sink.entries if entry.layout is Layout.PAGES}
    assert f"pg_tblspc/{oid}" in {"/".join(path.split("/")[:2]) for path in pages}
    assert "global/pg_control" not in pages
    assert all(entry.modified_at is not None for entry in sink.entries if entry.type is EntryType.FOLDER)


def make_tablespace_inside(server: ThrowawayPostgres) -> None:
    with psycopg.connect(server.connection_string(), autocommit=True) as connection:
        connection.execute("SET allow_in_place_tablespaces = on")
        connection.execute("CREATE TABLESPACE inside LOCATION ''")
        connection.execute("CREATE TABLE kept TABLESPACE inside AS SELECT n FROM generate_series(1, 3000) n")


@OLDEST_AND_NEWEST
@pytest.mark.parametrize("sql_line", ["host all postgres 127.0.0.1/32 trust", "host all postgres 127.0.0.1/32 reject"])
def test_a_tablespace_inside_the_data_folder_is_refused_with_and_without_sql(
    postgres_server: ThrowawayPostgres, server_folder: Path, sql_line: str
) -> None:
    make_tablespace_inside(postgres_server)
    replace_hba(postgres_server, sql_line, "host replication all 127.0.0.1/32 trust")
    with pytest.raises(SourceFailed, match="inside the data folder"):
        capture(postgres_server, server_folder)


@pytest.mark.parametrize("postgres_major", [18], indirect=True)
def test_a_tablespace_inside_the_data_folder_is_taken_where_the_server_is_set_to_have_them(
    postgres_server: ThrowawayPostgres, postgres_major: int, server_folder: Path, new_postgres: StartPostgres
) -> None:
    execute(postgres_server, "ALTER SYSTEM SET allow_in_place_tablespaces = on", "SELECT pg_reload_conf()")
    make_tablespace_inside(postgres_server)
    copy = start_captured(capture(postgres_server, server_folder), server_folder, new_postgres, postgres_major)
    assert value(copy, "SELECT count(*) FROM kept") == 3000


@OLDEST_AND_NEWEST
def test_a_standby_gives_a_backup_that_starts(
    postgres_server: ThrowawayPostgres,
    postgres_servers: PostgresServers,
    postgres_major: int,
    server_folder: Path,
    new_postgres: StartPostgres,
) -> None:
    execute(postgres_server, "CREATE TABLE quiet AS SELECT n FROM generate_series(1, 1000) n")
    standby = start_standby(postgres_server, postgres_servers, postgres_major, new_postgres)
    taken = capture(standby, server_folder)

    assert BackupDetails.from_document(taken.captured.details).in_recovery
    assert any("standby" in notice for notice in taken.captured.notices)
    data_folder = server_folder / "data"
    copy_folder = server_folder
    (taken.sink.folder / "standby.signal").unlink(missing_ok=True)
    copy = start_captured(taken, copy_folder, new_postgres, postgres_major)
    assert copy.data_folder == data_folder
    assert value(copy, "SELECT count(*) FROM quiet") == 1000


@OLDEST_AND_NEWEST
def test_a_server_on_a_later_timeline_is_captured_with_its_history(
    postgres_server: ThrowawayPostgres, postgres_major: int, server_folder: Path, new_postgres: StartPostgres
) -> None:
    execute(postgres_server, "CREATE TABLE quiet AS SELECT n FROM generate_series(1, 1000) n")
    promoted = start_captured(capture(postgres_server, server_folder), server_folder, new_postgres, postgres_major)

    again = server_folder / "again"
    again.mkdir()
    again.chmod(0o711)
    taken = capture(promoted, again)

    assert BackupDetails.from_document(taken.captured.details).start_timeline == 2
    assert "pg_wal/00000002.history" in taken.sink.paths
    assert value(start_captured(taken, again, new_postgres, postgres_major), "SELECT count(*) FROM quiet") == 1000


@OLDEST_AND_NEWEST
def test_wal_segments_of_another_size_are_taken_whole(
    postgres_major: int, server_folder: Path, new_postgres: StartPostgres
) -> None:
    server = new_postgres(
        postgres_major, PostgresSettings(wal_segment_mebibytes=1, parameters=quick_settings().parameters)
    )
    taken = capture(server, server_folder)
    details = BackupDetails.from_document(taken.captured.details)
    assert details.wal_segment_size == 1 << 20
    segments = [path for path in taken.sink.paths if path.startswith("pg_wal/0") and path.count("/") == 1]
    assert segments
    assert {len(taken.sink.content(path)) for path in segments} == {1 << 20}


@OLDEST_AND_NEWEST
def test_configuration_outside_the_data_folder_is_kept_beside_byte_for_byte(
    postgres_server: ThrowawayPostgres, postgres_servers: PostgresServers, server_folder: Path
) -> None:
    outside = postgres_servers.new_folder("etc")
    (outside / "conf.d").mkdir()
    (outside / "conf.d" / "work.conf").write_text("work_mem = '5MB'  # ours\n")
    conf = (postgres_server.data_folder / "postgresql.conf").read_text()
    (outside / "postgresql.conf").write_text(f"{conf}\ninclude_dir = 'conf.d'\n")
    for name in ("pg_hba.conf", "pg_ident.conf"):
        shutil.copy(postgres_server.data_folder / name, outside / name)
    postgres_server.stop()
    (postgres_server.data_folder / "postgresql.conf").write_text(
        f"include '{outside}/postgresql.conf'\n"
        f"hba_file = '{outside}/pg_hba.conf'\n"
        f"ident_file = '{outside}/pg_ident.conf'\n"
    )
    hand_over(outside, server_account())
    postgres_server.start()

    taken = capture(postgres_server, server_folder)

    for name in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf", "work.conf"):
        original = next(outside.rglob(name)).read_bytes()
        kept = [path for path in taken.sink.paths if path.startswith(FOLDER) and path.endswith(name)]
        assert [taken.sink.content(path) for path in kept] == [original]
    document: JsonObject = json.loads(taken.sink.content(f"{FOLDER}/settings.json"))
    assert isinstance(document["settings"], list)
    assert isinstance(document["hba_rules"], list)
    assert BackupDetails.from_document(taken.captured.details).setting("work_mem") == "5MB"
