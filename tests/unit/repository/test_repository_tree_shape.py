"""Trees that would put one thing in the place of another are refused."""

from __future__ import annotations

import pytest

from holdfast.model.errors import IntegrityBroken
from holdfast.repository.format.lists import ContentRef
from holdfast.repository.format.tree import TreeEntry, check_tree


def file(path: str) -> TreeEntry:
    return TreeEntry(path, "file", ref=ContentRef(0))


def test_a_path_that_occurs_twice_is_refused() -> None:
    with pytest.raises(IntegrityBroken, match="occurs twice"):
        check_tree("a tree", [file("a/b"), TreeEntry("a/b", "folder")])


def test_a_path_below_a_file_is_refused() -> None:
    with pytest.raises(IntegrityBroken, match="below a file"):
        check_tree("a tree", [file("a/b"), file("a")])


def test_files_below_a_link_and_below_folders_that_are_not_listed_are_taken() -> None:
    check_tree("a tree", [TreeEntry("pg_tblspc/1", "link", link="/far"), file("pg_tblspc/1/x"), file("base/1/2")])
