"""A tar archive as it arrives: bytes in, members and their content out; no I/O, no copies of content.

Source: POSIX pax, "ustar Interchange Format", as PostgreSQL writes it (base-256 sizes above 8 GiB, links to folders
with a slash at the end of their name). Headers are read by Python's tarfile.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from holdfast.model.errors import SourceFailed
from holdfast.sources.port import EntryType

BLOCK_BYTES = 512
_ZERO_BLOCK = bytes(BLOCK_BYTES)

_TYPES = {
    tarfile.REGTYPE: EntryType.FILE,
    tarfile.AREGTYPE: EntryType.FILE,
    tarfile.DIRTYPE: EntryType.FOLDER,
    tarfile.SYMTYPE: EntryType.LINK,
}


@dataclass(frozen=True, slots=True)
class Member:
    """The header of one member. Bytes of names that are not UTF-8 are carried by surrogateescape."""

    path: str
    type: EntryType
    size_bytes: int
    mode: int
    modified_at: datetime
    link_target: str | None = None


class Mark(Enum):
    """What happens between the pieces of content."""

    MEMBER_END = "member_end"


Event = Member | memoryview | Mark
"""A member begins; the next piece of its content; it ends. Only files have content and an end."""


class ArchiveReader:
    """Reads one archive. ``feed`` it every byte in order, then ``close``. Pieces live as long as the bytes fed."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._header = bytearray()
        self._content_left = 0
        self._padding_left = 0
        self._zero_blocks = 0

    def feed(self, data: memoryview) -> Iterator[Event]:
        """Yield what ``data`` holds; raises ``SourceFailed`` on anything that is no member. Exhaust the iterator."""
        position, size = 0, len(data)
        while position < size:
            if self._content_left:
                taken = min(self._content_left, size - position)
                self._content_left -= taken
                yield data[position : position + taken]
                position += taken
                if not self._content_left:
                    yield Mark.MEMBER_END
            elif self._padding_left:
                taken = min(self._padding_left, size - position)
                self._padding_left -= taken
                position += taken
            else:
                taken = min(BLOCK_BYTES - len(self._header), size - position)
                self._header += data[position : position + taken]
                position += taken
                if len(self._header) == BLOCK_BYTES:
                    yield from self._block()

    def close(self) -> None:
        """Confirm the end; raises ``SourceFailed`` where the archive ends short."""
        if self._content_left or self._padding_left or self._header:
            raise SourceFailed(f"archive {self._name} ends in the middle of a member", hint=_HINT)
        if self._zero_blocks < 2:
            raise SourceFailed(f"archive {self._name} ends without its end mark", hint=_HINT)

    def _block(self) -> Iterator[Event]:
        block = bytes(self._header)
        self._header.clear()
        if block == _ZERO_BLOCK:
            self._zero_blocks += 1
            return
        if self._zero_blocks:
            raise SourceFailed(f"archive {self._name} goes on after its end mark", hint=_HINT)
        member = read_header(self._name, block)
        yield member
        if member.type is EntryType.FILE:
            self._content_left = member.size_bytes
            self._padding_left = -member.size_bytes % BLOCK_BYTES
            if not member.size_bytes:
                yield Mark.MEMBER_END


_HINT = "Run the backup again; if it repeats, look for a proxy or a failing network between us and the server."


def read_header(archive: str, block: bytes) -> Member:
    """Return the member that a header block describes. Raises ``SourceFailed`` for any that a restore must not meet."""
    try:
        header = tarfile.TarInfo.frombuf(block, encoding="utf-8", errors="surrogateescape")
    except tarfile.HeaderError as error:
        raise SourceFailed(f"archive {archive} holds a header that cannot be read: {error}", hint=_HINT) from error
    kind = _TYPES.get(header.type)
    path = header.name.rstrip("/").removeprefix("./")
    if kind is None:
        raise SourceFailed(f"archive {archive} holds {path!r} of unknown type {header.type!r}", hint=_HINT)
    if path.startswith("/") or not path or any(part in ("", ".", "..") for part in path.split("/")):
        raise SourceFailed(f"archive {archive} holds a member with an unsafe name: {header.name!r}", hint=_HINT)
    if header.size < 0 or (header.size and kind is not EntryType.FILE):
        raise SourceFailed(f"archive {archive} holds {path!r} with an impossible size {header.size}", hint=_HINT)
    return Member(
        path=path,
        type=kind,
        size_bytes=header.size,
        mode=header.mode & 0o7777,
        modified_at=_modified_at(header.mtime),
        link_target=header.linkname if kind is EntryType.LINK else None,
    )


def _modified_at(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(0, UTC)  # A clock gone wild on the server must not cost the backup.
