"""A descriptor that other threads make readable, so that one wait serves the server and the repository."""

from __future__ import annotations

import socket
from contextlib import suppress
from types import TracebackType
from typing import Self

_DRAIN_BYTES = 4096


class Wake:
    """Wakes a poll from any thread. Close it, or use it in a ``with`` block; a call after that does nothing."""

    def __init__(self) -> None:
        self._reading, self._writing = socket.socketpair()
        self._reading.setblocking(False)
        self._writing.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reading.close()
        self._writing.close()

    def __call__(self) -> None:
        """Wake whoever polls. A full socket wakes as well; a closed one has nobody to wake."""
        with suppress(OSError):
            self._writing.send(b"\0")

    def fileno(self) -> int:
        """Return what to poll for reading."""
        return self._reading.fileno()

    def drain(self) -> None:
        """Forget the calls so far."""
        with suppress(BlockingIOError):
            while self._reading.recv(_DRAIN_BYTES):
                continue
