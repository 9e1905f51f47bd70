"""The stand-alone reader restores what a second, independent writer of the format wrote."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from miniature_writer import Run, Writer

CONTENT = bytes(range(256)) * 40 + os.urandom(500)


def test_rescue_restores_files_folders_links_modes_and_times(writer: Writer, rescue: Run, target: Path) -> None:
    items = [
        {"path": "sub", "type": "folder", "mode": 0o750},
        writer.file("sub/none"),
        writer.file("sub/one", b"x" * 100, mtime=1_700_000_000, layout="pages"),
        writer.file("sub/leaf", CONTENT, depth=1, layout="content"),
        writer.file("unlisted/root", CONTENT, depth=2),
        {"path": "link", "type": "link", "link": "/nowhere/at all"},
        writer.file("@settings/note", b"beside"),
        {"path_hex": b"caf\xe9".hex(), "type": "file", "ref": writer.reference(b"bytes")},
    ]
    backup = writer.backup(items, tree_depth=2)
    done = rescue("shop/main", backup, target)
    assert done.returncode == 0, done.stderr
    assert (target / "sub/none").read_bytes() == b""
    assert (target / "sub/leaf").read_bytes() == CONTENT == (target / "unlisted/root").read_bytes()
    assert (target / "link").readlink() == Path("/nowhere/at all")
    assert (target.parent / "target.beside/@settings/note").read_bytes() == b"beside"
    assert (target / os.fsdecode(b"caf\xe9")).read_bytes() == b"bytes"
    facts = (target / "sub/one").stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_mtime) == (0o640, 1_700_000_000)
    assert stat.S_IMODE((target / "sub").stat().st_mode) == 0o750
    assert not (target / "@settings").exists()


def test_rescue_lists_sources_backups_and_entries_and_prints_one_file(writer: Writer, rescue: Run) -> None:
    first = writer.backup([writer.file("a", b"old")])
    second = writer.backup([writer.file("a", b"new")], tier="incremental")
    assert rescue().stdout == b"shop/main\n"
    lines = rescue("main").stdout.decode().splitlines()
    assert [line.split("\t")[0] for line in lines] == [first, second]
    assert lines[1].split("\t")[2:] == ["incremental", "3", "0/1 to 0/2"]
    assert rescue("main", "latest").stdout == b"file\t3\ta\n"
    assert rescue("main", "latest", "--cat", "a").stdout == b"new"
    assert rescue("main", first[:12], "--cat", "a").stdout == b"old"
    assert rescue("main", "latest", "--cat", "b").returncode == 1


def test_rescue_finds_a_source_whose_name_is_stored_nowhere(writer: Writer, rescue: Run) -> None:
    writer.backup([writer.file("a", b"x")])
    for path in writer.folder.glob("catalog/*/*"):
        path.write_bytes(b"rot")
    assert rescue("main").returncode == 1
    assert rescue("shop/main", "latest", "--cat", "a").stdout == b"x"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("nothing", "latest"), 1), (("main", "ffff"), 1), (("main", ""), 2), (("main", "latest", "a", "b"), 2)],
)
def test_rescue_refuses_what_it_cannot_find_or_understand(
    writer: Writer, rescue: Run, arguments: tuple[str, ...], code: int
) -> None:
    for content in (b"1", b"2"):
        writer.backup([writer.file("a", content)])
    assert rescue(*arguments).returncode == code


def test_rescue_refuses_a_target_that_is_not_empty(writer: Writer, rescue: Run, target: Path) -> None:
    writer.backup([writer.file("a", b"x")])
    target.mkdir()
    assert rescue("main", "latest", target).returncode == 0
    assert rescue("main", "latest", target).returncode == 2


def test_rescue_says_that_there_is_no_repository(tmp_path: Path, rescue: Run) -> None:
    (tmp_path / "repository").mkdir()
    done = rescue()
    assert done.returncode == 10
    assert b"hint:" in done.stderr


@pytest.mark.parametrize("path", ["../out", "/out", "a//out", "a/./out", "a/..", "", "a\0b", "x\ud800"])
def test_rescue_refuses_a_path_that_could_leave_the_target(
    writer: Writer, rescue: Run, target: Path, path: str
) -> None:
    writer.backup([{"path": path, "type": "file", "ref": writer.reference(b"x")}])
    before = sorted(target.parent.rglob("*"))
    done = rescue("main", "latest", target)
    assert done.returncode == 13, done.stderr
    assert sorted(target.parent.rglob("*")) == before


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_rescue_never_writes_through_a_link(
    writer: Writer, rescue: Run, target: Path, tmp_path: Path, kind: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for link, below in (("door", "door/x"), ("pg_tblspc/1", "pg_tblspc/1/x")):
        content = {"ref": writer.reference(b"x")} if kind == "file" else {}
        writer.backup([{"path": link, "type": "link", "link": str(outside)}, {"path": below, "type": kind} | content])
        done = rescue("main", "latest", target / link.replace("/", "-"))
        assert done.returncode in (1, 13)
        assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda items: [*items, items[0]],
        lambda items: [*items, items[0] | {"path": "a/b"}],
        lambda items: [items[0] | {"type": "socket"}],
        lambda items: [items[0] | {"layout": "sparse"}],
        lambda items: [items[0] | {"ref": items[0]["ref"] | {"size": 2}}],
        lambda items: [items[0] | {"ref": items[0]["ref"] | {"depth": 1}}],
        lambda items: [items[0] | {"ref": {"size": 3}}],
    ],
)
def test_rescue_refuses_a_tree_that_does_not_add_up(writer: Writer, rescue: Run, target: Path, change) -> None:
    writer.backup(change([writer.file("a", b"123")]))
    assert rescue("main", "latest", target).returncode == 13


def test_rescue_refuses_a_backup_that_needs_a_newer_reader(writer: Writer, rescue: Run, target: Path) -> None:
    writer.backup([writer.file("a", b"123")], needs=["magic"])
    assert rescue("main", "latest", target).returncode == 13


def test_rescue_refuses_sizes_other_than_recorded(writer: Writer, rescue: Run, target: Path) -> None:
    for other in ({"size_bytes": 4}, {"entries": 2}):
        writer.backup([writer.file("a", b"123")], **other)
        assert rescue("main", "latest", target).returncode == 13
