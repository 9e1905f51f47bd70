"""Turns the archives of a base backup into entries, and keeps what the checks at the end need."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from holdfast.model.errors import SourceFailed
from holdfast.sources.port import Entry, EntryType, Inspect, Layout, Stream, StreamSink
from holdfast.sources.postgres.archive import ArchiveReader, Mark, Member
from holdfast.sources.postgres.basebackup import BackupStart
from holdfast.sources.postgres.checksums import PAGE_BYTES
from holdfast.sources.postgres.details import format_lsn
from holdfast.sources.postgres.in_place import InPlaceRule
from holdfast.sources.postgres.manifest import ManifestFacts, ManifestReader
from holdfast.sources.postgres.pages import PageScanner, relation_segment
from holdfast.sources.postgres.server import ServerFacts
from holdfast.sources.postgres.wal_segments import HEADER_BYTES

MANIFEST_PATH = "backup_manifest"
LABEL_PATH = "backup_label"
CONTROL_PATH = "global/pg_control"
CONFIGURATION_PATH = "postgresql.conf"
WAL_PREFIX = "pg_wal/"

KEPT_BYTES_MAX = 64 * 1024
"""The most that is kept of a file whose content the checks read; they are far smaller."""

_SEGMENT = re.compile(rf"{WAL_PREFIX}[0-9A-F]{{24}}")
_DATABASE = re.compile(r"(?:base|pg_tblspc/\d+/[^/]+)/(\d+)/")
_ARCHIVE = re.compile(r"(?:base|(\d+))\.tar")


@dataclass(slots=True)
class _OpenFile:
    path: str
    stream: Stream
    size_bytes: int
    keep_bytes: int
    kept: bytearray = field(default_factory=bytearray)


class Intake:
    """The receiver of a base backup: every member becomes an entry of ``sink``, the manifest the last one.

    ``sizes`` has what the manifest must list (and is used up by it), ``wal_sizes`` the segments of the log; ``kept``
    the content of the label and the control file, and the header of each WAL segment; ``unlogged`` how many relations
    come back empty; ``database_sizes`` the bytes of files by database oid, ``size_bytes`` those of all.
    """

    def __init__(self, sink: StreamSink, server: ServerFacts, reserved_lsn: int, in_place: InPlaceRule) -> None:
        self._in_place = in_place
        self._sink = sink
        self.reserved_lsn = reserved_lsn
        self._server = server
        self._archive: ArchiveReader | None = None
        self._prefix = ""
        self._file: _OpenFile | None = None
        self._manifest: tuple[ManifestReader, Stream] | None = None
        self._folders: set[str] = set()
        self._start: BackupStart | None = None
        self._scanner: PageScanner | None = None
        self.sizes: dict[str, int] = {}
        self.wal_sizes: dict[str, int] = {}
        self.kept: dict[str, bytes] = {}
        self.database_sizes: dict[str, int] = {}
        self.size_bytes = 0
        self.unlogged = 0
        self.has_configuration = False

    @property
    def start(self) -> BackupStart:
        """What the server told at the start."""
        if self._start is None:
            raise SourceFailed("the base backup did not begin")
        return self._start

    @property
    def scanner(self) -> PageScanner | None:
        """What looks at the pages; None for a server with another block size than the usual."""
        return self._scanner

    def begin(self, start: BackupStart) -> None:
        """Take the facts of the start; refuse at once a log that is not held back from there on."""
        self._start = start
        if start.lsn < self.reserved_lsn:
            raise SourceFailed(
                f"the log is held back from {format_lsn(self.reserved_lsn)} only, after the backup's start",
                hint="Run the backup again.",
            )
        self._in_place.check_listed(start.tablespaces)
        if self._server.block_size == PAGE_BYTES:
            self._scanner = PageScanner(
                start.lsn,
                verify_checksums=self._server.checksums is True,
                blocks_per_segment=self._server.blocks_per_segment,
            )
        if start.size_bytes is not None:
            self._sink.expect(start.size_bytes)

    def archive(self, name: str) -> None:
        """Begin an archive; a tablespace's paths get the place of its link in the data folder before them."""
        self._end_archive()
        match = _ARCHIVE.fullmatch(name)
        if match is None:
            raise SourceFailed(f"base backup: archive of unknown name {name!r}", hint="Is there a proxy in between?")
        self._prefix = f"pg_tblspc/{match[1]}/" if match[1] else ""
        self._archive = ArchiveReader(name)

    def data(self, piece: memoryview) -> None:
        """Take the next bytes of the archive."""
        if self._archive is None:
            raise SourceFailed("base backup: data before the first archive", hint="Is there a proxy in between?")
        for event in self._archive.feed(piece):
            if isinstance(event, memoryview):
                self._content(event)
            elif event is Mark.MEMBER_END:
                self._end_file()
            else:
                self._member(event)

    def manifest(self) -> None:
        """Begin the manifest: by now every file it may name was received."""
        self._end_archive()
        if self._manifest is not None:
            raise SourceFailed("base backup: a second manifest", hint="Is there a proxy in between?")
        self._manifest = (ManifestReader(self.sizes), self._sink.open(Entry(MANIFEST_PATH)))

    def manifest_data(self, piece: memoryview) -> None:
        """Take the next bytes of the manifest."""
        if self._manifest is not None:
            reader, stream = self._manifest
            reader.feed(piece)
            stream.write(piece)

    def finish(self) -> ManifestFacts:
        """Confirm the manifest against what was received, and close it. Raises ``SourceFailed``."""
        if self._manifest is None:
            raise SourceFailed("base backup: no manifest was received")
        reader, stream = self._manifest
        facts = reader.finish()
        stream.close()
        return facts

    def _member(self, member: Member) -> None:
        path = self._prefix + member.path
        if path in self.sizes or path in self.wal_sizes or path in self._folders:
            raise SourceFailed(f"base backup: {path!r} was sent twice", hint="Run the backup again.")
        self._in_place.check_member(path, member.type)
        layout, inspect = self._treatment(path, member)
        entry = Entry(path, member.type, member.mode, member.modified_at, member.link_target, layout)
        if member.type is EntryType.FILE:
            self.unlogged += path.endswith("_init")
            self.has_configuration |= path == CONFIGURATION_PATH
            self._file = _OpenFile(path, self._sink.open(entry, inspect), member.size_bytes, _bytes_to_keep(path))
        else:
            self._folders.add(path)
            self._sink.add(entry)

    def _treatment(self, path: str, member: Member) -> tuple[Layout, Inspect | None]:
        segment = relation_segment(path) if member.type is EntryType.FILE else None
        if segment is None or self._scanner is None:
            return Layout.CONTENT, None
        return Layout.PAGES, self._scanner.watch(path, segment, member.size_bytes)

    def _content(self, piece: memoryview) -> None:
        file = self._file
        if file is None:
            raise SourceFailed("base backup: content without a file")
        if len(file.kept) < file.keep_bytes:
            file.kept += piece[: file.keep_bytes - len(file.kept)]
        file.stream.write(piece)

    def _end_file(self) -> None:
        file, self._file = self._file, None
        if file is None:
            raise SourceFailed("base backup: the end of a file that did not begin")
        file.stream.close()
        # Of what lies in pg_wal the manifest leaves out the segments only, not history files and archive marks.
        sizes = self.wal_sizes if _SEGMENT.fullmatch(file.path) else self.sizes
        sizes[file.path] = file.size_bytes
        self.size_bytes += file.size_bytes
        if of := _DATABASE.match(file.path):
            self.database_sizes[of[1]] = self.database_sizes.get(of[1], 0) + file.size_bytes
        if file.keep_bytes:
            self.kept[file.path] = bytes(file.kept)

    def _end_archive(self) -> None:
        if self._archive is not None:
            self._archive.close()
        self._archive = None


def _bytes_to_keep(path: str) -> int:
    if path in (LABEL_PATH, CONTROL_PATH):
        return KEPT_BYTES_MAX
    return HEADER_BYTES if _SEGMENT.fullmatch(path) else 0


def read_label(label: bytes) -> dict[str, str]:
    """Return the lines of a backup_label by their name, in lower case."""
    lines = label.decode("utf-8", "replace").splitlines()
    return {name.lower(): value for name, separator, value in (line.partition(": ") for line in lines) if separator}
