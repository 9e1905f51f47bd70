"""``holdfast demo``: a throwaway server backed up, damaged and brought back, with the proof."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holdfast.interfaces.cli.call import Call, Section, command
from holdfast.interfaces.cli.output import say, say_event


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "demo", Section.SET_UP)(demo)


def demo(
    call: Call,
    folder: Annotated[
        Path | None, typer.Option("--folder", metavar="FOLDER", help="Where to do it. [a temporary folder]")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything there afterwards, to look at.")] = False,
) -> int | None:
    """See a throwaway server backed up, damaged and brought back."""
    from holdfast.demo import run_demo

    def report(text: str) -> None:
        if call.json:
            say_event({"event": "demo", "message": text})
        elif not call.quiet:
            say(text)

    return run_demo(folder, keep, report)
