"""Proves that what was received is a whole backup: its log from start to stop, and one system throughout."""

from __future__ import annotations

import struct

from holdfast.model.errors import SourceFailed
from holdfast.sources.postgres.basebackup import BackupEnd
from holdfast.sources.postgres.details import format_lsn
from holdfast.sources.postgres.intake import CONTROL_PATH, LABEL_PATH, WAL_PREFIX, Intake
from holdfast.sources.postgres.manifest import ManifestFacts
from holdfast.sources.postgres.server import ServerFacts
from holdfast.sources.postgres.wal_segments import (
    SegmentKind,
    header_problem,
    needed_numbers,
    parse_segment_name,
    segment_name,
)

_CONTROL = struct.Struct("<QII")
_HINT = "Run the backup again; if it repeats, look for a proxy or a failing disk."


def require_whole_log(intake: Intake, server: ServerFacts, end: BackupEnd) -> None:
    """Raise ``SourceFailed`` unless every segment from start to stop arrived in full, each the right one."""
    kind = SegmentKind(server.major, int(server.system_identifier), server.wal_segment_size)
    present: set[int] = set()
    for path, size_bytes in intake.wal_sizes.items():
        name = path.removeprefix(WAL_PREFIX)
        parsed = parse_segment_name(name, kind.size_bytes)
        if parsed is None:
            continue
        problem = header_problem(kind, name, intake.kept.get(path, b""))
        if size_bytes != kind.size_bytes:
            problem = f"it has {size_bytes} bytes, not {kind.size_bytes}"
        if problem is not None:
            raise SourceFailed(f"WAL segment {name} is not right: {problem}", hint=_HINT)
        if intake.start.timeline <= parsed[0] <= end.timeline:
            present.add(parsed[1])
    for number in needed_numbers(intake.start.lsn, end.lsn, kind.size_bytes):
        if number not in present:
            raise SourceFailed(
                f"WAL segment {segment_name(end.timeline, number, kind.size_bytes)} is missing from the backup",
                hint="Raise max_slot_wal_keep_size (or wal_keep_size) on the server, then run the backup again.",
            )


def require_manifest_agrees(manifest: ManifestFacts, server: ServerFacts, end: BackupEnd) -> None:
    """Raise ``SourceFailed`` where the manifest tells another end or another system than the stream."""
    if manifest.system_identifier not in (None, server.system_identifier):
        raise SourceFailed(f"the manifest is of another system, {manifest.system_identifier}", hint=_HINT)
    ends = [piece.end_lsn for piece in manifest.wal_ranges if piece.timeline == end.timeline]
    if ends != [end.lsn]:
        told = ", ".join(format_lsn(lsn) for lsn in ends) or "no end"
        raise SourceFailed(f"the backup ends at {format_lsn(end.lsn)}, its manifest tells {told}", hint=_HINT)


def read_catalog_version(intake: Intake, server: ServerFacts) -> int:
    """Return the catalog version of the control file received; raises ``SourceFailed`` for another system's."""
    for path in (LABEL_PATH, CONTROL_PATH):
        if not intake.kept.get(path):
            raise SourceFailed(f"{path} is missing from the backup", hint=_HINT)
    control = intake.kept[CONTROL_PATH]
    if len(control) < _CONTROL.size:
        raise SourceFailed(f"{CONTROL_PATH} ends short", hint=_HINT)
    identifier, _, catalog_version = _CONTROL.unpack_from(control)
    if str(identifier) != server.system_identifier:
        raise SourceFailed(f"{CONTROL_PATH} is of another system, {identifier}", hint=_HINT)
    return int(catalog_version)


def require_unchanged(before: ServerFacts, after: ServerFacts) -> None:
    """Raise ``SourceFailed`` where the server is not what it was when the backup began (point 8 of a standby)."""
    if before.in_recovery and not after.in_recovery:
        raise SourceFailed("the standby was promoted during the backup", hint="Run the backup again.")
    if before.identity != after.identity or (not before.in_recovery and before.timeline != after.timeline):
        raise SourceFailed("the server became another one during the backup", hint="Run the backup again.")
