"""Throwaway servers, for real: each version starts, answers and leaves nothing, whatever happens."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from tests.servers import PostgresServers, installed, processes_below, quick_settings

from holdfast.model.errors import ConfigInvalid, SourceFailed
from holdfast.sandbox import ThrowawayPostgres, server_account
from holdfast.sandbox import server as server_module

WAIT_SECONDS_MAX = 40.0
ANY_MAJOR = 18

StartPostgres = Callable[..., ThrowawayPostgres]


def ask(server: ThrowawayPostgres, query: str) -> object:
    with psycopg.connect(server.connection_string()) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def run(server: ThrowawayPostgres, statement: str) -> None:
    with psycopg.connect(server.connection_string()) as connection:
        connection.execute(statement.encode())


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not is_so():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def test_every_version_starts_answers_and_stops(postgres_server: ThrowawayPostgres, postgres_major: int) -> None:
    assert ask(postgres_server, "select 1") == 1
    assert str(ask(postgres_server, "show server_version")).startswith(f"{postgres_major}.")
    assert ask(postgres_server, "show data_checksums") == "on"

    postgres_server.stop()

    assert not postgres_server.is_running()
    assert processes_below(postgres_server.folder) == []


def test_every_version_is_made_as_the_settings_say(new_postgres: StartPostgres, postgres_major: int) -> None:
    settings = replace(
        quick_settings({"application_name": r"it's a \ name"}), data_checksums=False, wal_segment_mebibytes=1
    )

    server = new_postgres(postgres_major, settings)

    assert ask(server, "show data_checksums") == "off"
    assert ask(server, "show wal_segment_size") == "1MB"
    assert ask(server, "select reset_val from pg_settings where name = 'application_name'") == r"it's a \ name"


def test_new_servers_have_identities_of_their_own(new_postgres: StartPostgres) -> None:
    query = "select system_identifier from pg_control_system()"

    assert ask(new_postgres(ANY_MAJOR), query) != ask(new_postgres(ANY_MAJOR), query)


def test_replication_is_allowed_from_here(shared_postgres: ThrowawayPostgres) -> None:
    with psycopg.connect(shared_postgres.connection_string() + " replication=true", autocommit=True) as connection:
        assert connection.execute("IDENTIFY_SYSTEM").fetchone()


def test_a_restart_keeps_port_and_data(new_postgres: StartPostgres) -> None:
    server = new_postgres(ANY_MAJOR)
    run(server, "create table kept as select 7 as number")
    port = server.port

    server.restart()

    assert server.port == port
    assert ask(server, "select number from kept") == 7


def test_a_killed_server_leaves_no_process_and_starts_again(new_postgres: StartPostgres) -> None:
    server = new_postgres(ANY_MAJOR)
    run(server, "create table kept as select 7 as number")

    server.kill()

    assert not server.is_running()
    server.start()
    assert ask(server, "select number from kept") == 7


def test_a_server_with_a_password_refuses_another_one(new_postgres: StartPostgres) -> None:
    secret = r"a:b\c 'd'"
    server = new_postgres(ANY_MAJOR, replace(quick_settings(), password=secret))

    assert ask(server, "select 1") == 1
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.connection_string(), password="wrong")
    assert secret not in server.connection_string()
    assert secret not in repr(server.settings)
    assert all(secret not in command for _, command in processes_below(server.folder))


def test_without_listening_only_the_socket_answers(new_postgres: StartPostgres) -> None:
    server = new_postgres(ANY_MAJOR, replace(quick_settings(), listen=False))

    assert ask(server, "select 1") == 1
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=5)


def test_a_long_folder_name_is_no_problem_for_the_socket(postgres_servers: PostgresServers) -> None:
    folder = postgres_servers.new_folder("x" * 100)
    with ThrowawayPostgres(installed(ANY_MAJOR), folder, replace(quick_settings(), listen=False)) as server:
        assert ask(server, "select 1") == 1
        short_folder = server.sockets_folder

    assert not short_folder.exists()


def test_a_failed_start_tells_what_the_log_says_and_leaves_nothing(server_folder: Path) -> None:
    server = ThrowawayPostgres(installed(ANY_MAJOR), server_folder, quick_settings({"no_such_thing": "1"}))

    with pytest.raises(SourceFailed, match=r'unrecognized configuration parameter "no_such_thing"'):
        server.start()

    assert not server.is_running()
    assert processes_below(server_folder) == []


def test_a_failed_initdb_tells_what_it_said(server_folder: Path) -> None:
    settings = replace(quick_settings(), locale="no_SUCH.place")

    with pytest.raises(SourceFailed, match=r"initdb of PostgreSQL .*\n(.*\n)*.*invalid locale name"):
        ThrowawayPostgres(installed(ANY_MAJOR), server_folder, settings).start()

    assert not (server_folder / "data").exists()


def test_a_port_that_is_taken_is_told(server_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        settings = replace(quick_settings(), port=other.getsockname()[1])
        with pytest.raises(SourceFailed, match="Address already in use") as caught:
            ThrowawayPostgres(installed(ANY_MAJOR), server_folder, settings).start()

    assert "another port" in caught.value.hint


def test_a_start_that_takes_too_long_is_given_up(new_postgres: StartPostgres, server_folder: Path) -> None:
    copy = copy_of(new_postgres(ANY_MAJOR), server_folder / "copy")
    (copy / "standby.signal").touch()  # it will wait for a primary for ever, and never be more than a standby
    settings = replace(quick_settings(), start_seconds_max=2.0)

    with pytest.raises(SourceFailed, match="was not ready after 2 s"):
        ThrowawayPostgres(installed(ANY_MAJOR), server_folder / "server", settings, data_folder=copy).start()

    assert processes_below(server_folder) == []


def test_a_standby_is_ready_when_it_answers_if_that_is_asked(new_postgres: StartPostgres, server_folder: Path) -> None:
    copy = copy_of(new_postgres(ANY_MAJOR), server_folder / "copy")
    (copy / "standby.signal").touch()

    standby = new_postgres(ANY_MAJOR, replace(quick_settings(), standby=True), data_folder=copy)

    assert ask(standby, "select pg_is_in_recovery()") is True


def test_a_data_folder_is_started_without_reaching_for_its_source(
    new_postgres: StartPostgres, server_folder: Path
) -> None:
    hostile = quick_settings(
        {
            "archive_mode": "on",
            "archive_command": f"touch {server_folder}/archived",
            "synchronous_standby_names": "*",
            "external_pid_file": f"{server_folder}/external.pid",
            "ssl": "on",
            "data_directory": "/nowhere",
        }
    )
    copy = copy_of(new_postgres(ANY_MAJOR), server_folder / "copy")
    (copy / "sandbox.conf").write_text(hostile.parameters_text())
    (copy / "pg_hba.conf").write_text("host all all 127.0.0.1/32 reject\n")

    server = new_postgres(ANY_MAJOR, data_folder=copy)

    run(server, "create table written as select 1")
    assert ask(server, "select pg_switch_wal() is not null")
    assert ask(server, "show data_directory") == str(copy)
    assert (copy / "pg_hba.conf").read_text() == "host all all 127.0.0.1/32 reject\n"
    server.stop()
    assert sorted(path.name for path in server_folder.iterdir()) == ["copy"]


def test_a_data_folder_of_another_version_is_refused_with_the_package(
    new_postgres: StartPostgres, server_folder: Path
) -> None:
    copy = copy_of(new_postgres(17), server_folder / "copy")
    server = ThrowawayPostgres(installed(18), server_folder / "server", quick_settings(), data_folder=copy)

    with pytest.raises(SourceFailed, match=r"is of PostgreSQL 17, the programs are 18") as caught:
        server.start()

    assert "postgresql-17" in caught.value.hint


def test_a_folder_that_is_no_cluster_is_refused(server_folder: Path) -> None:
    server = ThrowawayPostgres(installed(ANY_MAJOR), server_folder / "server", data_folder=server_folder)

    with pytest.raises(SourceFailed, match="no PG_VERSION"):
        server.start()


def test_root_is_told_when_the_servers_account_cannot_enter_the_folder(tmp_path: Path) -> None:
    if server_account() is None:  # then the server runs as ourselves, who made the folder
        assert os.geteuid() != 0
        return
    tmp_path.chmod(0o700)

    with pytest.raises(ConfigInvalid, match=r"cannot be entered by \w+") as caught:
        ThrowawayPostgres(installed(ANY_MAJOR), tmp_path / "server").start()

    assert "/var/tmp" in caught.value.hint


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_error_in_the_block_stops_the_server(server_folder: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), ThrowawayPostgres(installed(ANY_MAJOR), server_folder, quick_settings()):
        raise error

    assert processes_below(server_folder) == []


CRASHING = """
import sys, time
from pathlib import Path
from holdfast.sandbox import PostgresPrograms, PostgresSettings, ThrowawayPostgres
programs = PostgresPrograms(int(sys.argv[1]), "", Path(sys.argv[2]))
with ThrowawayPostgres(programs, Path(sys.argv[3])) as server:
    print(server.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_crash_of_the_process_that_started_it_leaves_no_server(server_folder: Path, number: signal.Signals) -> None:
    programs = installed(ANY_MAJOR)
    arguments = [str(programs.major), str(programs.folder), str(server_folder)]
    with subprocess.Popen([sys.executable, "-c", CRASHING, *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        assert pid in [found for found, _ in processes_below(server_folder)]

        process.send_signal(number)

    wait_until(lambda: processes_below(server_folder) == [])
    assert not (server_folder / "data" / "postmaster.pid").exists(), "stopped, but not in order"


def test_a_server_that_ignores_an_orderly_stop_is_stopped_all_the_same(
    new_postgres: StartPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "IMMEDIATE_SECONDS_MAX", 0.1)
    server = new_postgres(ANY_MAJOR, replace(quick_settings(), stop_seconds_max=0.1))
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # it cannot even see the signals that ask it to end

    server.stop()

    assert processes_below(server.folder) == []


def copy_of(server: ThrowawayPostgres, copy: Path) -> Path:
    server.stop()
    shutil.copytree(server.data_folder, copy, symlinks=True)  # root's own now, as a restored folder is
    return copy
