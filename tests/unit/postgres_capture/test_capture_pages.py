"""What the page scanner finds, and what it must not."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.postgres_capture.sample_pages import PAGE_BYTES, checksum, make_page

from holdfast.sources.postgres.checksums import TurnedPages
from holdfast.sources.postgres.pages import (
    BATCH_PAGES,
    EXAMPLES_MAX,
    LATEST_MAX,
    FileFindings,
    PageFault,
    PageScanner,
    relation_segment,
)

START, STOP = 0x5000, 0x9000
PATH = "base/5/16384"


def scan(content: bytes, *, verify: bool = True, segment: int = 0, piece_pages: int = 16) -> tuple[FileFindings, ...]:
    scanner = PageScanner(START, verify_checksums=verify, blocks_per_segment=131072)
    inspect = scanner.watch(PATH, segment, len(content))
    step = piece_pages * PAGE_BYTES
    for offset in range(0, len(content), step):
        inspect(memoryview(content)[offset : offset + step], offset)
    return scanner.finish(STOP)


def faults(content: bytes, *, verify: bool = True, segment: int = 0) -> dict[PageFault, tuple[int, ...]]:
    found = scan(content, verify=verify, segment=segment)
    return dict(found[0].examples) if found else {}


@given(page=st.binary(min_size=64, max_size=64), block=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_checksums_equal_a_plain_reading_of_the_algorithm(page: bytes, block: int) -> None:
    content = page * (PAGE_BYTES // len(page))
    stored = content[:8] + checksum(content, block).to_bytes(2, "little") + content[10:]
    turned = TurnedPages(2)
    turned.put(0, memoryview(stored + content[:8] + b"\0\0" + content[10:]))

    wrong = turned.wrong_checksums(np.array([block, block], dtype=np.uint32))

    assert wrong.tolist() == [False, True]


def test_sound_pages_are_passed_over() -> None:
    assert scan(b"".join(make_page(block) for block in range(20))) == ()


def test_a_zero_page_is_sound() -> None:
    assert scan(bytes(PAGE_BYTES * 3)) == ()


def test_a_wrong_checksum_is_found_with_its_block() -> None:
    pages = [make_page(block, right=block != 7) for block in range(20)]
    assert faults(b"".join(pages)) == {PageFault.CHECKSUM: (7,)}


def test_a_page_at_another_place_than_its_own_is_found() -> None:
    pages = [make_page(block) for block in range(4)]
    assert faults(pages[0] + pages[2] + pages[1] + pages[3]) == {PageFault.CHECKSUM: (1, 2)}


def test_blocks_of_a_later_segment_are_counted_through_the_relation() -> None:
    content = b"".join(make_page(131072 * 2 + block) for block in range(3))
    assert faults(content, segment=2) == {}
    assert faults(content, segment=1) == {PageFault.CHECKSUM: (0, 1, 2)}


def test_a_page_changed_since_the_start_may_be_torn_without_being_damage() -> None:
    assert scan(make_page(0, lsn=START, right=False) + make_page(1, lsn=STOP, right=False)) == ()


def test_a_page_changed_after_the_stop_is_damage() -> None:
    content = make_page(0) + make_page(1, lsn=STOP + 1) + make_page(2, lsn=0xFFFFFFFF_FFFFFFFF)
    assert faults(content) == {PageFault.FUTURE: (1, 2)}
    assert faults(content, verify=False) == {PageFault.FUTURE: (1, 2)}


@pytest.mark.parametrize("verify", [True, False])
def test_a_page_marked_unused_that_holds_bytes_is_damage(verify: bool) -> None:
    content = make_page(0) + make_page(1, upper=0) + bytes(PAGE_BYTES - 1) + b"\1"
    assert faults(content, verify=verify) == {PageFault.UNUSED: (1, 2)}


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    "page",
    [
        make_page(0, lower=5000),
        make_page(0, special=4000),
        make_page(0, special=8200),
        make_page(0, special=8191),
        make_page(0, flags=0x0008),
    ],
)
def test_a_header_that_postgresql_would_refuse_is_damage_with_or_without_checksums(page: bytes, verify: bool) -> None:
    assert faults(page, verify=verify) == {PageFault.HEADER: (0,)}


def test_without_checksums_on_the_server_none_is_computed() -> None:
    assert scan(make_page(0, right=False), verify=False) == ()


def test_a_torn_end_of_a_file_is_left_to_the_log() -> None:
    content = b"".join(make_page(block, right=False) for block in range(3)) + make_page(3)[:4096]
    assert scan(content) == ()
    whole_reads = b"".join(make_page(block, right=block != 2) for block in range(4))
    assert faults(whole_reads + content) == {PageFault.CHECKSUM: (2,)}


def test_every_damaged_page_is_counted_but_few_are_named() -> None:
    found = scan(b"".join(make_page(block, right=False) for block in range(40)))[0]
    assert found.total == 40
    assert found.examples == ((PageFault.CHECKSUM, tuple(range(EXAMPLES_MAX))),)
    assert found.detail() == "40 pages wrong checksum (block 0, 1, 2, 3, 4, 5, 6, 7, ...)"


def test_pages_from_the_future_are_kept_up_to_a_bound() -> None:
    content = make_page(0, lsn=STOP + 5) * (LATEST_MAX + 10)
    found = scan(content)[0]
    assert found.counts == ((PageFault.FUTURE, LATEST_MAX),)
    assert found.detail().startswith(f"at least {LATEST_MAX} pages changed after")


def test_pieces_of_many_files_in_any_order_on_many_threads_give_the_same_findings() -> None:
    chooser = random.Random(7)
    sizes = [chooser.choice([1, 3, 16, 17, 40, 700]) for _ in range(40)]
    sound = [make_page(block) for block in range(max(sizes))]
    broken = {(5, 0), (9, 2), (30, 0)}
    scanner = PageScanner(START, verify_checksums=True, blocks_per_segment=131072)
    work = []
    for number, size in enumerate(sizes):
        pages = [make_page(b, right=False) if (number, b) in broken else sound[b] for b in range(size)]
        inspect = scanner.watch(f"base/5/{number}", 0, size * PAGE_BYTES)
        for first in range(0, size, 16):
            work.append((inspect, b"".join(pages[first : first + 16]), first * PAGE_BYTES))
    chooser.shuffle(work)

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(inspect, memoryview(piece), offset) for inspect, piece, offset in work]:
            future.result()

    found = {file.path: file.examples for file in scanner.finish(STOP)}
    expected = {
        f"base/5/{number}": ((PageFault.CHECKSUM, (block,)),) for number, block in broken if block < sizes[number]
    }
    assert found == expected


def test_one_piece_larger_than_a_batch_is_looked_at_throughout() -> None:
    page = make_page(0, lsn=STOP + 1)
    content = bytes(PAGE_BYTES * (BATCH_PAGES + 3)) + page
    assert faults(content) == {PageFault.FUTURE: (BATCH_PAGES + 3,)}


@pytest.mark.parametrize(
    ("path", "segment"),
    [
        ("base/5/16384", 0),
        ("base/5/16384.1", 1),
        ("base/5/16384_fsm", 0),
        ("base/5/16384_vm.12", 12),
        ("base/5/16384_init", 0),
        ("global/1262", 0),
        ("pg_tblspc/16384/PG_15_202209061/5/16390.3", 3),
        ("global/pg_control", None),
        ("base/5/PG_VERSION", None),
        ("base/5/pg_filenode.map", None),
        ("base/5/16384.0", None),
        ("base/5/t3_16384", None),
        ("pg_xact/0000", None),
        ("16384", None),
        ("base/5/16384\n", None),
    ],
)
def test_relation_files_are_told_from_others_by_their_path(path: str, segment: int | None) -> None:
    assert relation_segment(path) == segment
