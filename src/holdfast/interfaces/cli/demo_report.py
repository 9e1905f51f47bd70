"""Shows the demo: steps, what each did, a table at the end; or the same as JSON Lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from holdfast.interfaces.cli.output import clean, say, say_event
from holdfast.interfaces.cli.progress import Display, EventDisplay, PlainDisplay
from holdfast.model.documents import JsonObject
from holdfast.model.events import Progress

if TYPE_CHECKING:
    from holdfast.demo import DemoOutcome

VERB = "working"


class TextReport:
    """Prints for people. The progress of a step is gone before anything else is printed."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._moving = ExitStack()
        self._display: Display | None = None

    def step(self, title: str) -> None:
        """Print a title, with a line before it."""
        self.stop_moving()
        if not self._quiet:
            say(f"\n{clean(title)}")

    def line(self, text: str) -> None:
        """Print a line of the step."""
        self.stop_moving()
        if not self._quiet or text.startswith("NOT SO"):
            say(f"  {clean(text)}")

    def progress(self, progress: Progress) -> None:
        """Show how far the step is."""
        if self._quiet:
            return
        if self._display is None:
            self._display = self._new_display()
        self._display.progress("demo", progress)

    def table(self, _title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table with its figures to the right."""
        self.stop_moving()
        if self._quiet:
            return
        widths = [max(len(row[place]) for row in (columns, *rows)) for place in range(len(columns))]
        for row in (columns, *rows):
            cells = [row[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            say(f"  {'  '.join(cells)}".rstrip())

    def stop_moving(self) -> None:
        """Take the progress line away."""
        self._moving.close()
        self._display = None

    def _new_display(self) -> Display:
        if not sys.stderr.isatty():
            return PlainDisplay(VERB)
        from holdfast.interfaces.cli.progress_bars import bars

        return self._moving.enter_context(bars(VERB, []))


class EventReport:
    """Prints JSON Lines."""

    def __init__(self) -> None:
        self._step = ""
        self._display = EventDisplay(VERB, time.monotonic)

    def step(self, title: str) -> None:
        """Print an event."""
        self._step = title
        say_event({"event": "step", "title": title})

    def line(self, text: str) -> None:
        """Print an event."""
        say_event({"event": "line", "step": self._step, "text": text})

    def progress(self, progress: Progress) -> None:
        """Print an event now and then."""
        self._display.progress("demo", progress)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print an event."""
        say_event({"event": "table", "title": title, "columns": list(columns), "rows": [list(row) for row in rows]})

    def end(self, outcome: JsonObject) -> None:
        """Print the last event."""
        say_event(outcome)


@contextmanager
def showing_demo(*, quiet: bool) -> Iterator[TextReport]:
    """Give a report that prints; no progress line stays behind, whatever happens."""
    report = TextReport(quiet=quiet)
    try:
        yield report
    finally:
        report.stop_moving()


def told_outcome(outcome: DemoOutcome) -> JsonObject:
    """Return the last event of ``demo --json``."""
    return {
        "event": "demo",
        "postgres_version": outcome.postgres_version,
        "measured": [
            {
                "step": row.step,
                "seconds": round(row.seconds, 3),
                "size_bytes": row.size_bytes,
                "stored_bytes": row.stored_bytes,
            }
            for row in outcome.measured
        ],
        "proofs": [{"text": proof.text, "holds": proof.holds} for proof in outcome.proofs],
        "transactions": outcome.transactions,
        "retries": outcome.retries,
        "duration_seconds": round(outcome.seconds, 3),
        "folder": str(outcome.folder) if outcome.folder is not None else None,
    }
