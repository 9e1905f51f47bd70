"""The release that an archive needs is told by its first bytes."""

from __future__ import annotations

import pytest

from holdfast.model.errors import IntegrityBroken
from holdfast.sources.postgres.logical.archive import major_that_reads


@pytest.mark.parametrize(
    ("version", "major"), [(b"\x01\x0e\x00", 0), (b"\x01\x0f\x00", 16), (b"\x01\x10\x00", 17), (b"\x01\x11\x00", 18)]
)
def test_an_archive_is_read_by_the_release_that_brought_its_version(version: bytes, major: int) -> None:
    assert major_that_reads(b"PGDMP" + version) == major


@pytest.mark.parametrize("head", [b"", b"PGDMP", b"-- PostgreSQL database dump"])
def test_what_is_no_archive_is_told(head: bytes) -> None:
    with pytest.raises(IntegrityBroken, match="no archive of pg_dump"):
        major_that_reads(head)
