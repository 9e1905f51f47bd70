"""The archive reader, fed in pieces of every size."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.model.errors import SourceFailed
from holdfast.sources.port import EntryType
from holdfast.sources.postgres.archive import BLOCK_BYTES, ArchiveReader, Mark, Member

Collected = list[tuple[Member, bytes]]


def make_tar(members: Sequence[tuple[str, bytes]], links: Sequence[tuple[str, str]] = ()) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            header.mode = 0o600
            header.mtime = 1_700_000_000
            tar.addfile(header, io.BytesIO(content))
        for name, target in links:
            header = tarfile.TarInfo(name)
            header.type = tarfile.SYMTYPE
            header.linkname = target
            tar.addfile(header)
    return buffer.getvalue()


def read(data: bytes, cuts: Sequence[int] = ()) -> Collected:
    reader = ArchiveReader("base.tar")
    members: Collected = []
    open_members = 0
    for start, stop in pairwise([0, *sorted(cuts), len(data)]):
        for event in reader.feed(memoryview(data)[start:stop]):
            if isinstance(event, Member):
                members.append((event, b""))
                open_members += event.type is EntryType.FILE
            elif event is Mark.MEMBER_END:
                open_members -= 1
            else:
                assert isinstance(event, memoryview)
                assert len(event)
                members[-1] = (members[-1][0], members[-1][1] + bytes(event))
            assert open_members in (0, 1)
    reader.close()
    assert open_members == 0
    return members


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..")
)
contents = st.one_of(st.binary(max_size=40), st.integers(0, 1500).map(lambda size: b"x" * size))


@given(
    members=st.lists(st.tuples(names, contents), max_size=6, unique_by=lambda member: member[0]),
    data=st.data(),
)
def test_reader_yields_the_same_members_however_the_stream_is_cut(
    members: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    stream = make_tar(members)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))

    assert [(member.path, content) for member, content in read(stream, cuts)] == members


def test_reader_survives_a_cut_at_every_boundary() -> None:
    members = [("a", b""), ("b", b"1"), ("c", b"2" * 512), ("d", b"3" * 513)]
    stream = make_tar(members, [("pg_tblspc/16384", "/srv/fast")])
    expected = read(stream)

    for cut in range(len(stream) + 1):
        assert read(stream, [cut]) == expected


def test_reader_survives_single_bytes() -> None:
    stream = make_tar([("a", b"12345"), ("b", b"")])
    assert [content for _, content in read(stream, range(len(stream)))] == [b"12345", b""]


@pytest.mark.parametrize("name", ["a b", "a\\b", "a=b", "[a]", "a#b", "a?b", 'a"b', "ї", "\udcff\udc80", "\n"])
def test_odd_names_arrive_as_they_are(name: str) -> None:
    assert read(make_tar([(f"base/1/{name}", b"1")]))[0][0].path == f"base/1/{name}"


def test_a_link_has_its_target_and_no_slash_at_its_end() -> None:
    stream = make_tar([], [("pg_tblspc/16384/", "/srv/fast disk")])
    member, content = read(stream)[0]
    assert (member.path, member.type, member.link_target, content) == (
        "pg_tblspc/16384", EntryType.LINK, "/srv/fast disk", b"",
    )  # fmt: skip


def test_sizes_above_eight_gibibytes_are_read() -> None:
    header = tarfile.TarInfo("base/1/2")
    header.size = 9 * 1024**3 + 5
    block = header.tobuf(tarfile.GNU_FORMAT)
    events = list(ArchiveReader("base.tar").feed(memoryview(block)))
    assert isinstance(events[0], Member)
    assert events[0].size_bytes == 9 * 1024**3 + 5


@given(data=st.data())
def test_an_archive_that_ends_short_is_refused(data: st.DataObject) -> None:
    stream = make_tar([("a", b"123"), ("b", b"4" * 600)])
    stream = stream[: 5 * BLOCK_BYTES + 2 * BLOCK_BYTES]  # Two headers, their content, and the two blocks of the end.
    cut = data.draw(st.integers(0, len(stream) - 1))
    with pytest.raises(SourceFailed):
        read(stream[:cut])


def test_a_flipped_bit_in_a_header_is_refused() -> None:
    stream = bytearray(make_tar([("base/1/2", b"123")]))
    stream[3] ^= 1
    with pytest.raises(SourceFailed, match="header"):
        read(bytes(stream))


def test_data_after_the_end_mark_is_refused() -> None:
    stream = make_tar([("a", b"")])
    with pytest.raises(SourceFailed, match="after its end"):
        read(stream + stream)


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "base/../../x", "a//b", "."])
def test_names_that_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(SourceFailed, match="unsafe name"):
        read(make_tar([(name, b"1")]))


@pytest.mark.parametrize(
    "kind", [tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME]
)
def test_members_that_postgresql_never_sends_are_refused(kind: bytes) -> None:
    header = tarfile.TarInfo("base/1/2")
    header.type = kind
    with pytest.raises(SourceFailed, match="unknown type"):
        list(ArchiveReader("base.tar").feed(memoryview(header.tobuf(tarfile.USTAR_FORMAT))))
