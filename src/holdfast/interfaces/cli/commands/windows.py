"""``holdfast windows``: shows from when to when each source can be brought back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from holdfast.interfaces.cli.call import Call, Section, command
from holdfast.interfaces.cli.completion import RepositoryOption, Sources
from holdfast.interfaces.cli.output import clean, say, say_json, say_table
from holdfast.interfaces.cli.progress import looking
from holdfast.interfaces.cli.shown import seconds_text
from holdfast.model.documents import JsonObject, JsonValue, format_time
from holdfast.model.moments import format_moment

if TYPE_CHECKING:
    from holdfast.application.windows import SourceReach
    from holdfast.config.settings import Config
    from holdfast.model.windows import WindowGap

SKEW_SECONDS = 0.0
"""A source with a log lands exactly on the moment that is asked for."""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "windows", Section.LOOK)(windows)


def windows(call: Call, source: Sources = None, repository: RepositoryOption = None) -> None:
    """Show the recovery window of each source, and the common one.

    Every moment in a window can be restored with --at, save for the gaps, which are named. * is the whole application.
    """
    from holdfast.application.application import Application

    config = call.config()
    found = Application(config, looking(call), repository).windows(source or ())
    if call.json:
        say_json([window_view(one) for one in found])
        return
    rows = []
    for one in found:
        start, end = one.reach.start, one.reach.end
        if start is None or end is None:
            rows.append([one.source, "nothing can be reached", "", "", ""])
            continue
        length = seconds_text((end - start).total_seconds())
        gaps = str(len(one.reach.gaps)) if one.reach.gaps else "none"
        rows.append([one.source, format_moment(start, config.zone), format_moment(end, config.zone), length, gaps])
    say_table(["source", "from", "to", "long", "gaps"], rows, right=("long",))
    _say_gaps(config, found)


def _say_gaps(config: Config, found: list[SourceReach]) -> None:
    for one in found:
        for gap in one.reach.gaps:
            span = f"{format_moment(gap.start, config.zone)} to {format_moment(gap.end, config.zone)}"
            say(clean(f"gap of {one.source}: {span}: {gap.reason}{_positions(gap)}"))


def _positions(gap: WindowGap) -> str:
    return f" (positions {gap.stretch.start:X} to {gap.stretch.end:X})" if gap.stretch is not None else ""


def window_view(one: SourceReach) -> JsonObject:
    """Return a source's window as ``windows --json`` lists it."""
    start, end = one.reach.start, one.reach.end
    return {
        "source": one.source,
        "start": format_time(start) if start is not None else None,
        "end": format_time(end) if end is not None else None,
        "skew_seconds": SKEW_SECONDS,
        "gaps": [_gap_view(gap) for gap in one.reach.gaps],
        "windows": [
            {
                "start": format_time(window.start),
                "end": format_time(window.end),
                "backup": window.backup or None,
                "start_position": window.start_position,
                "end_position": window.end_position,
            }
            for window in one.reach.windows
        ],
    }


def _gap_view(gap: WindowGap) -> JsonValue:
    return {
        "start": format_time(gap.start),
        "end": format_time(gap.end),
        "reason": gap.reason,
        "start_position": gap.stretch.start if gap.stretch is not None else None,
        "end_position": gap.stretch.end if gap.stretch is not None else None,
    }
