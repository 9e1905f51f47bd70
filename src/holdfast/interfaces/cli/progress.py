"""Shows long work while it goes on: a line that moves on a terminal, a plain line now and then, or JSON Lines."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from holdfast.interfaces.cli.output import clean, say_event, tell
from holdfast.interfaces.cli.shown import seconds_text, size_text
from holdfast.model.documents import JsonObject
from holdfast.model.errors import Interrupted
from holdfast.model.events import Progress

if TYPE_CHECKING:
    from holdfast.application.application import Watcher
    from holdfast.interfaces.cli.call import Call
    from holdfast.storage.settled import Retry

PLAIN_SECONDS = 10.0
"""Between two plain lines about one source; the first comes after ``PLAIN_SECONDS_FIRST``."""
PLAIN_SECONDS_FIRST = 2.0
EVENT_SECONDS = 1.0
RETRY_SECONDS = 2.0

Clock = Callable[[], float]


class Display(Protocol):
    """Where progress goes. All methods may be called from any thread."""

    def progress(self, subject: str, progress: Progress) -> None:
        """Show how far the work on a source is."""
        ...

    def line(self, text: str) -> None:
        """Show a line beside the progress."""
        ...


class Pace:
    """How fast one work goes, and when it will be done."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begun: tuple[float, int] | None = None

    def facts(self, progress: Progress) -> JsonObject:
        """Return percent, bytes per second and seconds left; None while unknown."""
        now = self._clock()
        if self._begun is None:
            self._begun = (now, progress.done_bytes)
        elapsed, done = now - self._begun[0], progress.done_bytes - self._begun[1]
        rate = done / elapsed if elapsed > 0 and done > 0 else None
        expected = max(progress.expected_bytes, progress.done_bytes) if progress.expected_bytes else 0
        left = (expected - progress.done_bytes) / rate if rate and expected else None
        return {
            "percent": round(100 * progress.done_bytes / expected, 1) if expected else None,
            "bytes_per_second": round(rate) if rate else None,
            "seconds_left": round(left, 1) if left is not None else None,
        }


class Turns:
    """Lets one thing through every so often, for each subject by itself."""

    def __init__(self, seconds: float, seconds_first: float, clock: Clock) -> None:
        self._seconds = seconds
        self._first = seconds_first
        self._clock = clock
        self._next: dict[str, float] = {}

    def is_due(self, subject: str) -> bool:
        """Whether it is this subject's turn; if so its next one is later."""
        now = self._clock()
        if now < self._next.setdefault(subject, now + self._first):
            return False
        self._next[subject] = now + self._seconds
        return True


class NoDisplay:
    """Shows nothing."""

    def progress(self, subject: str, progress: Progress) -> None:
        """Show nothing."""

    def line(self, text: str) -> None:
        """Show nothing."""


class PlainDisplay:
    """Writes a line now and then, for logs."""

    def __init__(self, verb: str, clock: Clock = time.monotonic) -> None:
        self._verb = verb
        self._clock = clock
        self._turns = Turns(PLAIN_SECONDS, PLAIN_SECONDS_FIRST, clock)
        self._paces: dict[str, Pace] = {}
        self._lock = threading.Lock()

    def progress(self, subject: str, progress: Progress) -> None:
        """Write where the work stands, if it is time."""
        with self._lock:
            facts = self._paces.setdefault(subject, Pace(self._clock)).facts(progress)
            if self._turns.is_due(subject):
                tell(f"{subject}: {self._verb}, {progress_text(progress, facts)}")

    def line(self, text: str) -> None:
        """Write the line."""
        tell(text)


class EventDisplay:
    """Writes JSON Lines to standard output."""

    def __init__(self, verb: str, clock: Clock = time.monotonic, seconds_first: float = 0.0) -> None:
        self._verb = verb
        self._clock = clock
        self._turns = Turns(EVENT_SECONDS, seconds_first, clock)
        self._paces: dict[str, Pace] = {}
        self._lock = threading.Lock()

    def progress(self, subject: str, progress: Progress) -> None:
        """Write an event, if it is time."""
        with self._lock:
            facts = self._paces.setdefault(subject, Pace(self._clock)).facts(progress)
            if self._turns.is_due(subject):
                event: JsonObject = {
                    "event": "progress",
                    "verb": self._verb,
                    "source": subject,
                    "done_bytes": progress.done_bytes,
                    "expected_bytes": progress.expected_bytes or None,
                    "stored_bytes": progress.stored_bytes,
                }
                say_event(event | facts)

    def line(self, text: str) -> None:
        """Write the line as an event."""
        with self._lock:
            say_event({"event": "notice", "message": text})


def progress_text(progress: Progress, facts: JsonObject) -> str:
    """Return ``45.0 %, 1.2 GiB of 2.7 GiB, 120 MiB/s, 13 s left`` as far as it is known."""
    percent, rate, left = facts["percent"], facts["bytes_per_second"], facts["seconds_left"]
    of_all = f" of {size_text(progress.expected_bytes)}" if progress.expected_bytes else ""
    parts = [f"{percent} %"] if percent is not None else []
    parts.append(f"{size_text(progress.done_bytes)}{of_all}")
    if isinstance(rate, int):
        parts.append(f"{size_text(rate)}/s")
    if isinstance(left, float):
        parts.append(f"{seconds_text(left)} left")
    return ", ".join(parts)


@contextmanager
def watching(call: Call, verb: str, subjects: Sequence[str], *, polled: bool = False) -> Iterator[Watcher]:
    """Show the work on ``subjects`` while the block runs. ``polled``: the work looks whether it shall stop."""
    from holdfast.application.application import Watcher

    call.stop.polled = polled
    # Backups and restores say at once that they have begun; a check is one line of JSON unless it takes its time.
    with _display(call, verb, subjects, seconds_first=0.0 if polled else EVENT_SECONDS) as display:
        retries = RetryLines(display, call.stop.requested, every=call.verbose)
        quiet = call.quiet and not call.json
        yield Watcher(
            on_progress=display.progress,
            on_retry=retries.on_retry,
            on_notice=(lambda text: None) if quiet else (lambda text: display.line(clean(f"notice: {text}"))),
            on_step=lambda step: display.line(clean(f"{verb}: {step}")),
            stop_requested=call.stop.requested,
        )
    call.stop.polled = False


@contextmanager
def _display(call: Call, verb: str, subjects: Sequence[str], *, seconds_first: float) -> Iterator[Display]:
    if call.json:
        yield EventDisplay(verb, seconds_first=seconds_first)
    elif call.quiet:
        yield NoDisplay()
    elif sys.stderr.isatty():
        from holdfast.interfaces.cli.progress_bars import bars

        with bars(verb, subjects) as display:
            yield display
    else:
        yield PlainDisplay(verb)


class RetryLines:
    """Tells of retries, one short line each, and not more than one in ``RETRY_SECONDS``."""

    def __init__(
        self, display: Display, stop_requested: Callable[[], bool], *, every: bool, clock: Clock = time.monotonic
    ) -> None:
        self._display = display
        self._stop_requested = stop_requested
        self._turns = Turns(0.0 if every else RETRY_SECONDS, 0.0, clock)
        self._untold = 0
        self._lock = threading.Lock()

    def on_retry(self, retry: Retry) -> None:
        """Tell of one retry; break it off where somebody asked to stop."""
        if self._stop_requested():
            raise Interrupted("stopped by the operator while the store did not answer", hint="Run the command again.")
        with self._lock:
            if not self._turns.is_due(""):
                self._untold += 1
                return
            more = f" ({self._untold} more meanwhile)" if self._untold else ""
            self._untold = 0
        self._display.line(
            clean(f"retry {retry.try_number} in {retry.wait_seconds:.1f} s: {retry.operation}: {retry.reason}{more}")
        )


def looking(call: Call) -> Watcher:
    """Return a watcher for commands that look: no progress, and retries said on standard error, not with --json."""
    from holdfast.application.application import Watcher

    display = NoDisplay() if call.json or call.quiet else PlainDisplay("")
    retries = RetryLines(display, call.stop.requested, every=call.verbose)
    return Watcher(on_retry=retries.on_retry, on_notice=lambda text: display.line(clean(f"notice: {text}")))
