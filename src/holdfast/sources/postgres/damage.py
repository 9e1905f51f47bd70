"""Joins what the server and we found broken into one list: which file, how many pages, in which way."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from holdfast.sources.port import Damage
from holdfast.sources.postgres.basebackup import BackupEnd
from holdfast.sources.postgres.details import Tablespace
from holdfast.sources.postgres.pages import FileFindings, PageFault

NOTICES_MAX = 20
"""Other warnings of the server that are repeated to the operator; those beyond are counted."""

UNKNOWN_PATH = "(unknown)"

# Translated servers put other words around it, but the path stays, in quotation marks of some kind.
_QUOTED = re.compile(r"[\"«„“]\s?(.+?)\s?[\"»“”]")
_TOTAL = re.compile(r"total of (\d+) checksum verification failure")


@dataclass(slots=True)
class _ServerFile:
    reported: int = 0
    total: int = 0
    example: str = ""

    @property
    def count(self) -> int:
        return max(self.reported, self.total)


@dataclass(slots=True)
class _ServerView:
    files: dict[str, _ServerFile] = field(default_factory=dict)
    unverified: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)


def assess(
    findings: Sequence[FileFindings], end: BackupEnd, tablespaces: Sequence[Tablespace]
) -> tuple[tuple[Damage, ...], tuple[str, ...]]:
    """Return the damage by path, and notices: the server's other warnings, and findings that prove nothing."""
    server = _server_view(end.warnings, tablespaces)
    damage: dict[str, Damage] = {}
    notices: list[str] = []
    for found in findings:
        known = server.files.pop(found.path, None)
        only_checksums = all(fault is PageFault.CHECKSUM for fault, _ in found.counts)
        if known is None and only_checksums and found.path in server.unverified:
            # The server read a piece cut within a page, so it could not read it again as it does for torn pages.
            notices.append(f"{found.path} changed while it was read, checksums say nothing there: {found.detail()}")
            continue
        count = max(found.total, known.count if known else 0)
        damage[found.path] = Damage(found.path, count, found.detail())
    for path, file in server.files.items():
        damage[path] = Damage(path, max(file.count, 1), f"the server says: {file.example}")
    if end.corruption is not None and not damage:
        damage[UNKNOWN_PATH] = Damage(UNKNOWN_PATH, 1, f"the server says: {end.corruption}")
    return tuple(damage[path] for path in sorted(damage)), (*notices, *_shortened(server.others))


def _server_view(warnings: Iterable[str], tablespaces: Sequence[Tablespace]) -> _ServerView:
    view = _ServerView()
    for words in warnings:
        quoted = _QUOTED.search(words)
        path = _entry_path(quoted[1], tablespaces) if quoted else UNKNOWN_PATH
        if "could not verify checksum" in words:
            view.unverified[path] = words
        elif total := _TOTAL.search(words):
            view.files.setdefault(path, _ServerFile(example=words)).total = int(total[1])
        elif "checksum verification failed" in words:
            file = view.files.setdefault(path, _ServerFile(example=words))
            file.reported += 1
        elif "checksum verification failures" not in words:
            view.others.append(words)
    return view


def _entry_path(path: str, tablespaces: Sequence[Tablespace]) -> str:
    for space in tablespaces:
        if space.location and path.startswith(space.location.rstrip("/") + "/"):
            return f"pg_tblspc/{space.oid}/{path[len(space.location.rstrip('/')) + 1 :]}"
    return path.removeprefix("./")


def _shortened(others: Sequence[str]) -> tuple[str, ...]:
    shown = tuple(f"the server warned: {words}" for words in others[:NOTICES_MAX])
    more = len(others) - NOTICES_MAX
    return (*shown, f"and {more} more warnings of the server, see its log") if more > 0 else shown
