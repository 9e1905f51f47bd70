"""The small pure rules of a capture: segments, damage lists, settings, words of errors."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.model.errors import ConfigInvalid, Conflict, Denied, HoldfastError, SourceFailed, Unavailable
from holdfast.model.secrets import Secret
from holdfast.sources.port import Damage, Identity
from holdfast.sources.postgres.basebackup import BackupEnd, compose_command
from holdfast.sources.postgres.damage import UNKNOWN_PATH, assess
from holdfast.sources.postgres.details import Tablespace
from holdfast.sources.postgres.failures import Refusal, classify, clean, refused
from holdfast.sources.postgres.pages import FileFindings, PageFault
from holdfast.sources.postgres.server import parse_size, require_same_system, require_supported
from holdfast.sources.postgres.settings import Checkpoint, PostgresSettings, settings_from_dsn, split_dsn
from holdfast.sources.postgres.wal_segments import (
    SegmentKind,
    header_problem,
    needed_numbers,
    parse_segment_name,
    segment_name,
)

KIND = SegmentKind(major=15, system_identifier=7_300_000_000_000_000_001, size_bytes=16 << 20)
SIZES = st.sampled_from([1 << power for power in range(20, 31)])


def long_header(
    *,
    magic: int = 0xD110,
    flags: int = 2,
    timeline: int = 1,
    address: int = 3 << 24,
    system: int = KIND.system_identifier,
) -> bytes:
    return struct.pack("<HHIQIxxxxQII", magic, flags, timeline, address, 0, system, KIND.size_bytes, 8192)


@given(timeline=st.integers(1, 2**32 - 1), size=SIZES, data=st.data())
def test_segment_names_are_read_back(timeline: int, size: int, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, 2**64 // size - 1))
    assert parse_segment_name(segment_name(timeline, number, size), size) == (timeline, number)


def test_timelines_in_segment_names_are_hexadecimal() -> None:
    assert parse_segment_name("0000000A0000000100000002", 16 << 20) == (10, 258)


@given(start=st.integers(0, 2**40), length=st.integers(1, 2**34), size=SIZES)
def test_needed_segments_cover_every_byte_and_no_more(start: int, length: int, size: int) -> None:
    needed = needed_numbers(start, start + length, size)
    assert needed[0] * size <= start < (needed[0] + 1) * size
    assert needed[-1] * size < start + length <= (needed[-1] + 1) * size


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (long_header(), None),
        (long_header(magic=0xD113), "magic"),
        (long_header(flags=0), "magic"),
        (long_header(system=1), "system 1"),
        (long_header(address=2 << 24), "old segment"),
        (long_header(timeline=3), "timeline 3"),
        (long_header()[:39], "ends within"),
    ],
)
def test_a_segment_is_known_by_its_long_header(header: bytes, problem: str | None) -> None:
    found = header_problem(KIND, "000000020000000000000003", header)
    assert (found is None) if problem is None else (found is not None and problem in found)


def damage_of(
    findings: tuple[FileFindings, ...] = (), warnings: tuple[str, ...] = (), corruption: str | None = None
) -> tuple[tuple[Damage, ...], tuple[str, ...]]:
    spaces = (Tablespace(16384, "/srv/fast", 1),)
    return assess(findings, BackupEnd(1, 1, corruption, warnings), spaces)


def checksum_findings(path: str, count: int) -> FileFindings:
    return FileFindings(path, ((PageFault.CHECKSUM, count),), ((PageFault.CHECKSUM, (1,)),))


FAILED = 'checksum verification failed in file "./base/5/1259", block 1: calculated 3FA2 but expected 1234'
TOTAL = 'file "./base/5/1259" has a total of 9 checksum verification failures'


def test_the_larger_count_of_the_server_and_us_is_told() -> None:
    damage, _ = damage_of((checksum_findings("base/5/1259", 2),), (FAILED, TOTAL), "failure")
    assert [(item.path, item.count) for item in damage] == [("base/5/1259", 9)]


def test_what_only_the_server_found_is_told_in_its_words() -> None:
    damage, notices = damage_of(warnings=(FAILED,), corruption="failure")
    assert [(item.path, item.count) for item in damage] == [("base/5/1259", 1)]
    assert "calculated 3FA2" in damage[0].detail
    assert notices == ()


def test_a_file_of_a_tablespace_is_named_by_its_entry() -> None:
    words = 'checksum verification failed in file "/srv/fast/PG_15_202209061/5/16390", block 1: ...'
    assert damage_of(warnings=(words,))[0][0].path == "pg_tblspc/16384/PG_15_202209061/5/16390"


def test_corruption_without_a_file_is_never_lost() -> None:
    assert damage_of(corruption="checksum verification failure during base backup")[0][0].path == UNKNOWN_PATH


def test_checksums_of_a_file_the_server_read_torn_are_a_notice() -> None:
    words = (
        'could not verify checksum in file "./base/5/1259", block 4: read buffer size 4096 and page size 8192 differ'
    )
    damage, notices = damage_of((checksum_findings("base/5/1259", 1),), (words,))
    assert damage == ()
    assert "base/5/1259" in notices[0]


def test_other_warnings_are_repeated_up_to_a_bound() -> None:
    notices = damage_of(warnings=tuple(f'skipping special file "./x{number}"' for number in range(30)))[1]
    assert len(notices) == 21
    assert notices[-1] == "and 10 more warnings of the server, see its log"


def test_the_command_asks_for_everything_a_backup_needs_and_for_no_tablespace_map() -> None:
    assert compose_command(PostgresSettings(), "holdfast o'brien ї") == (
        "BASE_BACKUP (LABEL 'holdfast o''brien ?', PROGRESS, CHECKPOINT 'fast', WAL, WAIT false, MANIFEST 'yes', "
        "VERIFY_CHECKSUMS true)"
    )
    spread = PostgresSettings(checkpoint=Checkpoint.SPREAD, max_rate_kib=1024)
    assert "CHECKPOINT 'spread'" in compose_command(spread, "x")
    assert "MAX_RATE 1024" in compose_command(spread, "x")


@pytest.mark.parametrize("rate", [0, 31, 1024 * 1024 + 1])
def test_a_rate_the_server_would_refuse_is_refused_before(rate: int) -> None:
    with pytest.raises(ConfigInvalid, match="max rate"):
        PostgresSettings(max_rate_kib=rate)


@pytest.mark.parametrize(
    "dsn",
    ["postgresql://me:s3cr3t@db:5433/shop?sslmode=require", "host=db port=5433 user=me password=s3cr3t dbname=shop"],
)
def test_a_password_in_the_address_is_split_off(dsn: str) -> None:
    settings = settings_from_dsn(dsn)
    assert settings.password == Secret("s3cr3t")
    assert "s3cr3t" not in settings.dsn
    assert "s3cr3t" not in repr(settings)
    assert "host=db" in settings.dsn


def test_an_address_without_secrets_is_left_as_it_is() -> None:
    assert split_dsn("service=orders") == ("service=orders", {})


@pytest.mark.parametrize("dsn", ["host=db password='s3cr3t", "postgresql://me:s3cr3t%zz@db/shop", "s3cr3t", "s3cr3t=1"])
def test_an_unreadable_address_is_never_repeated(dsn: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        settings_from_dsn(dsn)
    assert caught.value.__context__ is None
    assert "s3cr3t" not in caught.value.message + caught.value.hint


def test_secrets_are_blotted_out_of_libpqs_words() -> None:
    assert clean(b"bad s3cr3t\n here", ("s3cr3t", "")) == "bad *** here"


@pytest.mark.parametrize(
    ("words", "refusal", "kind"),
    [
        ('FATAL:  password authentication failed for user "me"', Refusal.PASSWORD, Denied),
        ("fe_sendauth: no password supplied", Refusal.PASSWORD, Denied),
        ('FATAL:  no pg_hba.conf entry for replication connection from host "::1", user "me", no encryption',
         Refusal.HBA, Denied),
        ("FATAL:  must be superuser or replication role to start walsender", Refusal.PRIVILEGE, Denied),
        ("FATAL:  permission denied to start WAL sender", Refusal.PRIVILEGE, Denied),
        ('FATAL:  role "me" does not exist', Refusal.ROLE, Denied),
        ('FATAL:  database "shop" does not exist', Refusal.DATABASE, Denied),
        ("FATAL:  number of requested standby connections exceeds max_wal_senders (currently 1)",
         Refusal.WAL_SENDERS, Unavailable),
        ("FATAL:  sorry, too many clients already", Refusal.CONNECTIONS, Unavailable),
        ("FATAL:  the database system is starting up", Refusal.NOT_READY, Unavailable),
        ('connection to server at "127.0.0.1", port 5 failed: Connection refused', Refusal.UNREACHABLE, Unavailable),
        ("server does not support SSL, but SSL was required", Refusal.TLS, Denied),
        ("FATAL:  etwas anderes", Refusal.OTHER, Unavailable),
    ],
)  # fmt: skip
def test_a_failed_connection_is_told_with_what_to_do(words: str, refusal: Refusal, kind: type[HoldfastError]) -> None:
    assert classify(words) is refusal
    error = refused(words)
    assert isinstance(error, kind)
    assert error.hint


@pytest.mark.parametrize(
    ("text", "size"), [("16MB", 16 << 20), ("1GB", 1 << 30), ("8192", 8192), ("8kB", 8192), ("x", 0), ("", 0)]
)
def test_sizes_are_read_as_show_prints_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("version", [140009, 190000])
def test_versions_that_were_not_tried_are_refused(version: int) -> None:
    with pytest.raises(SourceFailed, match="not supported, only 15 to 18"):
        require_supported(version)


def test_another_system_is_refused_with_the_command_that_accepts_it() -> None:
    mine = Identity("postgres", (("system_identifier", "1"), ("major_version", "15")))
    upgraded = Identity("postgres", (("system_identifier", "1"), ("major_version", "16")))
    require_same_system("orders", None, mine)
    require_same_system("orders", mine, mine)
    with pytest.raises(Conflict, match="major version 15 became 16") as caught:
        require_same_system("orders", mine, upgraded)
    assert "holdfast adopt orders" in caught.value.hint
