"""What the demo tells while it runs; whoever shows it decides how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from holdfast.model.events import Progress


class Report(Protocol):
    """Takes what happens, in order. ``progress`` may come from any thread; the rest comes from the caller's."""

    def step(self, title: str) -> None:
        """Begin a step; the one before it is over."""
        ...

    def line(self, text: str) -> None:
        """Tell one line of the step that runs. One that begins with ``$`` is a command that would do the same."""
        ...

    def progress(self, progress: Progress) -> None:
        """Tell how far the step that runs is."""
        ...

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show rows below columns; all columns but the first are figures, or words in place of one."""
        ...
