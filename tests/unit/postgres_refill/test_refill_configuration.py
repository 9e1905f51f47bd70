"""Facts about the configuration of a copy: the source's own where it fits, a safe one where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from backup_example import Backup, auto_settings, generated, written
from hypothesis import given
from hypothesis import strategies as st

from holdfast.sources.postgres.conf_file import parse_conf

TARGET = Path("/restored/cluster")
OUTSIDE = (
    Backup()
    .without("postgresql.conf", "pg_hba.conf", "pg_ident.conf")
    .with_details(
        configuration_outside=True,
        settings=(
            ("max_connections", "300"),
            ("shared_preload_libraries", "pg_stat_statements"),
            ("pg_stat_statements.max", "5000"),
            ("work_mem", "64MB"),
            ("port", "5433"),
            ("lc_messages", "en_US.UTF-8"),
            ("data_directory", "/var/lib/postgresql/15/main"),
            ("hba_file", "/etc/postgresql/15/main/pg_hba.conf"),
            ("external_pid_file", "/var/run/postgresql/15-main.pid"),
            ("unix_socket_directories", "/var/run/postgresql"),
            ("listen_addresses", "*"),
            ("ssl", "on"),
            ("ssl_key_file", "/etc/ssl/private/ssl-cert-snakeoil.key"),
            ("archive_command", "cp %p /archive/%f"),
            ("client_encoding", "UTF8"),
        ),
    )
)


def main_settings(backup: Backup) -> dict[str | None, str]:
    lines = parse_conf(generated(backup.plan(TARGET), "postgresql.conf"))
    return {line.name: line.value for line in lines if line.name}


def configured(text: str, **more: bytes) -> Backup:
    return Backup().with_paths({"postgresql.conf": text.encode(), **more})


def test_configuration_inside_the_folder_stays_as_it_is() -> None:
    plan = configured("port = 5433\nshared_buffers = 1GB\n").plan(TARGET)
    names = {path.name for path, _, _ in plan.generated}
    assert not names & {"postgresql.conf", "pg_hba.conf", "pg_ident.conf"}
    assert not any("pg_verifybackup" in note for note in plan.notes)


def test_configuration_kept_outside_gives_minimal_files() -> None:
    settings = main_settings(OUTSIDE)
    assert settings["max_connections"] == "300"
    assert settings["shared_preload_libraries"] == "pg_stat_statements"
    assert settings["pg_stat_statements.max"] == "5000"
    assert settings["work_mem"] == "64MB"
    assert settings["port"] == "5433"
    assert settings["listen_addresses"] == "localhost"


def test_paths_of_the_source_do_not_come_along() -> None:
    content = generated(OUTSIDE.plan(TARGET), "postgresql.conf")
    for word in (b"/etc", b"/var", b"archive", b"ssl", b"client_encoding"):
        assert word not in content


def test_the_made_access_rules_admit_only_this_machine_and_nobody_without_proof() -> None:
    rules = [line.split() for line in generated(OUTSIDE.plan(TARGET), "pg_hba.conf").decode().splitlines()]
    rules = [rule for rule in rules if not rule[0].startswith("#")]
    assert {rule[-1] for rule in rules} == {"peer", "scram-sha-256"}
    assert {rule[3] for rule in rules if rule[0] == "host"} == {"127.0.0.1/32", "::1/128"}


def test_made_files_are_told_with_what_pg_verifybackup_needs() -> None:
    notes = OUTSIDE.with_paths({"@settings/postgresql.conf": b""}).plan(TARGET).notes
    assert any("--ignore=pg_hba.conf --ignore=pg_ident.conf --ignore=postgresql.conf" in note for note in notes)
    assert any("@settings/" in note for note in notes)


def test_a_data_directory_of_the_source_is_taken_out_for_the_copy_would_start_there() -> None:
    backup = configured("port = 5433\ndata_directory = '/var/lib/postgresql/15/main'\nwork_mem = 1MB\n")
    lines = parse_conf(generated(backup.plan(TARGET), "postgresql.conf"))
    assert [line.name for line in lines] == ["port", None, "work_mem"]
    assert any("data_directory" in note for note in backup.plan(TARGET).notes)


@pytest.mark.parametrize(
    "line",
    [
        "include '/etc/postgresql/extra.conf'",
        "include_dir = '/etc/postgresql/conf.d'",
        "include_if_exists '../extra.conf'",
        "include 'absent.conf'",
    ],
)
def test_an_include_that_only_the_source_has_is_taken_out_and_its_settings_carried(line: str) -> None:
    backup = configured(f"work_mem = 1MB\n{line}\n").with_details(
        settings=(("work_mem", "9MB"), ("effective_cache_size", "3GB"))
    )
    plan = backup.plan(TARGET)
    assert [parsed.name for parsed in parse_conf(generated(plan, "postgresql.conf"))] == ["work_mem", None]
    assert auto_settings(plan)["effective_cache_size"] == "3GB"


def test_includes_inside_the_folder_are_read_in_the_order_of_the_server() -> None:
    backup = configured(
        "listen_addresses = '10.0.0.1'\ninclude_dir 'conf.d'\n",
        **{"conf.d/b.conf": b"listen_addresses = '*'\n", "conf.d/a.conf": b"listen_addresses = '10.0.0.2'\n"},
    )
    backup = backup.with_paths({"conf.d/.hidden.conf": b"listen_addresses = '10.0.0.3'\n"})
    from dataclasses import replace

    from holdfast.sources.port import Entry, EntryType

    plan = replace(backup, more=(Entry("conf.d", EntryType.FOLDER),)).plan(TARGET)
    assert "listen_addresses" not in auto_settings(plan), "b.conf has the last word, and that listens everywhere"
    assert TARGET / "conf.d/a.conf" in written(plan)


def test_a_file_that_includes_itself_ends() -> None:
    backup = configured("include 'postgresql.conf'\n" * 5)
    assert backup.plan(TARGET).roots == (TARGET,)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("external_pid_file = '/var/run/postgresql/15-main.pid'", "external_pid_file", ""),
        ("listen_addresses = '10.0.0.5,db.internal'", "listen_addresses", "localhost"),
        ("unix_socket_directories = '/srv/sockets'", "unix_socket_directories", "/tmp"),
        ("logging_collector = on\nlog_directory = '/var/log/postgresql'", "log_directory", "log"),
        ("logging_collector = yes\nlog_directory = '../log'", "log_directory", "log"),
        ("ssl = on\nssl_cert_file = '/etc/ssl/cert.pem'", "ssl", "off"),
        ("ssl = on", "ssl", "off"),
        ("huge_pages = on", "huge_pages", "try"),
        ("io_method = io_uring", "io_method", "worker"),
        ("hba_file = '/etc/postgresql/15/main/pg_hba.conf'", "hba_file", "/restored/cluster/pg_hba.conf"),
        ("ident_file = '/etc/postgresql/15/main/pg_ident.conf'", "ident_file", "/restored/cluster/pg_ident.conf"),
    ],
)
def test_what_would_keep_a_copy_from_starting_elsewhere_is_overridden(text: str, name: str, value: str) -> None:
    plan = configured(f"{text}\n").plan(TARGET)
    assert auto_settings(plan)[name] == value
    assert any(name in note for note in plan.notes)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("listen_addresses = '*'", "listen_addresses"),
        ("listen_addresses = '10.0.0.5, localhost'", "listen_addresses"),
        ("listen_addresses = ''", "listen_addresses"),
        ("unix_socket_directories = '/srv/sockets, /tmp'", "unix_socket_directories"),
        ("unix_socket_directories = '@abstract'", "unix_socket_directories"),
        ("logging_collector = on", "log_directory"),
        ("log_directory = '/var/log/postgresql'", "log_directory"),
        ("ssl = off\nssl_cert_file = '/etc/ssl/cert.pem'", "ssl"),
        ("huge_pages = try", "huge_pages"),
    ],
)
def test_what_works_anywhere_stays(text: str, name: str) -> None:
    assert name not in auto_settings(configured(f"{text}\n").plan(TARGET))


def test_tls_stays_on_where_certificate_and_key_are_in_the_backup() -> None:
    backup = configured("ssl = on\n", **{"server.crt": b"", "server.key": b""})
    assert "ssl" not in auto_settings(backup.plan(TARGET))


def test_an_access_file_of_the_source_that_is_not_in_the_backup_is_made() -> None:
    plan = configured("hba_file = '/etc/pg_hba.conf'\n").without("pg_hba.conf").plan(TARGET)
    assert b"scram-sha-256" in generated(plan, "pg_hba.conf")


NAMES = st.sampled_from(["ssl", "listen_addresses", "log_directory", "hba_file", "include", "data_directory", "x.y"])


@given(st.lists(st.tuples(NAMES, st.text(st.characters(exclude_characters="\0\n\r'\\", exclude_categories=["Cs"])))))
def test_no_configuration_breaks_the_plan(settings: list[tuple[str, str]]) -> None:
    plan = configured("".join(f"{name} = '{value}'\n" for name, value in settings)).plan(TARGET)
    assert auto_settings(plan)["archive_mode"] == "off"
