"""What every store must do, whatever it is made of."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from holdfast.model.errors import AlreadyExists, Denied, NotFound
from holdfast.storage.clock import measure_clock
from holdfast.storage.port import Store
from holdfast.storage.race import probe_race
from holdfast.storage.settled import SettledStore

ODD_NAMES = [
    "",
    "/",
    "/history/1",
    "history/",
    "history//1",
    ".",
    "..",
    "../outside",
    "history/../../outside",
    "history/./1",
    "UPPER",
    "with space",
    "with\x00nul",
    "new\nline",
    "ümlaut",
    "back\\slash",
    "volatile/staging/x",
    "a" * 513,
    "a/" + "b" * 201,
]


def names(store: Store, prefix: str = "", after: str = "") -> list[str]:
    return [info.name for info in store.list(prefix, after)]


def test_created_object_is_read_back_whole(store: Store) -> None:
    store.create("area/packs/aa-1", b"content")
    assert store.get("area/packs/aa-1") == b"content"


@pytest.mark.parametrize(
    "data", [b"bytes", bytearray(b"bytes"), memoryview(b"xbytesx")[1:6]], ids=lambda d: type(d).__name__
)
def test_create_takes_every_kind_of_buffer(store: Store, data: bytes | bytearray | memoryview) -> None:
    store.create("a", data)
    assert store.get("a") == b"bytes"


def test_second_create_is_refused_and_the_first_content_stays(store: Store) -> None:
    store.create("history/000000000001", b"first")
    with pytest.raises(AlreadyExists):
        store.create("history/000000000001", b"second")
    assert store.get("history/000000000001") == b"first"


def test_second_create_with_equal_bytes_is_refused_too(store: Store) -> None:
    store.create("a", b"same")
    with pytest.raises(AlreadyExists):
        store.create("a", b"same")


def test_of_many_creates_at_once_exactly_one_wins(store: Store) -> None:
    def contend(number: int) -> bool:
        try:
            store.create("history/1", str(number).encode())
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(contend, range(16)))
    assert won.count(True) == 1
    assert store.get("history/1") == str(won.index(True)).encode()


def test_race_probe_finds_the_store_sound_and_leaves_nothing(store: Store) -> None:
    result = probe_race(SettledStore(store), rounds=5)
    assert result.sound, result.problem
    assert result.winners == (1,) * 5
    assert names(store) == []


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, None, b"0123456789"),
        (0, 10, b"0123456789"),
        (3, 7, b"3456"),
        (3, None, b"3456789"),
        (9, 10, b"9"),
        (8, 20, b"89"),
        (10, 20, b""),
        (11, None, b""),
        (5, 5, b""),
        (0, 0, b""),
    ],
)
def test_get_reads_a_range_and_no_more_than_there_is(
    store: Store, start: int, end: int | None, expected: bytes
) -> None:
    store.create("a", b"0123456789")
    assert store.get("a", start, end) == expected


@pytest.mark.parametrize(("start", "end"), [(0, None), (0, 5), (5, 9)])
def test_an_empty_object_is_an_object(store: Store, start: int, end: int | None) -> None:
    store.create("empty", b"")
    assert store.get("empty", start, end) == b""
    assert store.head("empty").size_bytes == 0


@pytest.mark.parametrize(("start", "end"), [(0, None), (0, 5), (3, None), (4, 4)])
def test_get_of_an_absent_object_is_not_found(store: Store, start: int, end: int | None) -> None:
    store.create("there/a", b"x")
    for absent in ("absent", "there/b", "there", "there/a/below"):
        with pytest.raises(NotFound):
            store.get(absent, start, end)


def test_head_tells_size_and_time_and_absence(store: Store) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    store.create("a/b", b"12345")
    info = store.head("a/b")
    assert (info.name, info.size_bytes) == ("a/b", 5)
    assert info.modified_at.utcoffset() == timedelta(0)
    assert before <= info.modified_at <= datetime.now(UTC) + timedelta(seconds=2)
    for absent in ("absent", "a", "a/c"):
        with pytest.raises(NotFound):
            store.head(absent)


def test_list_is_in_the_order_of_whole_names(store: Store) -> None:
    mixed = ["a/b/c", "a/b-c", "a/b.c", "a/b0", "a/b/a/z", "a/b/a-z", "b", "a0", "a-", "z/z"]
    for name in mixed:
        store.create(name, name.encode())
    assert names(store) == sorted(mixed)
    assert [info.size_bytes for info in store.list("")] == [len(name) for name in sorted(mixed)]


def test_list_keeps_to_its_prefix(store: Store) -> None:
    for name in ("log/1", "log/2/3", "logs/4", "log-5", "lo"):
        store.create(name, b"")
    assert names(store, "log/") == ["log/1", "log/2/3"]
    assert names(store, "log/2/") == ["log/2/3"]
    assert names(store, "absent/") == []


def test_list_after_begins_behind_a_name_that_need_not_exist(store: Store) -> None:
    for name in ("h/1", "h/3", "h/4/5", "i/1"):
        store.create(name, b"")
    assert names(store, "h/", "h/1") == ["h/3", "h/4/5"]
    assert names(store, "h/", "h/2") == ["h/3", "h/4/5"]
    assert names(store, "h/", "h/4") == ["h/4/5"]
    assert names(store, "h/", "h/4/5") == []
    assert names(store, "", "h/4/5") == ["i/1"]
    assert names(store, "h/", "a") == ["h/1", "h/3", "h/4/5"]


def test_list_of_more_than_a_page_is_complete(store: Store) -> None:
    wanted = [f"packs/{number:05}" for number in range(1100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.create(name, b"x"), wanted))
    assert names(store, "packs/") == wanted
    assert names(store, "packs/", wanted[749]) == wanted[750:]


def test_list_of_an_empty_store_is_empty(store: Store) -> None:
    assert names(store) == []


@pytest.mark.parametrize("prefix", ["log", "/", "../", "LOG/", "a//"])
def test_list_of_something_that_is_no_prefix_is_refused(store: Store, prefix: str) -> None:
    with pytest.raises(Denied):
        names(store, prefix)


def test_delete_removes_and_may_be_repeated(store: Store) -> None:
    store.create("a/b", b"x")
    store.create("a/c", b"y")
    store.delete("a/b")
    store.delete("a/b")
    store.delete("never/was")
    assert names(store) == ["a/c"]


def test_deleted_name_can_be_created_again(store: Store) -> None:
    store.create("a/b", b"x")
    store.delete("a/b")
    store.create("a/b", b"y")
    assert store.get("a/b") == b"y"


def test_put_replaces_below_volatile(store: Store) -> None:
    store.put("volatile/leases/1", b"first and longer")
    store.put("volatile/leases/1", b"second")
    assert store.get("volatile/leases/1") == b"second"


def test_put_outside_volatile_is_refused(store: Store) -> None:
    for name in ("history/1", "volatilex/1", "volatile"):
        with pytest.raises(Denied):
            store.put(name, b"x")
    assert names(store) == []


def test_put_sends_a_local_file(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "segment"
    source.write_bytes(b"segment of an index")
    store.put("volatile/index/1", source)
    assert store.get("volatile/index/1") == b"segment of an index"
    assert source.exists()


def test_put_sends_a_large_file_in_parts(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "segment"
    content = os.urandom(1024 * 1024) * 70
    source.write_bytes(content)
    store.put("volatile/index/1", source)
    assert store.head("volatile/index/1").size_bytes == len(content)
    assert store.get("volatile/index/1") == content


def test_an_object_of_33_mib_is_created_at_once(store: Store) -> None:
    content = os.urandom(1024 * 1024) * 33
    store.create("packs/large", content)
    assert store.get("packs/large") == content
    assert (
        store.get("packs/large", 32 * 1024 * 1024 - 5, 32 * 1024 * 1024 + 5)
        == content[-1024 * 1024 - 5 : -1024 * 1024 + 5]
    )
    with pytest.raises(AlreadyExists):
        store.create("packs/large", b"other")


@pytest.mark.parametrize("name", ODD_NAMES, ids=repr)
def test_odd_names_are_refused_everywhere(store: Store, name: str) -> None:
    for call in (
        lambda: store.create(name, b"x"),
        lambda: store.put(name, b"x"),
        lambda: store.get(name),
        lambda: store.head(name),
        lambda: store.delete(name),
        lambda: store.local_path(name),
    ):
        with pytest.raises(Denied):
            call()


def test_local_path_is_the_file_or_none(store: Store) -> None:
    store.create("a/b", b"in place")
    path = store.local_path("a/b")
    assert path is None or path.read_bytes() == b"in place"


def test_store_clock_is_measured_within_its_uncertainty(store: Store) -> None:
    offset = measure_clock(store)
    assert abs(offset.offset_seconds) <= offset.uncertainty_seconds + 0.1
    assert names(store) == []


def test_close_may_be_repeated(store: Store) -> None:
    store.close()
    store.close()


def test_address_names_the_store_without_secrets(store: Store) -> None:
    assert "://" in store.url
    assert "testing-secret" not in store.url
