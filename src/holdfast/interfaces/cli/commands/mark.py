"""``holdfast mark``: remembers where every source is now, under a name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.interfaces.cli.call import Call, Section, command
from holdfast.interfaces.cli.completion import SourceOption
from holdfast.interfaces.cli.failures import PartlyDone, error_view, tell_error
from holdfast.interfaces.cli.output import clean, say, say_event, tell
from holdfast.interfaces.cli.progress import looking
from holdfast.interfaces.cli.shown import time_text
from holdfast.model.documents import JsonObject, format_time

if TYPE_CHECKING:
    from holdfast.application.marks import MarkOutcome


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "mark", Section.PROTECT)(mark)


def mark(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the moment, as before-deploy-42.")],
    source: SourceOption = None,
) -> int:
    """Remember where every source is now, under a name.

    `holdfast restore --mark NAME` comes back to it, once the log up to there is stored. Marks are never moved.
    """
    from holdfast.application.application import Application

    config = call.config()
    outcomes = Application(config, looking(call)).mark(name, source or ())
    for outcome in outcomes:
        if call.json:
            say_event(mark_view(outcome))
        elif outcome.error is None and not call.quiet:
            assert outcome.at is not None
            say(clean(f"{outcome.source}: mark {name} at {outcome.position}, {time_text(outcome.at, config.zone)}"))
            for notice in outcome.notices:
                tell(clean(f"notice: {outcome.source}: {notice}"))
    return _conclude(call, outcomes)


def _conclude(call: Call, outcomes: Sequence[MarkOutcome]) -> int:
    failed = [(outcome.source, outcome.error) for outcome in outcomes if outcome.error is not None]
    if not failed:
        return 0
    if not call.json:
        for name, error in failed:
            tell_error(error, as_json=False, about=name)
    if len(failed) == len(outcomes):
        first = failed[0][1]
        if call.json:
            tell_error(first, as_json=True)
        return first.exit_code
    partly = PartlyDone(
        f"partly done: no mark of {', '.join(name for name, _ in failed)}",
        hint="The others have theirs; mark all of them again under another name once what kept these is mended.",
    )
    tell_error(partly, as_json=call.json)
    return partly.exit_code


def mark_view(outcome: MarkOutcome) -> JsonObject:
    """Return a line of ``mark --json``."""
    return {
        "event": "mark",
        "source": outcome.source,
        "name": outcome.name,
        "at": format_time(outcome.at) if outcome.at is not None else None,
        "position": outcome.position,
        "restore_point": outcome.restore_point,
        "notices": list(outcome.notices),
        "error": error_view(outcome.error) if outcome.error is not None else None,
    }
