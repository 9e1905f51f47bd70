"""A report of the demo that keeps what it was told, and can end the demo at a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from holdfast.model.events import Progress


@dataclass
class Told:
    """Everything in order. ``fail_at`` begins a step or line at which ``failure`` is raised."""

    fail_at: str | None = None
    failure: BaseException | None = None
    steps: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    tables: list[tuple[tuple[str, ...], list[tuple[str, ...]]]] = field(default_factory=list)
    progress_count: int = 0

    def step(self, title: str) -> None:
        self.steps.append(title)
        self._fail(title)

    def line(self, text: str) -> None:
        self.lines.append(text)
        self._fail(text)

    def progress(self, _progress: Progress) -> None:
        self.progress_count += 1

    def table(self, _title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.tables.append((tuple(columns), [tuple(row) for row in rows]))

    def _fail(self, text: str) -> None:
        if self.failure is not None and self.fail_at is not None and text.startswith(self.fail_at):
            failure, self.failure = self.failure, None
            raise failure
