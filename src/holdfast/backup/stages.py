"""What the stages of a pipeline share: bounded queues that end when one stage fails, and the first error."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")
POLL_SECONDS = 0.2


class Stopped(Exception):
    """Another stage failed; whoever waits for it gives up."""


class Run:
    """The threads of one pipeline: the first error stops all, and is the one reported."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.failed = threading.Event()
        self.error: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        with self._lock:
            if self.error is None and not isinstance(error, Stopped):
                self.error = error
        self.failed.set()

    def check(self) -> None:
        """Raise the first error of any stage."""
        if self.failed.is_set():
            if self.error is not None:
                raise self.error
            raise Stopped

    def start(self, name: str, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the run
                self.fail(error)

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def join(self) -> None:
        """Wait for all stages to end. They end: every wait of theirs looks at ``failed``."""
        for thread in self._threads:
            thread.join()


class Channel(Generic[Item]):
    """A bounded queue whose both ends give up when the run fails."""

    def __init__(self, run: Run, size_max: int) -> None:
        self._run = run
        self._queue: queue.Queue[Item] = queue.Queue(size_max)

    def put(self, item: Item) -> None:
        while True:
            self._run.check()
            try:
                return self._queue.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue

    def get(self) -> Item:
        while True:
            self._run.check()
            try:
                return self._queue.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
