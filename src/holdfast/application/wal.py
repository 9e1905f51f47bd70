"""Files of a PostgreSQL log in and out of a repository, for archive_command and restore_command."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from holdfast import bootstrap
from holdfast.application.known import known_of
from holdfast.application.wal_near import NearLog
from holdfast.config.settings import Config
from holdfast.model.errors import ConfigInvalid, SourceFailed
from holdfast.model.logs import Generation, Sample, Stretch, holes
from holdfast.repository.area import Area
from holdfast.repository.format import names
from holdfast.repository.format.log import SpanHeader, identity_of
from holdfast.repository.log.listing import ListedSpan
from holdfast.repository.log.reading import StoredLog
from holdfast.repository.log.spans import put_generation, put_span, seal_span
from holdfast.sources.kinds import POSTGRES
from holdfast.sources.postgres.follow.timelines import (
    TimelineHistory,
    generation_of,
    history_name,
    history_of,
    read_history,
    refuse_taken,
)
from holdfast.sources.postgres.wal_files import (
    SegmentFacts,
    WalFileKind,
    WalFileName,
    check_segment,
    parse_wal_name,
    read_system_identifier,
    refuse_other_system,
)
from holdfast.sources.postgres.wal_parts import SegmentPart, find_segment, generations_of
from holdfast.sources.postgres.wal_segments import HEADER_BYTES
from holdfast.sources.postgres.wal_walk import ENDS, Walk
from holdfast.storage.settled import RetryPolicy

SPAN_BYTES = 16 << 20
ZEROS_BYTES = 4 << 20
SAMPLED_BYTES = 1 << 20
"""Of the end of a segment, looked through for its last commit."""
PUSH_POLICY = RetryPolicy(tries_max=6, waits_seconds_max=20.0, elapsed_seconds_max=120.0)
FETCH_POLICY = RetryPolicy(tries_max=8, waits_seconds_max=40.0, elapsed_seconds_max=240.0)
"""Both commands are run again by the server; they need not try for long themselves."""


def source_for_wal(config: Config, source: str | None) -> str:
    """Return the source whose log it is: the one named, or the only one of PostgreSQL. Raises ``ConfigInvalid``."""
    names = [one.name for one in config.sources if one.kind == POSTGRES]
    if source is not None:
        if config.source(source).kind != POSTGRES:
            raise ConfigInvalid(f"source {source} is not a PostgreSQL server", hint=f"Name one of: {', '.join(names)}.")
        return source
    if len(names) != 1:
        raise ConfigInvalid(
            f"{len(names) or 'no'} sources are PostgreSQL servers",
            hint=f"Add --source with one of: {', '.join(names)}.",
        )
    return names[0]


def wal_name(name: str) -> WalFileName:
    """Return what a file's name says. Raises ``ConfigInvalid`` for one that is none of the log's."""
    parsed = parse_wal_name(name)
    if parsed is None:
        raise ConfigInvalid(
            f"{name!r} is not the name of a log file",
            hint="archive_command = 'holdfast wal push %p', restore_command = 'holdfast wal fetch %f %p'.",
        )
    return parsed


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """A segment that is durable: its content, and the spans that hold it. ``is_new``: some of it was not before."""

    content: bytes
    spans: tuple[ListedSpan, ...]
    is_new: bool


class WalFiles:
    """The log of one source, file by file. Take it from ``opened``."""

    def __init__(self, area: Area, tools: bootstrap.Tools) -> None:
        self.area = area
        self.tools = tools
        self._near = NearLog(area, tools.executor)

    @cached_property
    def log(self) -> StoredLog:
        """The whole log as it was when it was first asked for. A push has no need of it."""
        return StoredLog(self.area, self.tools.executor)

    @cached_property
    def _known_system(self) -> str | None:
        """Whose log it is, as far as the backups, and what was adopted since, say."""
        identity = known_of(self.area, self.tools, POSTGRES).identity
        return dict(identity.facts).get("system_identifier") if identity is not None else None

    # Push

    def push(self, path: Path) -> str:
        """Store a file durably; the same again is fine. Return what was done, in words.

        Raises ``SourceFailed`` for what is no sound file of the log, ``Conflict`` for one that differs from what is
        stored, or is of another system.
        """
        name = wal_name(path.name)
        match name.kind:
            case WalFileKind.BACKUP:
                return f"{path.name} tells of a base backup and is not needed"
            case WalFileKind.HISTORY:
                return self._push_history(name, path)
            case _:
                stored = self.push_segment(name, path)
                return f"{path.name} is stored" if stored.is_new else f"{path.name} was stored before"

    def _push_history(self, name: WalFileName, path: Path) -> str:
        identifier = system_of(path.parent.parent) or self._only_system()
        if identifier is None:
            raise SourceFailed(
                f"whose timeline {path.name} tells of cannot be seen",
                hint="Run the command in the data folder, as PostgreSQL does: it reads global/pg_control there.",
            )
        self._refuse_other(identifier)
        history = read_history(identifier, name.timeline, _read(path))
        self._store_generation(history, self._segment_bytes(path, identifier))
        return f"{path.name} is stored"

    def push_segment(self, name: WalFileName, path: Path) -> StoredSegment:
        """Store a segment, or the part of one, durably; return what is durable then. Raises as ``push`` does."""
        content = _read(path)
        facts = check_segment(name, content[:HEADER_BYTES], len(content))
        self._refuse_other(facts.system_identifier)
        generation = self._generation(name, facts, path)
        stretch = facts.stretch
        if name.kind is WalFileKind.PARTIAL:
            stretch = self._before_fork(name, facts, path)
        spans = self._near.compared(generation.id, stretch, content)
        new = holes((Stretch(span.name.start, span.name.end) for span in spans), stretch)
        sample = _last_commit(content, facts) if stretch == facts.stretch else None
        own: set[str] = set()
        for hole in new:
            piece = content[hole.start - facts.stretch.start : hole.end - facts.stretch.start]
            own |= self._put(generation, hole, piece, sample)
        if new:
            # Whoever pushed the same positions meanwhile must have pushed the same bytes.
            spans = self._near.compared(generation.id, stretch, content, own)
        return StoredSegment(content, tuple(spans), bool(new))

    def object_name(self, span: ListedSpan) -> str:
        """Return the name of a span's object in the store."""
        return names.log_span(self.area.keys.area, span.name)

    def _put(self, generation: Generation, stretch: Stretch, content: bytes, sample: Sample | None) -> set[str]:
        """Put what was missing; return the digests of its spans."""
        digests = set()
        for offset in range(0, len(content), SPAN_BYTES):
            piece = content[offset : offset + SPAN_BYTES]
            start = stretch.start + offset
            is_last = offset + len(piece) == len(content)
            samples = (sample,) if sample is not None and is_last and sample.position == start + len(piece) else ()
            header = SpanHeader(samples, None, identity_of(generation), datetime.now(UTC))
            sealed = seal_span(self.area, generation.id, start, piece, header)
            put_span(self.area, sealed)
            digests.add(sealed.name.digest)
        return digests

    def _generation(self, name: WalFileName, facts: SegmentFacts, path: Path) -> Generation:
        """Return the generation that a segment belongs to, stored now where it was not."""
        found = generations_of(self._near.generations(), name.timeline, facts.system_identifier)
        if found is not None:
            return found[0]
        beside = path.with_name(history_name(name.timeline))
        if name.timeline > 1 and not beside.is_file():
            raise SourceFailed(
                f"where timeline {name.timeline} came from is not known yet",
                hint=f"The server archives {beside.name} first; if it is gone, push a copy of that file by hand.",
            )
        content = _read(beside) if name.timeline > 1 else b""
        history = read_history(facts.system_identifier, name.timeline, content)
        return self._store_generation(history, facts.segment_bytes)

    def _store_generation(self, history: TimelineHistory, segment_bytes: int) -> Generation:
        refuse_taken(history, self._near.generations())
        generation = generation_of(history, segment_bytes)
        self.area.catalog(POSTGRES, datetime.now(UTC))
        put_generation(self.area, generation, datetime.now(UTC))
        self._near.refresh()
        return generation

    def _before_fork(self, name: WalFileName, facts: SegmentFacts, path: Path) -> Stretch:
        """Return what a partial segment is good for: up to where its timeline was left. The rest may be anything."""
        forks = []
        for generation in self._near.generations():
            history = history_of(generation)
            if history is not None and history.system_identifier == facts.system_identifier:
                fork = history.switch_from(name.timeline)
                if fork is not None and facts.stretch.start < fork <= facts.stretch.end:
                    forks.append(fork)
        if not forks:
            raise SourceFailed(
                f"where timeline {name.timeline} was left is not known yet, so {path.name} cannot be judged",
                hint="The server archives the history of the next timeline first; it will offer this file again.",
            )
        return Stretch(facts.stretch.start, max(forks))

    def _segment_bytes(self, path: Path, identifier: str) -> int:
        for generation in self._near.generations():
            size = generation.details.get("segment_bytes")
            if generation.details.get("system_identifier") == identifier and isinstance(size, int):
                return size
        for beside in sorted(path.parent.iterdir()):
            name = parse_wal_name(beside.name)
            if name is not None and name.kind is WalFileKind.SEGMENT:
                with beside.open("rb") as file:
                    header = file.read(HEADER_BYTES)
                try:
                    return check_segment(name, header, beside.stat().st_size).segment_bytes
                except SourceFailed:
                    continue  # one made ready for later, which holds nothing of its own yet
        raise SourceFailed(
            "how large a segment is cannot be seen", hint="Push a segment of the server first, from its pg_wal."
        )

    def _only_system(self) -> str | None:
        systems = {str(one.details.get("system_identifier")) for one in self._near.generations()}
        return systems.pop() if len(systems) == 1 else None

    def _refuse_other(self, found: str) -> None:
        refuse_other_system(self.area.source, self._known_system or self._only_system(), found)

    # Fetch

    def fetch(self, name: str, target: Path, identifier: str | None) -> SegmentPart | bool:
        """Write a file of the log to ``target``; False where it certainly is not stored.

        Of a segment return what was stored of it. Raises where the log has a hole, or cannot be read.
        """
        wanted = wal_name(name)
        if wanted.kind is WalFileKind.HISTORY:
            found = generations_of(self.log.generations(), wanted.timeline, identifier)
            if found is None or not found[1].text:
                return False
            _write(target, iter([found[1].text.encode()]))
            return True
        if wanted.kind is not WalFileKind.SEGMENT:
            return False
        part = find_segment(self.log, wanted, identifier)
        if part is None:
            return False
        _write(target, self.content(part))
        return part

    def content(self, part: SegmentPart) -> Iterator[bytes]:
        """Yield the bytes of a segment."""
        yield from self.log.read(part.generation, part.stretch)
        zeros = part.zeros
        while zeros:
            step = min(zeros, ZEROS_BYTES)
            yield bytes(step)
            zeros -= step


@dataclass(frozen=True, slots=True)
class WalOrder:
    """Whose log: the source named (or the only one), in the repository named (or the first)."""

    source: str | None = None
    repository: str | None = None


@contextmanager
def opened(config: Config, order: WalOrder, policy: RetryPolicy) -> Iterator[WalFiles]:
    """Open the log of a source for the length of the block."""
    source = source_for_wal(config, order.source)
    with (
        bootstrap.opened_repository(config, order.repository, policy=policy) as repository,
        bootstrap.tools(config.environment, lambda text: None) as tools,
    ):
        yield WalFiles(bootstrap.area_of(config, repository, source), tools)


def system_of(data_folder: Path) -> str | None:
    """Return the system identifier of a data folder; None where it cannot be read."""
    try:
        with (data_folder / "global" / "pg_control").open("rb") as file:
            return read_system_identifier(file.read(8))
    except OSError:
        return None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceFailed(
            f"{path} cannot be read: {error.strerror}",
            hint="PATH is relative to the data folder, where PostgreSQL runs the command; %p is what belongs there.",
        ) from error


def _write(target: Path, pieces: Iterator[bytes]) -> None:
    """Write a file whole or not at all."""
    beside = target.with_name(f"{target.name}.holdfast-{os.getpid()}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            for piece in pieces:
                file.write(piece)
        beside.rename(target)
    except OSError as error:
        raise SourceFailed(
            f"{target} cannot be written: {error.strerror}", hint="Make room, or mend the folder."
        ) from error
    finally:
        beside.unlink(missing_ok=True)


def _last_commit(content: bytes, facts: SegmentFacts) -> Sample | None:
    """Return that the log ended with this segment at its last commit: all that was committed by then lies in it."""
    step = min(SAMPLED_BYTES, facts.segment_bytes)
    start = facts.segment_bytes - step
    walk = Walk(facts.stretch.start + start, facts.segment_bytes, [content[start:]])
    times = [one.at for one in walk if one.kind in ENDS]
    return Sample(max(times), facts.stretch.end) if times else None
