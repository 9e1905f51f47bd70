"""Addresses: one spelling for each place, and no password that slips through."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import Error
from psycopg.conninfo import conninfo_to_dict

from holdfast.config.addresses import (
    checked_address,
    dsn_parameters,
    folder_of,
    normalized_repository_url,
    split_address,
)
from holdfast.model.errors import ConfigInvalid
from holdfast.model.secrets import Secret


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("/srv/backups/", "file:///srv/backups"),
        ("/srv/my backups", "file:///srv/my%20backups"),
        ("file:///srv//backups", "file:///srv/backups"),
        ("file://localhost/srv", "file:///srv"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("gs://bucket/a", "gs://bucket/a"),
        ("az://container/a", "az://container/a"),
    ],
)
def test_a_repository_has_one_spelling(text: str, url: str) -> None:
    assert normalized_repository_url(text) == url
    assert normalized_repository_url(url) == url


@pytest.mark.parametrize(
    "text", ["", "/", "x", "file:///", "s3://", "s3://k:s@b", "s3://b#x", "http://b", "s3://b c", "s3://[x"]
)
def test_what_is_no_repository_is_refused(text: str) -> None:
    with pytest.raises(ConfigInvalid):
        normalized_repository_url(text)


def test_a_folder_is_found_again_in_its_address() -> None:
    assert folder_of(normalized_repository_url("/srv/my backups")) == Path("/srv/my backups")
    assert folder_of("s3://bucket") is None


@pytest.mark.parametrize(
    ("url", "kind", "address", "password"),
    [
        (
            "postgresql://me:pw@db:5432/shop?sslmode=require",
            "postgres",
            "postgresql://me@db:5432/shop?sslmode=require",
            "pw",
        ),
        ("postgres://me@db/shop", "postgres", "postgres://me@db/shop", None),
        ("postgresql:///shop?host=/run/pg", "postgres", "postgresql:///shop?host=/run/pg", None),
        ("postgresql://one:1,two:2/shop", "postgres", "postgresql://one:1,two:2/shop", None),
        ("postgresql://db/?a=1&password=p%40w&b=%2F", "postgres", "postgresql://db/?a=1&b=%2F", "p@w"),
        ("redis://:pw@cache:6379/0", "redis", "redis://cache:6379/0", "pw"),
        ("rediss://me:p%3Aw@cache", "redis", "rediss://me@cache", "p:w"),
        ("https://me:pw@search:9200", "search", "https://me@search:9200", "pw"),
        ("s3://bucket/prefix/", "bucket", "s3://bucket/prefix", None),
    ],
)
def test_a_password_is_split_off_an_address(url: str, kind: str, address: str, password: str | None) -> None:
    parts = split_address(url)
    assert (parts.kind, parts.address) == (kind, address)
    assert parts.password == (None if password is None else Secret(password))
    assert checked_address(kind, address) == address


@pytest.mark.parametrize("url", ["mysql://db", "redis:///x", "http://", "s3://k:s@b", "redis://host:port", "nothing"])
def test_what_is_no_source_is_refused(url: str) -> None:
    with pytest.raises(ConfigInvalid):
        split_address(url)


def test_libpq_addresses_are_read_as_libpq_reads_them() -> None:
    for dsn in (
        "",
        "  ",
        "host=a",
        " host = 'a b'  user=me",
        r"host='it\'s' user=a\ b",
        "host= user=x",
        "host=''",
        "host='a'user=b",
        "options='-c x=y'",
    ):
        assert dsn_parameters(dsn) == conninfo_to_dict(dsn), dsn


_PIECES = st.sampled_from(["host", "password", "user", "=", " ", "'", "\\", "a", "x y", "\n", "''", "\t"])


@settings(deadline=None)
@given(st.lists(_PIECES, max_size=12).map("".join))
def test_what_libpq_finds_in_an_address_is_found_here_too(dsn: str) -> None:
    try:
        by_libpq = conninfo_to_dict(dsn)
    except Error:
        return
    try:
        assert dsn_parameters(dsn) == by_libpq
    except ConfigInvalid:
        # Stricter is fine: an address that only libpq can read is refused, never let through unseen.
        assert "\\" in dsn
