"""The digest of a table is that of its rows, whatever their order and however they are cut."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_128, xxh3_128_intdigest

from holdfast.sources.postgres.logical.digest import TableDigest
from holdfast.sources.postgres.logical.rows import Counting
from holdfast.sources.postgres.logical.witness import How

LINES = st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")), max_size=30)


def digest_of(lines: list[bytes], cuts: list[int]) -> TableDigest:
    whole = b"".join(line + b"\n" for line in lines)
    digest = TableDigest()
    places = [0, *sorted(cut % (len(whole) + 1) for cut in cuts), len(whole)]
    for start, end in itertools.pairwise(places):
        digest.feed(whole[start:end])
    return digest


@given(LINES, st.lists(st.integers(min_value=0), max_size=8), st.randoms())
def test_order_and_blocks_do_not_matter(lines: list[bytes], cuts: list[int], random: object) -> None:
    expected = digest_of(lines, [])
    shuffled = sorted(lines, key=lambda line: xxh3_128_intdigest(line, seed=id(random) & 0xFFFF))
    found = digest_of(shuffled, cuts)
    assert (found.rows, found.hexdigest(), found.is_complete) == (len(lines), expected.hexdigest(), True)


@given(LINES, LINES)
def test_different_rows_differ(one: list[bytes], other: list[bytes]) -> None:
    assert (digest_of(one, []).hexdigest() == digest_of(other, []).hexdigest()) == (sorted(one) == sorted(other))


def test_a_golden_value_as_the_format_defines_it() -> None:
    # Sum modulo 2^128 of the specification's XXH3-128 of each line: two lines, and a line without bytes.
    assert digest_of([], []).hexdigest() == "0" * 32
    assert digest_of([b""], []).hexdigest() == "99aa06d3014798d86001c324468d497f"
    total = xxh3_128_intdigest(b"1\ta") + xxh3_128_intdigest(b"2\t\\N")
    assert digest_of([b"1\ta", b"2\t\\N"], []).hexdigest() == f"{total % 2**128:032x}"


def test_a_line_without_an_end_is_not_complete() -> None:
    digest = TableDigest()
    digest.feed(b"1\ta\n2")
    assert not digest.is_complete
    assert digest.rows == 1


def test_two_equal_rows_count_twice() -> None:
    assert digest_of([b"x", b"x"], []).hexdigest() != digest_of([b"x"], []).hexdigest()


@given(st.lists(st.integers(0, 2000), max_size=60), st.lists(st.integers(min_value=0), max_size=6), st.booleans())
def test_a_sample_is_the_same_rows_in_any_blocks(keys: list[int], cuts: list[int], wide: bool) -> None:
    lines = [f"{key}\tvalue {key}".encode() if wide else str(key).encode() for key in keys]
    whole = b"".join(line + b"\n" for line in lines)
    sampled = [line for line in lines if line.split(b"\t")[0].endswith(b"00")]
    counting = Counting(How.SAMPLED)
    places = [0, *sorted(cut % (len(whole) + 1) for cut in cuts), len(whole)]
    for start, end in itertools.pairwise(places):
        counting.feed(whole[start:end])
    assert counting.is_complete
    assert counting.rows == len(lines)
    assert counting.digest == digest_of(sampled, []).hexdigest()


@pytest.mark.parametrize("how", [How.COMPARED, How.SAMPLED])
def test_a_row_far_longer_than_a_block_is_not_kept(how: How) -> None:
    counting = Counting(how)
    block = b"x" * (1 << 20)
    whole = xxh3_128(b"100\t")
    tracemalloc.start()
    try:
        counting.feed(b"100\t")
        for _ in range(64):
            counting.feed(block)
            whole.update(block)
        counting.feed(b"\n")
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 8 << 20
    assert (counting.rows, counting.digest, counting.is_complete) == (1, whole.hexdigest(), True)
