"""The progress line on a terminal: percent, bytes, rate and time left, one line for each source."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

from holdfast.model.events import Progress


class BarsDisplay:
    """Moves one bar for each source."""

    def __init__(self, bars: Bars, verb: str) -> None:
        self._bars = bars
        self._verb = verb
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def begin(self, subject: str) -> TaskID:
        """Show a source from its first moment on, before any size is known."""
        with self._lock:
            if subject not in self._tasks:
                self._tasks[subject] = self._bars.add_task(f"{subject}: {self._verb}", total=None)
            return self._tasks[subject]

    def progress(self, subject: str, progress: Progress) -> None:
        """Move the bar."""
        # An expected size is an estimate: the bar ends where the bytes do.
        total = max(progress.expected_bytes, progress.done_bytes) if progress.expected_bytes else None
        self._bars.update(self.begin(subject), completed=progress.done_bytes, total=total)

    def line(self, text: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(Text(text))


@contextmanager
def bars(verb: str, subjects: Sequence[str]) -> Iterator[BarsDisplay]:
    """Show bars on standard error while the block runs; they are gone afterwards."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TaskProgressColumn(show_speed=False),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True, expand=True, redirect_stdout=False) as shown:
        display = BarsDisplay(shown, verb)
        for subject in subjects:
            display.begin(subject)
        yield display
