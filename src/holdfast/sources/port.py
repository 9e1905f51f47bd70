"""The contract every kind of source keeps: it yields and takes named streams, and never sees a repository."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from holdfast.model.documents import JsonObject
from holdfast.model.logs import Generation, Sample, Stretch

Data = bytes | bytearray | memoryview
Inspect = Callable[[memoryview, int], None]
"""Looks at one piece of a stream and its offset in it; called from worker threads, in any order, must not keep it."""

SINK_STREAMS_MAX = 4
"""How many streams a capture may have open at once."""

BESIDE_PREFIX = "@"
"""Paths that begin so lie beside the data (settings of the server), and are not put into a restored folder."""


class EntryType(StrEnum):
    FILE = "file"
    FOLDER = "folder"
    LINK = "link"


class Layout(StrEnum):
    """How a stream is cut into chunks: aligned pages of fixed size, or by content."""

    PAGES = "pages"
    CONTENT = "content"


@dataclass(frozen=True, slots=True)
class Entry:
    """One named thing of a backup. Bytes of a path that are not UTF-8 are carried by surrogateescape."""

    path: str
    type: EntryType = EntryType.FILE
    mode: int = 0o600
    modified_at: datetime | None = None
    link_target: str | None = None
    layout: Layout = Layout.CONTENT


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry as a backup holds it, with the size in bytes of its content."""

    entry: Entry
    size_bytes: int


class Stream(Protocol):
    """The content of one entry on its way into a backup."""

    def write(self, data: Data) -> None:
        """Take the next bytes (they are copied). Waits while the repository is slower; raises its first error."""
        ...

    def close(self) -> None:
        """End the content. A stream that is not closed yields no backup."""
        ...


class StreamSink(Protocol):
    """Where a capture puts its entries, in order.

    At most ``SINK_STREAMS_MAX`` streams are open at once, each used by one thread at a time; the order of entries is
    then that in which they are closed. ``drain`` comes when no stream is open.
    """

    def add(self, entry: Entry) -> None:
        """Take an entry without content: a folder or a link."""
        ...

    def open(self, entry: Entry, inspect: Inspect | None = None) -> Stream:
        """Begin the content of a file; ``inspect`` sees every piece of it, page-aligned for ``Layout.PAGES``."""
        ...

    def drain(self) -> None:
        """Wait until everything written so far was inspected and stored; raises the first error."""
        ...

    def expect(self, size_bytes: int) -> None:
        """Tell the size that is expected in all, for progress."""
        ...


class Content(Protocol):
    """What a backup holds, to be read again. Safe to use from several threads."""

    @property
    def entries(self) -> Sequence[StoredEntry]:
        """Every entry, in the order of the capture."""
        ...

    def open(self, index: int) -> Iterator[bytes]:
        """Yield the content of the file at ``index``, verified, in order and in pieces."""
        ...


class Tier(StrEnum):
    """A backup's place in the policy."""

    FULL = "full"
    INCREMENTAL = "incremental"
    SNAPSHOT = "snapshot"


class Severity(StrEnum):
    """How bad a finding is: fine, worth knowing, will hurt, stops the work."""

    OK = "ok"
    NOTICE = "notice"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of ``doctor``: what was looked at, what was found, and what to do about it."""

    topic: str
    severity: Severity
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which system a backup came from. Two that differ never mix; ``facts`` are compared for equality."""

    kind: str
    facts: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "facts", tuple(sorted(self.facts)))


@dataclass(frozen=True, slots=True)
class Probe:
    """What a source is and can do now. ``clock_offset_seconds`` is the server's clock minus ours."""

    identity: Identity | None
    version: str
    size_bytes: int | None
    clock_offset_seconds: float | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Damage:
    """Something the source itself holds broken: which entry, how many places, an example or the server's words."""

    path: str
    count: int
    detail: str


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """What is wanted of a capture. ``expected`` is the identity of the earlier backups, None for the first one."""

    tier: Tier
    expected: Identity | None = None
    stop_requested: Callable[[], bool] = lambda: False


@dataclass(frozen=True, slots=True)
class Captured:
    """What a capture proves about itself once every stream is closed.

    ``details`` is the kind's own document, handed back to ``plan_folder``; ``started_at``/``ended_at`` are by our
    clock; ``position`` is for people (an LSN range). Damage makes the backup a damaged one, never no backup.
    """

    identity: Identity
    position: str
    started_at: datetime
    ended_at: datetime
    details: JsonObject
    damage: tuple[Damage, ...] = ()
    notices: tuple[str, ...] = ()


class Source(Protocol):
    """One system to protect."""

    @property
    def kind(self) -> str:
        """The word for it: postgres, redis, search or bucket."""
        ...

    def probe(self) -> Probe:
        """Look, change nothing. Trouble is a finding with a hint; raises only where nothing at all can be said."""
        ...

    def capture(self, request: CaptureRequest, sink: StreamSink) -> Captured:
        """Yield every stream of a consistent backup.

        Raises ``SourceFailed``, ``Unavailable``, ``Denied``, ``Conflict`` (another identity) or ``Interrupted``;
        then there is no backup.
        """
        ...


@dataclass(frozen=True, slots=True)
class FolderTarget:
    """A folder to restore into. ``locations`` maps places outside it (tablespaces), old path to new."""

    folder: Path
    locations: tuple[tuple[str, Path], ...] = ()


@dataclass(frozen=True, slots=True)
class FileStep:
    """Write the content of the entry at ``index`` to ``path``; from ``zero_from`` on (if given) zeros instead."""

    index: int
    path: Path
    mode: int
    zero_from: int | None = None


@dataclass(frozen=True, slots=True)
class LogFile:
    """Write stretches of the log's generations into ``path``, whose first byte is that at position ``begins``.

    The file has ``size_bytes`` in the end: what no piece gives is what a ``FileStep`` for the same path wrote, or zero.
    """

    path: Path
    mode: int
    begins: int
    size_bytes: int
    pieces: tuple[tuple[str, Stretch], ...]


@dataclass(frozen=True, slots=True)
class FolderPlan:
    """How a backup becomes a folder, in order: folders, files, ``log``, generated files, links, fsync, then ``last``.

    ``roots`` must be absent or empty (or agreed to be rewritten). ``last`` files are written under a temporary name
    and renamed when all else is durable: what makes the folder usable. ``notes`` are told to the operator.
    """

    roots: tuple[Path, ...]
    folders: tuple[tuple[Path, int], ...]
    files: tuple[FileStep, ...]
    generated: tuple[tuple[Path, bytes, int], ...]
    links: tuple[tuple[Path, str], ...]
    last: tuple[FileStep, ...]
    notes: tuple[str, ...] = field(default=())
    log: tuple[LogFile, ...] = field(default=())


class FolderRefill(Protocol):
    """How a kind turns a backup into a folder that its server starts from."""

    def refuse_target(self, target: FolderTarget) -> None:
        """Raise ``Conflict`` or ``ConfigInvalid`` where this target must never be written to (a running server)."""
        ...

    def plan_folder(
        self, target: FolderTarget, details: JsonObject, entries: Sequence[StoredEntry], read: Callable[[int], bytes]
    ) -> FolderPlan:
        """Decide, purely, where everything goes; ``read`` gives the content of a small entry by its index."""
        ...


@dataclass(frozen=True, slots=True)
class LogEnd:
    """Where the stored log ends: the end of the last generation's last stretch, and the last bytes before it."""

    generation: Generation
    position: int
    tail: bytes


class LogSink(Protocol):
    """Where a follower puts the log that it reads. Used by one thread; storing happens on others."""

    def stored(self) -> LogEnd | None:
        """Return where the stored log ends, as a listing tells and nothing else; None where there is none."""
        ...

    def generations(self) -> Sequence[Generation]:
        """Return every generation that is stored, parents before children."""
        ...

    def begin(self, generation: Generation) -> None:
        """Store a generation, durably, and append to it from now on; the same again is fine.

        Raises ``Conflict`` where its id is taken by one that differs.
        """
        ...

    def append(self, position: int, data: Data) -> None:
        """Take bytes (they are copied). Beyond the end so far they leave a gap. Never waits; look at ``has_room``.

        Raises the first error of storing, and ``IntegrityBroken`` where bytes differ from stored ones.
        """
        ...

    def sample(self, sample: Sample) -> None:
        """Take that the server's log ended at a position at a moment; it counts once all before it is durable."""
        ...

    def tell_gap(self, reason: str) -> None:
        """Say why the bytes before the next ``append`` are missing."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether more may be appended now; the follower stops reading while it may not."""
        ...

    @property
    def durable(self) -> int:
        """The end of what is stored without a hole since ``begin``: nothing beyond it may be acknowledged."""
        ...

    def hurry(self, waiting: bool) -> None:
        """Say that commits wait for us: store at once what is there, not only when it is old or large enough."""
        ...

    def when_durable(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called, from any thread, whenever ``durable`` moved or storing failed."""
        ...

    def flush(self, seconds_max: float) -> bool:
        """Store all that was appended and wait for it; False where it took longer."""
        ...


class LogContent(Protocol):
    """The stored log, to be read again. Safe to use from several threads."""

    def generations(self) -> Sequence[Generation]:
        """Return every generation, parents before children."""
        ...

    def stretches(self, generation: str) -> Sequence[Stretch]:
        """Return what a generation itself holds, as few stretches, in order."""
        ...

    def read(self, generation: str, stretch: Stretch) -> Iterator[bytes]:
        """Yield the bytes of a stretch, verified, in order and in pieces. Raises ``IntegrityBroken`` at a hole."""
        ...

    def samples(self, generation: str, stretch: Stretch) -> Sequence[Sample]:
        """Return the samples with positions in a stretch, its end included, in order of time."""
        ...

    def samples_around(self, generation: str, at: datetime) -> tuple[Sample | None, Sample | None]:
        """Return the newest sample not after a moment and the oldest one after it, None where there is none."""
        ...


class FollowingSource(Source, Protocol):
    """A source whose change log can be followed."""

    def follow(self, sink: LogSink, stop_requested: Callable[[], bool], tell: Callable[[str], None]) -> None:
        """Follow until asked to stop: store what is there, acknowledge what is durable, end within 30 s.

        Connections that break are made again, with growing pauses, for ever; ``tell`` is told. Raises what no waiting
        mends: ``Conflict`` (another identity, a fork), ``Denied``, ``ConfigInvalid``.
        """
        ...
