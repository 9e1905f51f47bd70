"""The manifest reader against manifests as the server writes them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.model.errors import SourceFailed
from holdfast.sources.postgres.manifest import ManifestFacts, ManifestReader, WalRange

RANGE = '{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }'
RECEIVED = {"backup_label": 226, "base/1/1259": 8192, "base/5/\udcff": 3}
FILES = (
    '{ "Path": "backup_label", "Size": 226, "Last-Modified": "2026-01-01 00:00:00 GMT", '
    '"Checksum-Algorithm": "CRC32C", "Checksum": "0123abcd" }',
    '{ "Path": "base/1/1259", "Size": 8192, "Last-Modified": "2026-01-01 00:00:00 GMT" }',
    '{ "Encoded-Path": "626173652f352fff", "Size": 3, "Last-Modified": "2026-01-01 00:00:00 GMT" }',
)


def compose(files: tuple[str, ...] = FILES, *, version: int = 1, checksum: str | None = None) -> bytes:
    system = '"System-Identifier": 7300000000000000001,\n' if version == 2 else ""
    listed = ",\n".join(files) if files else ""
    text = (
        f'{{ "PostgreSQL-Backup-Manifest-Version": {version},\n{system}"Files": [\n{listed}\n],\n'
        f'"WAL-Ranges": [\n{RANGE}\n],\n'
    )
    found = checksum or hashlib.sha256(text.encode()).hexdigest()
    return f'{text}"Manifest-Checksum": "{found}"}}\n'.encode()


def read(manifest: bytes, received: Mapping[str, int] = RECEIVED, piece_bytes: int = 7) -> ManifestFacts:
    reader = ManifestReader(dict(received))
    for start in range(0, len(manifest), piece_bytes):
        reader.feed(memoryview(manifest)[start : start + piece_bytes])
    return reader.finish()


@given(piece_bytes=st.integers(1, 900))
def test_a_manifest_agrees_however_it_is_cut(piece_bytes: int) -> None:
    facts = read(compose(), piece_bytes=piece_bytes)
    assert facts == ManifestFacts(3, (WalRange(1, 0x2000028, 0x2000100),), None)


def test_version_2_tells_the_system_identifier() -> None:
    assert read(compose(version=2)).system_identifier == "7300000000000000001"


def test_a_file_that_vanished_from_the_stream_is_named() -> None:
    with pytest.raises(SourceFailed, match=r"base/1/1259.*was not received"):
        read(compose(), {name: size for name, size in RECEIVED.items() if name != "base/1/1259"})


def test_a_file_that_the_manifest_lost_is_named() -> None:
    with pytest.raises(SourceFailed, match=r"base/1/1259.*not in the manifest"):
        read(compose((FILES[0], FILES[2])))


def test_a_file_of_another_size_is_named_with_both_sizes() -> None:
    with pytest.raises(SourceFailed, match="has 8191 bytes, the manifest says 8192"):
        read(compose(), {**RECEIVED, "base/1/1259": 8191})


def test_a_file_listed_twice_is_refused() -> None:
    with pytest.raises(SourceFailed, match="listed twice"):
        read(compose((*FILES, FILES[1])))


def test_a_changed_byte_breaks_the_manifests_own_checksum() -> None:
    manifest = compose().replace(b"0123abcd", b"0123abce")
    with pytest.raises(SourceFailed, match="own checksum"):
        read(manifest)


@given(data=st.data())
def test_a_manifest_cut_short_is_refused(data: st.DataObject) -> None:
    manifest = compose()
    with pytest.raises(SourceFailed):
        read(manifest[: data.draw(st.integers(0, len(manifest) - 1))])


@pytest.mark.parametrize(
    "manifest",
    [
        compose(version=3),
        compose(("{}",)),
        compose(('{ "Path": "x" }',)),
        compose(('{ "Path": "x", "Size": "1" }',)),
        compose(('{ "Encoded-Path": "zz", "Size": 1 }',)),
        compose() + b"more\n",
        b"x" * 100_000,
    ],
)
def test_what_is_no_manifest_is_refused(manifest: bytes) -> None:
    with pytest.raises(SourceFailed):
        read(manifest, piece_bytes=4096)


def test_many_differences_are_counted_not_listed() -> None:
    with pytest.raises(SourceFailed, match="and 95 more"):
        read(compose(()), {f"base/1/{number}": 1 for number in range(100)})
