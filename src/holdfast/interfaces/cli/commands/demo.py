"""``holdfast demo``: a throwaway server backed up, damaged and brought back, with the proof."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from holdfast.interfaces.cli.call import Call, Section, command
from holdfast.interfaces.cli.output import clean, say, say_event, say_table
from holdfast.model.events import Progress


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "demo", Section.SET_UP)(demo)


def demo(
    call: Call,
    folder: Annotated[
        Path | None, typer.Option("--folder", metavar="FOLDER", help="Below which folder to do it. [a temporary one]")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything there afterwards, to look at.")] = False,
    scale: Annotated[int, typer.Option("--scale", metavar="N", help="pgbench's scale: 18 MB each.")] = 30,
) -> int | None:
    """See a throwaway server backed up, damaged and brought back."""
    from holdfast.demo import DemoOrder, run_demo

    order = DemoOrder(scale=scale, keep=keep, folder=folder, environment=call.environment)
    run_demo(order, _JsonReport() if call.json else _TextReport(quiet=call.quiet), call.stop.requested)
    return 0


class _TextReport:
    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def step(self, title: str) -> None:
        if not self._quiet:
            say(f"\n== {clean(title)}")

    def line(self, text: str) -> None:
        if not self._quiet:
            say(f"   {clean(text)}")

    def progress(self, progress: Progress) -> None:
        pass

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        say_table(columns, rows, right=columns[1:])


class _JsonReport:
    def step(self, title: str) -> None:
        say_event({"event": "step", "title": title})

    def line(self, text: str) -> None:
        say_event({"event": "line", "text": text})

    def progress(self, progress: Progress) -> None:
        say_event({"event": "progress", "done_bytes": progress.done_bytes})

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        say_event({"event": "table", "title": title, "columns": list(columns), "rows": [list(row) for row in rows]})
