"""Writes the contents of many files at once: windows of chunks, read by pack in long ranges, written in place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from holdfast.model.errors import HoldfastError, Interrupted, OutOfSpace, SourceFailed
from holdfast.model.events import OnProgress, Progress
from holdfast.repository.area import Area
from holdfast.repository.format.lists import ContentRef
from holdfast.repository.reading import ChunkReader, PackRange, Wanted, plan_ranges, resolve

WINDOW_BYTES = 512 << 20
WINDOW_FILES_MAX = 400
RANGES_AHEAD_MAX = 6
WRITE_BYTES_MAX = 8 << 20
WRITE_PARTS_MAX = 512
EARLY_WRITEBACK_BYTES = 1 << 20
NO_SPACE = {28, 122}


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file to write: where, with what content, and from which byte on zeros stand instead."""

    path: Path
    mode: int
    ref: ContentRef
    zero_from: int | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """Figures of a restore in bytes: of the target in all, written, and found right already."""

    size_bytes: int
    written_bytes: int
    kept_bytes: int


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a chunk goes: the window's file and the offset in it."""

    file: int
    offset: int


class FileWriter:
    """Writes files from a repository. ``delta`` leaves chunks alone that the target holds already."""

    def __init__(
        self,
        reader: ChunkReader,
        area: Area,
        executor: Executor,
        on_progress: OnProgress,
        stop_requested: Callable[[], bool],
    ) -> None:
        self._reader = reader
        self._area = area
        self._executor = executor
        self._on_progress = on_progress
        self._stop_requested = stop_requested
        self._size = self._done = self._written = self._kept = 0
        self._flushes: list[Future[None]] = []

    def expect(self, size_bytes: int) -> None:
        """Say how much will be written beside the files, for progress."""
        self._size += size_bytes

    def tell(self, size_bytes: int) -> None:
        """Say that so much of what was expected is written."""
        self._tell(size_bytes)

    def write(self, files: Sequence[FileContent], *, delta: bool) -> Written:
        """Create or rewrite every file to its exact content and size; durable only after ``flush``.

        Raises ``OutOfSpace``, ``IntegrityBroken``, ``Interrupted``; then what is there is not to be used.
        """
        self._size += sum(file.ref.size for file in files)
        for window in _windows(files):
            self._write_window(window, delta=delta)
            # The disk writes a window down while the processor is at the next one.
            self._flushes += [self._executor.submit(_make_durable, file.path) for file in window]
        return Written(self._size, self._written, self._kept)

    def flush(self) -> None:
        """Wait until everything written is durable; raises what failed."""
        for flush in self._flushes:
            flush.result()
        self._flushes = []

    def _write_window(self, files: Sequence[FileContent], *, delta: bool) -> None:
        opened: list[int] = []
        try:
            for file in files:
                opened.append(_open(file, delta=delta))
            resolved = resolve(self._reader, [file.ref for file in files], self._executor)
            wanted: list[Wanted] = []
            places: list[_Place] = []
            for number, leaves in enumerate(resolved):
                offset = 0
                for leaf in leaves:
                    for ref in leaf:
                        wanted.append(Wanted(ref, len(places)))
                        places.append(_Place(number, offset))
                        offset += ref.length
            if delta:
                wanted = self._without_right_ones(wanted, places, opened)
            # A chunk that stands in many places is read once for each: zero pages compress to nothing.
            self._run(spread(plan_ranges(self._reader.locate(wanted))), places, opened)
            for fd, file in zip(opened, files, strict=True):
                _finish(fd, file)
        finally:
            for fd in opened:
                os.close(fd)

    def _without_right_ones(self, wanted: list[Wanted], places: list[_Place], opened: list[int]) -> list[Wanted]:
        def is_right(item: Wanted) -> bool:
            place = places[item.place]
            held = os.pread(opened[place.file], item.ref.length, place.offset)
            return len(held) == item.ref.length and self._area.keys.chunk_id(held, data=True) == item.ref.id

        right = list(self._executor.map(is_right, wanted, chunksize=1))
        kept = sum(item.ref.length for item, fine in zip(wanted, right, strict=True) if fine)
        self._kept += kept
        self._tell(kept)
        return [item for item, fine in zip(wanted, right, strict=True) if not fine]

    def _run(self, ranges: list[PackRange], places: list[_Place], opened: list[int]) -> None:
        """Read and write ranges on the executor, some ahead at a time; the first error stops the others."""
        waiting: set[Future[int]] = set()
        pending = iter(ranges)
        try:
            while True:
                for part in pending:
                    waiting.add(self._executor.submit(self._write_range, part, places, opened))
                    if len(waiting) >= RANGES_AHEAD_MAX:
                        break
                if not waiting:
                    return
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    written = future.result()
                    self._written += written
                    self._tell(written)
                if self._stop_requested():
                    raise Interrupted(
                        "the restore was interrupted", hint="The target is unfinished and will not start."
                    )
        finally:
            for future in waiting:
                future.cancel()
            for future in waiting:
                with suppress(Exception):  # only the first error is reported
                    future.result()

    def _write_range(self, part: PackRange, places: list[_Place], opened: list[int]) -> int:
        written = 0
        run: list[bytes] = []
        start = at = _Place(-1, 0)
        for wanted, plain in self._reader.read_range(part):
            place = places[wanted.place]
            full = at.offset - start.offset >= WRITE_BYTES_MAX or len(run) >= WRITE_PARTS_MAX
            if run and (place != at or full):
                written += _put(opened[start.file], run, start.offset)
                run = []
            if not run:
                start = place
            run.append(plain)
            at = _Place(place.file, place.offset + len(plain))
        if run:
            written += _put(opened[start.file], run, start.offset)
        return written

    def _tell(self, size: int) -> None:
        self._done += size
        self._on_progress(Progress(self._done, self._size))


def _windows(files: Sequence[FileContent]) -> Iterator[list[FileContent]]:
    """Cut the files into groups of bounded size and number; a file stands whole in one."""
    window: list[FileContent] = []
    size = 0
    for file in files:
        if window and (size + file.ref.size > WINDOW_BYTES or len(window) >= WINDOW_FILES_MAX):
            yield window
            window, size = [], 0
        window.append(file)
        size += file.ref.size
    if window:
        yield window


def spread(ranges: Sequence[PackRange]) -> list[PackRange]:
    """Return the ranges in an order in which neighbours are far apart.

    Those that lie side by side mostly belong to one file, and a file takes one write at a time.
    """
    part = -(-len(ranges) // RANGES_AHEAD_MAX)
    return [ranges[at] for start in range(part) for at in range(start, len(ranges), part)]


def _open(file: FileContent, *, delta: bool) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(file.path, flags if delta else flags | os.O_EXCL, file.mode)
    except OSError as error:
        raise write_failed(file.path, error) from error
    return fd


def _finish(fd: int, file: FileContent) -> None:
    try:
        os.fchmod(fd, file.mode)
        os.ftruncate(fd, file.ref.size)
        if file.zero_from is not None and file.zero_from < file.ref.size:
            # Cut and grown again: the file system gives zeros for what lies behind the cut.
            os.ftruncate(fd, file.zero_from)
            os.ftruncate(fd, file.ref.size)
    except OSError as error:
        raise write_failed(file.path, error) from error


def _put(fd: int, parts: list[bytes], offset: int) -> int:
    size = sum(len(part) for part in parts)
    try:
        done = os.pwritev(fd, parts, offset)
        if done < size:
            rest = memoryview(b"".join(parts))
            while done < size:
                done += os.pwrite(fd, rest[done:], offset + done)
        if size >= EARLY_WRITEBACK_BYTES and hasattr(os, "posix_fadvise"):
            # The disk is what a restore waits for: without this it would begin when half the work is done.
            os.posix_fadvise(fd, offset, size, os.POSIX_FADV_DONTNEED)
    except OSError as error:
        raise write_failed(Path(f"/proc/self/fd/{fd}"), error) from error
    return size


def write_failed(path: Path, error: OSError) -> HoldfastError:
    """Return what to raise for a file of the target that could not be written."""
    if error.errno in NO_SPACE:
        return OutOfSpace(
            f"no space left for the restore at {path}",
            hint="Make room or choose another --into, and run the restore again; the unfinished target does not start.",
        )
    return SourceFailed(
        f"cannot write {path}: {error.strerror}", hint="Check the owner and mode of the target folder, and the disk."
    )


def sync(paths: Sequence[Path], executor: Executor) -> None:
    """Make files and folders durable."""
    for _ in executor.map(_make_durable, paths):
        pass


def _make_durable(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        raise write_failed(path, error) from error
    finally:
        os.close(fd)
