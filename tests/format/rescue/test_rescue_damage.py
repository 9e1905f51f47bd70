"""The stand-alone reader notices every altered byte, and still brings what is whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from miniature_writer import Run, Writer


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("at", [0, 9, 10, 12, 20, 48, 70, -130, -64, -50, -40, -1])
def test_rescue_leaves_out_a_file_whose_pack_is_damaged(writer: Writer, rescue: Run, target: Path, at: int) -> None:
    good = writer.file("good", b"whole" * 50)
    bad = writer.file("bad", bytes(range(200)))
    flip(writer.folder / writer.last_pack, at)
    writer.backup([good, bad])
    done = rescue("main", "latest", target)
    assert (target / "good").read_bytes() == b"whole" * 50
    if at == -1:  # the hash alone: the chunk still proves itself
        assert done.returncode == 0
        assert b"damaged" in done.stderr
    else:
        assert done.returncode == 13
        assert not (target / "bad").exists()


def test_rescue_takes_a_chunk_from_another_pack_where_one_is_damaged(writer: Writer, rescue: Run, target: Path) -> None:
    content = bytes(range(250))
    for _ in range(2):
        item = writer.file("a", content)
    flip(writer.folder / writer.last_pack, 70)
    writer.backup([item])
    assert rescue("main", "latest", target).returncode == 0
    assert (target / "a").read_bytes() == content


def test_rescue_refuses_a_pack_under_the_name_of_another(writer: Writer, rescue: Run, target: Path) -> None:
    item = writer.file("a", b"first content")
    first = writer.folder / writer.last_pack
    writer.file("b", b"other content")
    first.write_bytes((writer.folder / writer.last_pack).read_bytes())
    writer.backup([item])
    assert rescue("main", "latest", target).returncode == 13


def test_rescue_tells_a_missing_pack(writer: Writer, rescue: Run, target: Path) -> None:
    item = writer.file("a", b"content")
    (writer.folder / writer.last_pack).unlink()
    writer.backup([item])
    done = rescue("main", "latest", target)
    assert done.returncode == 13
    assert b"in none of the packs" in done.stderr


@pytest.mark.parametrize("name", ["identity", "store"])
@pytest.mark.parametrize("at", [10, 20, 70, -70, -10])
def test_rescue_refuses_an_altered_identity_or_store(writer: Writer, rescue: Run, name: str, at: int) -> None:
    flip(writer.folder / name, at)
    assert rescue().returncode in (12, 13)


def test_rescue_refuses_identity_and_store_in_each_others_place(writer: Writer, rescue: Run) -> None:
    (writer.folder / "store").write_bytes((writer.folder / "identity").read_bytes())
    assert rescue().returncode == 13
