"""Reads a backup manifest as it arrives and compares it with what was received.

Source: PostgreSQL's documentation, "Backup Manifest Format", versions 1 and 2; the server writes one file to a line.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from holdfast.model.errors import SourceFailed
from holdfast.sources.postgres.details import parse_lsn

LINE_BYTES_MAX = 64 * 1024
"""A path has at most 1024 bytes; a longer line is no manifest."""
NAMED_MAX = 5
"""Files named in an error; the others are counted."""
VERSIONS = ("1", "2")

_HINT = "Run the backup again; if it repeats, look for a proxy or a failing network between us and the server."
_VERSION = re.compile(rb'\{ "PostgreSQL-Backup-Manifest-Version": (\d+),')
_SYSTEM = re.compile(rb'"System-Identifier": (\d+),')
_CHECKSUM = re.compile(rb'"Manifest-Checksum": "([0-9a-fA-F]{64})"\}')
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+")
_STRUCTURE = (b'"Files": [', b'"Files": [],', b'"WAL-Ranges": [', b'"WAL-Ranges": [],', b"],", b"")


@dataclass(frozen=True, slots=True)
class WalRange:
    """A piece of the log that a backup needs."""

    timeline: int
    start_lsn: int
    end_lsn: int


@dataclass(frozen=True, slots=True)
class ManifestFacts:
    """What a manifest says about the whole; version 1 knows no system identifier."""

    files: int
    wal_ranges: tuple[WalRange, ...]
    system_identifier: str | None


class ManifestReader:
    """Feed it the manifest's bytes in order, then ``finish``. Keeps no more than one line.

    ``received`` has the size of every file that the manifest must list: all but the segments in ``pg_wal``. It is
    used up, since two such lists of a million files would not be small.
    """

    def __init__(self, received: dict[str, int]) -> None:
        self._missing = received
        self._line = bytearray()
        self._hash = hashlib.sha256()
        self._checksum: str | None = None
        self._version: str | None = None
        self._system_identifier: str | None = None
        self._wal_ranges: list[WalRange] = []
        self._files = 0
        self._problems = 0
        self._named: list[str] = []

    def feed(self, piece: memoryview) -> None:
        """Take the next bytes; raises ``SourceFailed`` where they are no manifest."""
        self._line += piece
        *lines, rest = bytes(self._line).split(b"\n")
        self._line = bytearray(rest)
        for line in lines:
            self._take(line)
        if len(self._line) > LINE_BYTES_MAX:
            raise SourceFailed("the manifest has a line without an end", hint=_HINT)

    def finish(self) -> ManifestFacts:
        """Confirm checksum and files; raises ``SourceFailed`` naming what differs."""
        if self._line or self._checksum is None or self._version is None:
            raise SourceFailed("the manifest ends short", hint=_HINT)
        if self._checksum.lower() != self._hash.hexdigest():
            raise SourceFailed("the manifest does not match its own checksum", hint=_HINT)
        for path in self._missing:
            self._problem(f"{path!r} is not in the manifest")
        if self._problems:
            more = "" if self._problems <= NAMED_MAX else f" and {self._problems - NAMED_MAX} more"
            raise SourceFailed(f"manifest and stream differ: {'; '.join(self._named)}{more}", hint=_HINT)
        return ManifestFacts(self._files, tuple(self._wal_ranges), self._system_identifier)

    def _take(self, line: bytes) -> None:
        if self._checksum is not None:
            raise SourceFailed("the manifest goes on after its end", hint=_HINT)
        if match := _CHECKSUM.fullmatch(line):
            self._checksum = match[1].decode()
            return
        self._hash.update(line + b"\n")
        if line.startswith((b'{ "Path"', b'{ "Encoded-Path"')):
            self._file(line)
        elif line.startswith(b'{ "Timeline"'):
            self._wal_ranges.append(_wal_range(_json_line(line)))
        elif match := _VERSION.fullmatch(line):
            self._version = match[1].decode()
            if self._version not in VERSIONS:
                raise SourceFailed(
                    f"the manifest has version {self._version}, known are 1 and 2", hint="Update holdfast."
                )
        elif match := _SYSTEM.fullmatch(line):
            self._system_identifier = match[1].decode()
        elif line not in _STRUCTURE:
            raise SourceFailed(f"the manifest holds a line that cannot be read: {line[:80]!r}", hint=_HINT)

    def _file(self, line: bytes) -> None:
        path, size = _path_and_size(_json_line(line))
        self._files += 1
        received = self._missing.pop(path, None)
        if received is None:
            self._problem(f"{path!r} was not received, or is listed twice")
        elif received != size:
            self._problem(f"{path!r} has {received} bytes, the manifest says {size}")

    def _problem(self, text: str) -> None:
        self._problems += 1
        if self._problems <= NAMED_MAX:
            self._named.append(text)


def _json_line(line: bytes) -> dict[str, object]:
    try:
        value = json.loads(line.removesuffix(b","))
    except ValueError as error:
        raise SourceFailed(f"the manifest holds a line that cannot be read: {line[:80]!r}", hint=_HINT) from error
    return dict(value)


def _path_and_size(file: Mapping[str, object]) -> tuple[str, int]:
    match file:
        case {"Path": str() as path, "Size": int() as size}:
            return path, size
        case {"Encoded-Path": str() as encoded, "Size": int() as size} if _HEX.fullmatch(encoded):
            return bytes.fromhex(encoded).decode("utf-8", "surrogateescape"), size
    raise SourceFailed("the manifest lists a file without path or size", hint=_HINT)


def _wal_range(values: Mapping[str, object]) -> WalRange:
    match values:
        case {"Timeline": int() as timeline, "Start-LSN": str() as start, "End-LSN": str() as end}:
            with suppress(ValueError):
                return WalRange(timeline, parse_lsn(start), parse_lsn(end))
    raise SourceFailed("the manifest lists an incomplete WAL range", hint=_HINT)
