"""psql processes that read tables side by side in one snapshot.

Each has locked every table before the first row is read. A process that locked a table only when its turn comes would
wait behind a session that waits for one of the others' locks (an ALTER TABLE), and both for ever.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from holdfast.model.errors import HoldfastError, Interrupted, SourceFailed
from holdfast.sources.postgres.logical.children import Child, ClientAccess
from holdfast.sources.postgres.logical.names import dotted
from holdfast.sources.postgres.logical.snapshot import Snapshot, TableMovedError
from holdfast.sources.postgres.logical.tools import ClientPrograms

_MOVED = re.compile(r"\b(55P03|42P01|3F000|40P01):")
"""A lock not to be had in time, a table or a schema that is gone, a deadlock: all mean to begin again."""
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Tools:
    """What children are run with."""

    programs: ClientPrograms
    access: ClientAccess
    stop_requested: Callable[[], bool]


class Reader:
    """One psql in the snapshot, that reads one table after the other. Used by one thread at a time."""

    def __init__(self, child: Child, snapshot: Snapshot) -> None:
        self._child = child
        self._end = b"holdfast-" + secrets.token_hex(16).encode()
        self._snapshot = snapshot
        child.send((snapshot.join_script() + self._mark()).encode("utf-8", "surrogateescape"))

    def _mark(self) -> str:
        return f"\\echo {self._end.decode()}\n"

    def await_locks(self) -> None:
        """Wait until it has joined. Raises ``TableMovedError`` where somebody stands before a table."""
        try:
            for _ in self._until_mark():
                continue
        except HoldfastError as error:
            if _MOVED.search(error.message):
                raise TableMovedError(error.message) from error
            raise

    def rows(self, statement: str, doing: str) -> Iterator[bytes]:
        """Run a COPY TO STDOUT and yield what it writes in blocks; raises unless it wrote all of it."""
        self._child.doing = doing
        self._child.send(f"{statement};\n{self._mark()}".encode("utf-8", "surrogateescape"))
        yield from self._until_mark()

    def close(self) -> None:
        """End it; raises where it does not end well."""
        self._child.doing = "ending the snapshot"
        self._child.give([b"COMMIT;\n"])
        for _ in self._child.take():
            continue
        self._child.finish()

    def _until_mark(self) -> Iterator[bytes]:
        """Yield what comes before the mark. It is unguessable, and psql writes nothing after it until it is asked."""
        mark = self._end + b"\n"
        held = b""
        for block in self._child.take():
            whole = held + block if held else block
            if whole.endswith(mark):
                if len(whole) > len(mark):
                    yield whole[: -len(mark)]
                return
            cut = len(whole) - _overlap(whole, mark)
            held = whole[cut:]
            if cut:
                yield whole[:cut] if held else whole
        self._child.finish()
        raise SourceFailed(f"{self._child.doing}: psql ended too early", hint="Run this again.")


def _overlap(block: bytes, mark: bytes) -> int:
    """Return how much of the end of ``block`` may be the beginning of ``mark``."""
    if block.endswith(b"\n"):
        return 0  # The usual end, of a row; a mark has its line end last.
    return next((size for size in range(min(len(mark) - 1, len(block)), 0, -1) if block.endswith(mark[:size])), 0)


@contextmanager
def open_readers(tools: Tools, snapshot: Snapshot, count: int) -> Iterator[tuple[Reader, ...]]:
    """Start readers and wait until each has its locks; at the end all are gone."""
    with ExitStack() as stack:
        arguments = [tools.programs.path("psql"), "-XqAt", "--no-password", "-v", "ON_ERROR_STOP=1"]
        arguments += ["-v", "VERBOSITY=verbose", "-v", "SHOW_CONTEXT=never"]
        arguments += ["-d", tools.access.address(snapshot.database), "-f", "-"]
        doing = f"joining the snapshot of database {snapshot.database}"
        readers = tuple(
            Reader(stack.enter_context(Child(arguments, tools.access, doing, tools.stop_requested)), snapshot)
            for _ in range(count)
        )
        for reader in readers:
            reader.await_locks()
        yield readers


@contextmanager
def reading(
    readers: Sequence[Reader],
    items: Sequence[_Item],
    read: Callable[[Reader, _Item], _Result],
    failed: threading.Event,
) -> Iterator[Callable[[], list[_Result]]]:
    """Read items on a thread for each reader; what is yielded waits for the results. At the end no thread is left.

    ``failed`` is set with the first failure, of a reader or of the body, and must stop all others. What failed of
    itself is raised, not what was stopped for it.
    """
    left = iter(items)
    lock = threading.Lock()

    def next_item() -> _Item | None:
        with lock:
            return None if failed.is_set() else next(left, None)

    def read_some(reader: Reader) -> list[_Result]:
        results = []
        try:
            while (item := next_item()) is not None:
                results.append(read(reader, item))
            if not failed.is_set():
                reader.close()
        except BaseException:
            failed.set()
            raise
        return results

    with ThreadPoolExecutor(max(1, len(readers)), thread_name_prefix="table") as pool:
        futures = [pool.submit(read_some, reader) for reader in readers]
        try:
            yield lambda: _results(futures)
        except BaseException as error:
            failed.set()
            cause = _cause(futures)
            if isinstance(error, Interrupted) and cause is not None:
                raise cause from error
            raise


def _results(futures: Sequence[Future[list[_Result]]]) -> list[_Result]:
    cause = _cause(futures)
    if cause is not None:
        raise cause
    return [result for future in futures for result in future.result()]


def _cause(futures: Sequence[Future[list[_Result]]]) -> BaseException | None:
    """Wait for all; return a failure, one that failed of itself before one that was stopped for it."""
    wait(futures)
    errors = [error for error in (future.exception() for future in futures) if error is not None]
    return min(errors, key=lambda error: isinstance(error, Interrupted), default=None)


def reading_table(schema: str, name: str) -> str:
    """Return the words for what is being done."""
    return f"reading table {dotted(schema, name)}"
