"""What every chapter of the demo is given, and where it notes what it measured and proved."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.application.application import Watcher
from holdfast.demo.order import DemoOrder, Measured, Proof
from holdfast.demo.report import Report
from holdfast.model.errors import Interrupted
from holdfast.sandbox import PostgresPrograms
from holdfast.storage.settled import Retry


@dataclass(slots=True)
class Sizes:
    """What a chapter fills in while its time is taken."""

    size_bytes: int | None = None
    stored_bytes: int | None = None


@dataclass(slots=True)
class Stage:
    """The demo while it runs."""

    order: DemoOrder
    report: Report
    folder: Path
    programs: PostgresPrograms
    stop_requested: Callable[[], bool]
    measured: list[Measured] = field(default_factory=list)
    proofs: list[Proof] = field(default_factory=list)
    retries: list[Retry] = field(default_factory=list)
    transactions: int = 0
    begun: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How long the demo runs already."""
        return time.monotonic() - self.begun

    @property
    def watcher(self) -> Watcher:
        """Whom the verbs tell."""
        return Watcher(
            on_progress=lambda _, progress: self.report.progress(progress),
            on_retry=self.retries.append,
            stop_requested=self.stop_requested,
        )

    def begin(self, title: str) -> None:
        """Begin a chapter, or raise ``Interrupted`` where somebody asked to stop."""
        if self.stop_requested():
            raise Interrupted("the demo was stopped", hint="Nothing is left of it; run it again when you want.")
        self.report.step(title)

    @contextmanager
    def timed(self, step: str) -> Iterator[Sizes]:
        """Note how long the block took, and the sizes that it fills in."""
        sizes, begun = Sizes(), time.monotonic()
        yield sizes
        self.measured.append(Measured(step, time.monotonic() - begun, sizes.size_bytes, sizes.stored_bytes))

    def prove(self, text: str, *, holds: bool) -> None:
        """Note one thing that was shown, and tell it."""
        self.proofs.append(Proof(text, holds))
        self.report.line(("proved: " if holds else "NOT SO: ") + text)
