"""``holdfast demo``: a throwaway server backed up, damaged and brought back, with the proof."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holdfast.interfaces.cli.call import Call, Section, command

SCALE = 30


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "demo", Section.SET_UP)(demo)


def demo(
    call: Call,
    scale: Annotated[
        int, typer.Option("--scale", metavar="N", help="pgbench's scale; 30 makes a cluster of more than 500 MB.")
    ] = SCALE,
    folder: Annotated[
        Path | None, typer.Option("--folder", metavar="FOLDER", help="Where to play it. [a temporary folder]")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the files there afterwards, to look at.")] = False,
) -> None:
    """See a throwaway server backed up, damaged and brought back.

    Uses PostgreSQL's programs of this machine, touches no server that is there, and leaves none running.
    """
    from holdfast.demo import DemoOrder, run_demo
    from holdfast.interfaces.cli.demo_report import EventReport, showing_demo, told_outcome

    order = DemoOrder(scale, keep, folder.absolute() if folder is not None else None, environment=call.environment)
    # An interrupt is raised in here as well: the demo takes its servers down on the way out.
    if call.json:
        report = EventReport()
        report.end(told_outcome(run_demo(order, report, call.stop.requested)))
        return
    with showing_demo(quiet=call.quiet) as shown:
        run_demo(order, shown, call.stop.requested)
