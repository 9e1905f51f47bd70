"""Histories, generations, names and messages of a followed log, as pure rules."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta

import pytest

from holdfast.model.errors import Conflict, SourceFailed
from holdfast.model.logs import Generation, Stretch
from holdfast.sources.postgres.follow.hosts import hosts_of
from holdfast.sources.postgres.follow.messages import Keepalive, LogData, compose_status, parse_message
from holdfast.sources.postgres.follow.slots import slot_name
from holdfast.sources.postgres.follow.standby_names import parse_standby_names
from holdfast.sources.postgres.follow.timelines import (
    ancestor,
    generation_of,
    history_of,
    is_ancestor,
    parent_of,
    read_history,
    refuse_taken,
)
from holdfast.sources.postgres.settings import parse_dsn, settings_from_dsn
from holdfast.sources.postgres.wal_files import WalFileKind, check_segment, parse_wal_name

SEGMENT = 16 << 20
SECOND = b"1\t0/3000148\tno recovery target specified\n"
THIRD = SECOND + b"\n2\t0/5000060\tno recovery target specified\n"


def test_a_history_tells_where_each_timeline_was_left() -> None:
    history = read_history("7", 3, THIRD)
    assert [(one.timeline, one.position) for one in history.switches] == [(1, 0x3000148), (2, 0x5000060)]
    assert history.switch_from(2) == 0x5000060
    assert history.switch_from(3) is None
    assert (history.next_after(1), history.next_after(2)) == (2, 3)


def test_a_parents_history_is_what_its_child_begins_with_byte_for_byte() -> None:
    third = read_history("7", 3, THIRD)
    second = parent_of(third)
    assert second == read_history("7", 2, SECOND)
    first = parent_of(second) if second else None
    assert first == read_history("7", 1, b"")
    assert ancestor(third, 1) == first
    assert generation_of(third, SEGMENT).parent == generation_of(read_history("7", 2, SECOND), SEGMENT).id


def test_a_generation_begins_where_the_segment_of_its_fork_does() -> None:
    generation = generation_of(read_history("7", 2, SECOND), SEGMENT)
    assert (generation.begins, generation.fork) == (0x3000000, 0x3000148)
    assert history_of(generation) == read_history("7", 2, SECOND)
    first = generation_of(read_history("7", 1, b""), SEGMENT)
    assert (first.begins, first.fork, first.parent) == (0, None, None)


def test_ids_of_generations_are_for_ever() -> None:
    assert generation_of(read_history("7", 1, b""), SEGMENT).id == "762adf74f85865d7eba5bcfde2053edc"
    assert generation_of(read_history("7", 2, SECOND), SEGMENT).id == "c8c9f61ccf96d73314ee7ff983edaec1"


def test_ancestry_is_told_by_the_switches_and_the_system() -> None:
    third = read_history("7", 3, THIRD)
    assert is_ancestor(read_history("7", 2, SECOND), third)
    assert is_ancestor(third, third)
    assert not is_ancestor(read_history("7", 2, b"1\t0/2000000\tbefore\n"), third)
    assert not is_ancestor(read_history("8", 1, b""), third)
    assert not is_ancestor(third, read_history("7", 2, SECOND))


def test_w3_a_timeline_number_belongs_to_the_history_stored_first() -> None:
    stored = [generation_of(read_history("7", 2, SECOND), SEGMENT)]
    refuse_taken(read_history("7", 2, SECOND), stored)
    refuse_taken(read_history("8", 2, b"1\t0/9000000\tother system\n"), stored)
    with pytest.raises(Conflict):
        refuse_taken(read_history("7", 2, b"1\t0/4000000\tother\n"), stored)


@pytest.mark.parametrize(
    "content", [b"what\n", b"2\t0/1\tx\n1\t0/2\ty\n", b"1\t0/2\tx\n2\t0/1\ty\n", b"3\t0/1\tself\n"]
)
def test_a_history_that_makes_no_sense_is_refused(content: bytes) -> None:
    with pytest.raises(SourceFailed):
        read_history("7", 3, content)


def test_comments_and_empty_lines_in_a_history_say_nothing() -> None:
    assert read_history("7", 2, b"# made by hand\n\n" + SECOND).switches == read_history("7", 2, SECOND).switches


def test_generations_of_other_kinds_are_no_timelines() -> None:
    assert history_of(Generation("0" * 32, 0, details={"kind": "redis"})) is None


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("", None),
        ("*", True),
        ("holdfast", True),
        ("HoldFast", True),
        ('"holdfast"', True),
        ("replica", False),
        ("FIRST 1 (replica, holdfast)", True),
        ("ANY 2 (a, b, *)", True),
        ("2 (a, b)", False),
        ('FIRST 1 ("a ""b", c)', False),
        ("any", False),
        ("first", False),
    ],
)
def test_the_server_waits_for_whom_the_setting_names(setting: str, named: bool | None) -> None:
    names = parse_standby_names(setting)
    assert (None if names is None else names.names_one("holdfast")) is named


def test_messages_are_read_as_the_protocol_writes_them() -> None:
    data = parse_message(memoryview(struct.pack(">cQQq", b"w", 0x100, 0x900, 1_000_000) + b"abc"))
    assert isinstance(data, LogData)
    assert (data.start, data.server_end, bytes(data.data)) == (0x100, 0x900, b"abc")
    assert data.sent_at == datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=1)
    alive = parse_message(memoryview(struct.pack(">cQqB", b"k", 0x900, 0, 1)))
    assert alive == Keepalive(0x900, datetime(2000, 1, 1, tzinfo=UTC), True)
    for other in (b"", b"w", b"k123", b"x" * 30):
        with pytest.raises(SourceFailed):
            parse_message(memoryview(other))


def test_w14_a_status_claims_nothing_beyond_what_is_durable() -> None:
    at = datetime(2000, 1, 1, 0, 0, 2, tzinfo=UTC)
    message = struct.unpack(">cQQQqB", compose_status(0x700, at, wants_reply=True))
    assert message == (b"r", 0x700, 0x700, 0x700, 2_000_000, 1)


def test_names_of_slots_are_allowed_readable_and_told_apart() -> None:
    assert slot_name("shop", "orders") == "holdfast_shop_orders"
    assert slot_name("Shop", "orders") != slot_name("shop", "orders")
    assert len(slot_name("a" * 100, "b")) <= 63
    assert slot_name("a" * 100, "b") != slot_name("a" * 100, "c")


def test_hosts_of_an_address_are_looked_at_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGHOST", raising=False)
    settings = settings_from_dsn("host=a,b port=1,2 user=u target_session_attrs=any")
    found = [parse_dsn(one.dsn) for one in hosts_of(settings)]
    assert [(one["host"], one["port"]) for one in found] == [("a", "1"), ("b", "2")]
    same_port = [parse_dsn(one.dsn) for one in hosts_of(settings_from_dsn("host=a,b port=1 user=u"))]
    assert [(one["host"], one["port"]) for one in same_port] == [("a", "1"), ("b", "1")]
    alone = settings_from_dsn("host=a user=u")
    assert hosts_of(alone) == (alone,)


def test_w12_numbers_in_names_are_hexadecimal_and_segments_may_have_any_size() -> None:
    name = parse_wal_name("0000000A00000001000000FF")
    assert name is not None
    assert (name.kind, name.timeline) == (WalFileKind.SEGMENT, 10)
    assert name.stretch(SEGMENT) == Stretch(0x1FF000000, 0x200000000)
    small = parse_wal_name("000000100000000200000FFF")
    assert small is not None
    assert small.timeline == 16
    assert small.stretch(1 << 20) == Stretch(0x2FFF00000, 0x300000000)
    assert small.stretch(SEGMENT) is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("0000000B.history", WalFileKind.HISTORY),
        ("000000010000000000000003.partial", WalFileKind.PARTIAL),
        ("000000010000000000000003.00000028.backup", WalFileKind.BACKUP),
        ("000000010000000000000003", WalFileKind.SEGMENT),
    ],
)
def test_w7_every_kind_of_file_is_known_by_its_name(text: str, kind: WalFileKind) -> None:
    name = parse_wal_name(text)
    assert name is not None
    assert name.kind is kind


@pytest.mark.parametrize(
    "text", ["", "00000001.histor", "00000000.history", "00000001000000000000000g", "x", "RECOVERYXLOG"]
)
def test_other_names_are_none_of_the_logs(text: str) -> None:
    assert parse_wal_name(text) is None


def header(magic: int = 0xD118, timeline: int = 1, address: int = 3 * SEGMENT, size: int = SEGMENT) -> bytes:
    return struct.pack("<HHIQIxxxxQII", magic, 2, timeline, address, 0, 7, size, 8192)


def test_w1_a_segment_is_accepted_only_whole_and_under_its_own_name() -> None:
    name = parse_wal_name("000000010000000000000003")
    assert name is not None
    facts = check_segment(name, header(), SEGMENT)
    assert (facts.system_identifier, facts.major, facts.stretch) == ("7", 18, Stretch(3 * SEGMENT, 4 * SEGMENT))
    for content, size in (
        (header(), SEGMENT // 2),
        (header(magic=0xD0FF), SEGMENT),
        (header(address=4 * SEGMENT), SEGMENT),
        (header(timeline=2), SEGMENT),
        (header(size=12345), SEGMENT),
        (header()[:20], SEGMENT),
        (bytes(40), SEGMENT),
    ):
        with pytest.raises(SourceFailed):
            check_segment(name, content, size)
