"""Writes pieces of a stored log into files of a restored folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress

from holdfast.model.errors import Interrupted
from holdfast.restore.files import write_failed
from holdfast.sources.port import LogContent, LogFile

FILES_AT_ONCE = 4
"""Each is read by a thread of its own, as the log fetches ahead on others."""
WRITTEN_BYTES_MAX = 16 << 20


def write_log(
    log: LogContent, files: Sequence[LogFile], tell: Callable[[int], None], stop_requested: Callable[[], bool]
) -> int:
    """Write every file, durably; return how many bytes the log gave. ``tell`` is told of each part of them.

    Raises ``OutOfSpace``, ``IntegrityBroken``, ``Interrupted``; the first error stops the others.
    """
    written = 0
    with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="holdfast-log") as pool:
        waiting: set[Future[int]] = set()
        pending = iter(files)
        try:
            while True:
                for file in pending:
                    waiting.add(pool.submit(_write, log, file, stop_requested))
                    if len(waiting) > FILES_AT_ONCE:
                        break
                if not waiting:
                    return written
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    size = future.result()
                    written += size
                    tell(size)
        finally:
            for future in waiting:
                future.cancel()
            for future in waiting:
                with suppress(Exception):  # only the first error is reported
                    future.result()


def _write(log: LogContent, file: LogFile, stop_requested: Callable[[], bool]) -> int:
    written = 0
    try:
        fd = os.open(file.path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, file.mode)
        try:
            if file.pieces[0][1].start == file.begins:
                os.ftruncate(fd, 0)
            for generation, stretch in file.pieces:
                at = stretch.start - file.begins
                for piece in log.read(generation, stretch):
                    _put(fd, piece, at)
                    at += len(piece)
                    written += len(piece)
                    if stop_requested():
                        raise Interrupted(
                            "the restore was interrupted", hint="The target is unfinished and will not start."
                        )
            os.ftruncate(fd, file.size_bytes)
            os.fchmod(fd, file.mode)
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise write_failed(file.path, error) from error
    return written


def _put(fd: int, piece: bytes, offset: int) -> None:
    rest = memoryview(piece)
    while rest:
        done = os.pwrite(fd, rest[:WRITTEN_BYTES_MAX], offset)
        rest = rest[done:]
        offset += done
