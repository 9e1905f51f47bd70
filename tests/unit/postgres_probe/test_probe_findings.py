"""Facts about how a server's answers are judged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.sources.port import Finding, Severity
from holdfast.sources.postgres.probe_facts import ServerView
from holdfast.sources.postgres.probe_findings import CLOCK_OFFSET_SECONDS_MAX, judge, replication_finding
from holdfast.sources.postgres.roles import EXTRAS, access_line, complete_role, create_role

SOUND = ServerView(
    role="holdfast",
    superuser=False,
    replication=True,
    client="10.0.0.7",
    local=False,
    in_recovery=False,
    database="shop",
    version_num=150010,
    settings={
        "archive_mode": "off",
        "block_size": "8192",
        "config_file": "/var/lib/pg/postgresql.conf",
        "data_checksums": "on",
        "data_directory": "/var/lib/pg",
        "data_directory_mode": "0700",
        "full_page_writes": "on",
        "max_replication_slots": "10",
        "max_slot_wal_keep_size": "20GB",
        "max_wal_senders": "10",
        "server_version": "15.10",
        "wal_level": "replica",
        "wal_segment_size": "16MB",
    },
    encrypted=True,
    senders_used=1,
    slots_used=0,
    clock_offset_seconds=0.004,
    clock_doubt_seconds=0.001,
    unlogged=0,
    system_identifier="7301234567890123456",
    size_bytes=5 << 20,
)


def configured(**settings: str) -> ServerView:
    return replace(SOUND, settings={**SOUND.settings, **settings})


def found(view: ServerView, topic: str) -> list[Finding]:
    return [finding for finding in judge(view) if finding.topic == topic]


def worst(view: ServerView, topic: str) -> Severity:
    order = list(Severity)
    return max((finding.severity for finding in found(view, topic)), key=order.index)


def test_a_sound_server_has_nothing_worse_than_a_notice() -> None:
    assert {finding.severity for finding in judge(SOUND)} <= {Severity.OK, Severity.NOTICE}


@pytest.mark.parametrize("changes", [{}, {"managed": "Amazon RDS or Aurora", "superuser": True, "unlogged": 3}])
def test_every_finding_that_is_not_fine_says_what_to_do(changes: dict[str, object]) -> None:
    view = replace(configured(wal_level="minimal", data_checksums="off", full_page_writes="off"), missing=EXTRAS)
    for finding in judge(replace(view, **changes)):  # type: ignore[arg-type]
        assert finding.message
        assert finding.hint or finding.severity is Severity.OK


@pytest.mark.parametrize(
    ("view", "topic", "severity"),
    [
        (replace(SOUND, version_num=140010), "version", Severity.BROKEN),
        (replace(SOUND, version_num=190000), "version", Severity.BROKEN),
        (replace(SOUND, version_num=180006), "version", Severity.OK),
        (replace(SOUND, replication=False), "privileges", Severity.BROKEN),
        (replace(SOUND, superuser=True), "privileges", Severity.NOTICE),
        (replace(SOUND, replication=False, managed="Google Cloud SQL"), "service", Severity.BROKEN),
        (replace(SOUND, managed="Google Cloud SQL"), "service", Severity.NOTICE),
        (replace(SOUND, encrypted=False), "transport", Severity.NOTICE),
        (configured(wal_level="minimal"), "log", Severity.BROKEN),
        (configured(max_wal_senders="0"), "wal senders", Severity.BROKEN),
        (replace(SOUND, senders_used=10), "wal senders", Severity.BROKEN),
        (replace(SOUND, senders_used=9), "wal senders", Severity.OK),
        (replace(SOUND, slots_used=10), "slots", Severity.BROKEN),
        (configured(max_slot_wal_keep_size="-1"), "slots", Severity.NOTICE),
        (configured(data_checksums="off"), "checksums", Severity.WARNING),
        (configured(full_page_writes="off"), "durability", Severity.WARNING),
        (replace(SOUND, in_recovery=True), "standby", Severity.NOTICE),
        (replace(SOUND, archiver_failed_on="000000010000000000000003"), "archiving", Severity.WARNING),
        (configured(archive_mode="on", archive_command=""), "archiving", Severity.WARNING),
        (configured(archive_mode="on", archive_command="cp"), "archiving", Severity.NOTICE),
        (configured(archive_mode="on"), "archiving", Severity.NOTICE),
        (configured(config_file="/etc/postgresql/postgresql.conf"), "configuration", Severity.NOTICE),
        (configured(data_directory="/var/lib/p"), "configuration", Severity.NOTICE),
        (replace(SOUND, tablespaces=(("odd", "pg_tblspc/16400"),)), "tablespaces", Severity.BROKEN),
        (
            replace(SOUND, version_num=160000, tablespaces=(("odd", "pg_tblspc/16400"),)),
            "tablespaces",
            Severity.NOTICE,
        ),
        (replace(SOUND, tablespaces=(("fast", "/srv/fast"),)), "tablespaces", Severity.OK),
        (replace(SOUND, unlogged=2), "unlogged tables", Severity.NOTICE),
        (replace(SOUND, databases_unseen=1), "size", Severity.NOTICE),
        (replace(SOUND, collations_changed=("shop",)), "collations", Severity.WARNING),
        (configured(block_size="32768"), "layout", Severity.NOTICE),
    ],
)
def test_each_fact_is_judged(view: ServerView, topic: str, severity: Severity) -> None:
    assert worst(view, topic) is severity


@pytest.mark.parametrize("offset", [3600.0, -3600.0])
def test_a_clock_that_is_off_is_a_warning_in_both_directions(offset: float) -> None:
    (finding,) = found(replace(SOUND, clock_offset_seconds=offset), "clock")
    assert finding.severity is Severity.WARNING
    assert ("ahead" in finding.message) == (offset > 0)


def test_a_slow_connection_alone_is_no_wrong_clock() -> None:
    view = replace(SOUND, clock_offset_seconds=CLOCK_OFFSET_SECONDS_MAX + 1, clock_doubt_seconds=1.5)
    assert worst(view, "clock") is Severity.OK


def test_a_local_connection_needs_no_encryption() -> None:
    assert found(replace(SOUND, encrypted=False, local=True), "transport") == []


def test_what_the_role_may_not_see_is_said_and_not_guessed() -> None:
    settings = {name: value for name, value in SOUND.settings.items() if name not in {"config_file", "data_directory"}}
    (finding,) = found(replace(SOUND, settings=settings), "configuration")
    assert finding.severity is Severity.NOTICE
    assert "cannot be seen" in finding.message


def test_a_server_of_which_nothing_is_seen_gives_no_false_alarm() -> None:
    blind = replace(SOUND, settings={}, encrypted=None, senders_used=None, slots_used=None, size_bytes=None)
    blind = replace(blind, clock_offset_seconds=None, unlogged=None, system_identifier=None)
    assert not [finding for finding in judge(blind) if finding.severity in {Severity.WARNING, Severity.BROKEN}]


def test_reading_any_file_is_never_offered_without_its_price() -> None:
    hints = [finding.hint for finding in judge(configured(config_file="/etc/postgresql.conf"))]
    (offer,) = [hint for hint in hints if "pg_read_server_files" in hint]
    assert "ANY file" in offer


@pytest.mark.parametrize(
    ("role", "quoted"), [("holdfast", '"holdfast"'), ('odd"; DROP', '"odd""; DROP"'), ("Имя", '"Имя"')]
)
def test_role_names_are_quoted(role: str, quoted: str) -> None:
    assert create_role(role) == f"CREATE ROLE {quoted} LOGIN REPLICATION;"
    assert complete_role(role) == f"ALTER ROLE {quoted} LOGIN REPLICATION;"
    assert all(quoted in extra.statements(role) for extra in EXTRAS)


@pytest.mark.parametrize(
    ("role", "client", "encrypted", "line"),
    [
        ("holdfast", "10.0.0.7", False, "host  replication  holdfast  10.0.0.7/32  scram-sha-256"),
        ("holdfast", "10.0.0.7", True, "hostssl  replication  holdfast  10.0.0.7/32  scram-sha-256"),
        ("holdfast", "fe80::1", False, "host  replication  holdfast  fe80::1/128  scram-sha-256"),
        ("holdfast", None, False, "local  replication  holdfast  scram-sha-256"),
        ("Hold-Fast", None, False, 'local  replication  "Hold-Fast"  scram-sha-256'),
    ],
)
def test_the_access_line_fits_the_connection(role: str, client: str | None, encrypted: bool, line: str) -> None:
    assert access_line(role, client, encrypted=encrypted) == line


def test_the_usual_way_in_is_fine_and_the_other_a_notice_with_the_line() -> None:
    assert replication_finding("holdfast", None, encrypted=False, physical=True).severity is Severity.OK
    other = replication_finding("holdfast", "10.0.0.7", encrypted=False, physical=False)
    assert other.severity is Severity.NOTICE
    assert "host  replication  holdfast  10.0.0.7/32" in other.hint
