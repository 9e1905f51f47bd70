"""A base backup put together by hand goes through the intake, and only a whole one is proved."""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
from collections.abc import Mapping
from dataclasses import replace

import pytest

from holdfast.model.errors import SourceFailed
from holdfast.sources.port import Data, Entry, EntryType, Inspect, Layout
from holdfast.sources.postgres import proof
from holdfast.sources.postgres.basebackup import BackupEnd, BackupStart
from holdfast.sources.postgres.details import Tablespace, format_lsn
from holdfast.sources.postgres.in_place import InPlaceRule
from holdfast.sources.postgres.intake import Intake, read_label
from holdfast.sources.postgres.server import ServerFacts

MIB = 1 << 20
START, STOP = 3 * MIB + 40, 4 * MIB + 500
SYSTEM = 7_300_000_000_000_000_001
SERVER = ServerFacts(str(SYSTEM), 1, STOP, 150006, "15.6", 8192, MIB, 131072, True, False)
END = BackupEnd(STOP, 1, None, ())
CONTROL = struct.pack("<QII", SYSTEM, 1300, 202209061) + bytes(8176)
LABEL = b"START WAL LOCATION: 0/300028 (file 000000010000000000000003)\nLABEL: a: b\nSTART TIMELINE: 1\n"


class MemorySink:
    """Keeps entries and contents; every stream must be closed."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.entries: list[Entry] = []
        self.expected = 0

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)

    def open(self, entry: Entry, inspect: Inspect | None = None) -> MemoryStream:
        self.entries.append(entry)
        return MemoryStream(self, entry.path, inspect)

    def drain(self) -> None:
        return

    def expect(self, size_bytes: int) -> None:
        self.expected = size_bytes


class MemoryStream:
    def __init__(self, sink: MemorySink, path: str, inspect: Inspect | None) -> None:
        self._sink = sink
        self._path = path
        self._inspect = inspect
        self._content = b""

    def write(self, data: Data) -> None:
        self._content += data

    def close(self) -> None:
        if self._inspect is not None:
            self._inspect(memoryview(self._content), 0)
        self._sink.contents[self._path] = self._content


def segment(number: int, *, system: int = SYSTEM, size_bytes: int = MIB) -> bytes:
    header = struct.pack("<HHIQIxxxxQII", 0xD110, 2, 1, number * MIB, 0, system, MIB, 8192)
    return header.ljust(size_bytes, b"\0")


def wal(numbers: tuple[int, ...] = (3, 4)) -> dict[str, bytes]:
    return {f"pg_wal/{1:08X}{0:08X}{number:08X}": segment(number) for number in numbers}


def data_files() -> dict[str, bytes]:
    return {"backup_label": LABEL, "base/5/16384": bytes(8192), "postgresql.conf": b"", "global/pg_control": CONTROL}


def archive(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            if name.endswith("/"):
                header.type = tarfile.DIRTYPE
            tar.addfile(header, io.BytesIO(content))
    return buffer.getvalue()


def manifest(files: Mapping[str, bytes], stop: int = STOP) -> bytes:
    lines = [f'{{ "Path": "{path}", "Size": {len(content)} }}' for path, content in files.items()]
    wal_range = f'{{ "Timeline": 1, "Start-LSN": "{format_lsn(START)}", "End-LSN": "{format_lsn(stop)}" }}'
    text = '{ "PostgreSQL-Backup-Manifest-Version": 1,\n"Files": [\n' + ",\n".join(lines)
    text += f'\n],\n"WAL-Ranges": [\n{wal_range}\n],\n'
    return f'{text}"Manifest-Checksum": "{hashlib.sha256(text.encode()).hexdigest()}"}}\n'.encode()


def take(
    base: Mapping[str, bytes],
    *,
    spaces: Mapping[str, Mapping[str, bytes]] | None = None,
    listed: bytes | None = None,
    server: ServerFacts = SERVER,
) -> tuple[Intake, MemorySink]:
    sink = MemorySink()
    intake = Intake(sink, server, START, InPlaceRule(server, allowed=False))
    intake.begin(BackupStart(START, 1, (Tablespace(16400, "/srv/fast", None),), 12345))
    every = dict(base)
    for name, files in {**(spaces or {}), "base.tar": base}.items():
        intake.archive(name)
        intake.data(memoryview(archive(files)))
        if name != "base.tar":
            every |= {f"pg_tblspc/{name.removesuffix('.tar')}/{path}": content for path, content in files.items()}
    intake.manifest()
    body = {path: content for path, content in every.items() if not path.startswith("pg_wal/") and path[-1] != "/"}
    intake.manifest_data(memoryview(listed or manifest(body)))
    return intake, sink


def prove(intake: Intake, server: ServerFacts = SERVER) -> None:
    facts = intake.finish()
    proof.require_whole_log(intake, server, END)
    proof.require_manifest_agrees(facts, server, END)
    proof.read_catalog_version(intake, server)


def test_a_whole_backup_becomes_entries_and_is_proved() -> None:
    spaces = {"16400.tar": {"PG_15_202209061/5/16401": bytes(8192)}}
    intake, sink = take({**data_files(), "pg_wal/": b"", **wal()}, spaces=spaces)
    prove(intake)

    paths = [entry.path for entry in sink.entries]
    assert paths[0] == "pg_tblspc/16400/PG_15_202209061/5/16401"
    assert paths[-1] == "backup_manifest"
    assert sink.expected == 12345
    assert {entry.path for entry in sink.entries if entry.layout is Layout.PAGES} == {paths[0], "base/5/16384"}
    assert [entry.path for entry in sink.entries if entry.type is EntryType.FOLDER] == ["pg_wal"]
    assert sink.contents["backup_label"] == LABEL
    assert sink.contents["global/pg_control"] == CONTROL
    assert intake.scanner is not None
    assert intake.scanner.finish(STOP) == ()
    assert proof.read_catalog_version(intake, SERVER) == 202209061


@pytest.mark.parametrize("numbers", [(), (3,), (4,)])
def test_a_missing_segment_is_found(numbers: tuple[int, ...]) -> None:
    intake, _ = take({**data_files(), **wal(numbers)})
    with pytest.raises(SourceFailed, match="missing from the backup"):
        prove(intake)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (segment(2), "old segment under a new name"),
        (segment(3, system=5), "belongs to the system 5"),
        (segment(3, size_bytes=MIB // 2), "524288 bytes"),
        (bytes(MIB), "magic"),
    ],
)
def test_a_segment_that_is_not_right_is_found(content: bytes, problem: str) -> None:
    name = next(iter(wal((3,))))
    intake, _ = take({**data_files(), **wal(), name: content})
    with pytest.raises(SourceFailed, match=problem):
        prove(intake)


def test_a_manifest_with_another_end_is_found() -> None:
    intake, _ = take({**data_files(), **wal()}, listed=manifest(data_files(), STOP - 8))
    with pytest.raises(SourceFailed, match="its manifest tells"):
        prove(intake)


def test_the_control_file_of_another_system_is_found() -> None:
    foreign = {**data_files(), "global/pg_control": struct.pack("<QII", 5, 1300, 1) + bytes(8176)}
    intake, _ = take({**foreign, **wal()})
    with pytest.raises(SourceFailed, match="another system, 5"):
        prove(intake)


@pytest.mark.parametrize("absent", ["backup_label", "global/pg_control"])
def test_a_backup_without_its_label_or_control_file_is_none(absent: str) -> None:
    files = {path: content for path, content in data_files().items() if path != absent}
    intake, _ = take({**files, **wal()})
    with pytest.raises(SourceFailed, match=absent):
        prove(intake)


def test_a_file_that_vanished_does_not_shift_the_others() -> None:
    files = {**data_files(), "base/5/16385": b"1", "base/5/16386": b"22"}
    sent = {path: content for path, content in files.items() if path != "base/5/16385"}
    intake, sink = take({**sent, **wal()}, listed=manifest(sent))
    prove(intake)
    assert sink.contents["base/5/16386"] == b"22"

    intake, _ = take({**sent, **wal()}, listed=manifest(files))
    with pytest.raises(SourceFailed, match="16385"):
        prove(intake)


def test_what_is_sent_twice_is_refused() -> None:
    with pytest.raises(SourceFailed, match="sent twice"):
        take({**data_files(), "pg_tblspc/16400/x": b"1"}, spaces={"16400.tar": {"x": b"1"}})


def test_a_block_size_that_is_not_known_is_taken_without_looking_at_pages() -> None:
    server = replace(SERVER, block_size=16384)
    intake, sink = take({**data_files(), **wal()}, server=server)
    assert intake.scanner is None
    assert all(entry.layout is Layout.CONTENT for entry in sink.entries)


def test_a_log_held_back_too_late_is_refused_at_the_start() -> None:
    intake = Intake(MemorySink(), SERVER, START + 1, InPlaceRule(SERVER, allowed=False))
    with pytest.raises(SourceFailed, match="held back"):
        intake.begin(BackupStart(START, 1, (), None))


def test_the_label_is_read_by_name() -> None:
    assert read_label(LABEL)["label"] == "a: b"


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        (replace(SERVER, in_recovery=True), SERVER, "promoted"),
        (SERVER, replace(SERVER, timeline=2), "another one"),
        (SERVER, replace(SERVER, system_identifier="1"), "another one"),
    ],
)
def test_a_server_that_changed_meanwhile_is_found(before: ServerFacts, after: ServerFacts, problem: str) -> None:
    with pytest.raises(SourceFailed, match=problem):
        proof.require_unchanged(before, after)
