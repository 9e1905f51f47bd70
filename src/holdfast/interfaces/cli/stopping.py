"""The operator's wish to stop: the first signal asks, the second one ends at once."""

from __future__ import annotations

import os
import signal
import sys
from threading import Event
from types import FrameType

INTERRUPTED = 130
_ASKED = b"\nstopping after what cannot be left half done; once more to end at once\n"
_SHOW_CURSOR = b"\x1b[?25h"


class StopRequest:
    """Whether somebody asked to stop. ``polled`` says that the command looks, and need not be broken off."""

    def __init__(self) -> None:
        self._event = Event()
        self.polled = False

    def requested(self) -> bool:
        """Whether a signal came."""
        return self._event.is_set()

    def listen(self) -> None:
        """Take SIGINT and SIGTERM from now on; call from the main thread."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._event.is_set():
            # Nothing is tidied up, by wish: whatever was put so far is found again by the next run.
            if sys.stderr.isatty():
                os.write(2, _SHOW_CURSOR)
            os._exit(INTERRUPTED)
        self._event.set()
        if not self.polled:
            raise KeyboardInterrupt
        if sys.stderr.isatty():
            os.write(2, _ASKED)
