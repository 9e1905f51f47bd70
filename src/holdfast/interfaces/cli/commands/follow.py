"""``holdfast follow``: follows the change logs in the foreground."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.interfaces.cli.call import Call, Section, command
from holdfast.interfaces.cli.completion import Sources, complete_repository
from holdfast.interfaces.cli.failures import PartlyDone, tell_error
from holdfast.interfaces.cli.output import say, say_event
from holdfast.interfaces.cli.progress import watching
from holdfast.interfaces.cli.shown import size_text

ALL = "all"


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "follow", Section.PROTECT)(follow)


def follow(
    call: Call,
    source: Sources = None,
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            metavar="REPOSITORY",
            help="Store in this repository; may be given more than once. [the first]",
            autocompletion=complete_repository,
        ),
    ] = None,
    acknowledge: Annotated[
        str, typer.Option("--acknowledge", metavar="all|first", help="Of several repositories, which must have stored.")
    ] = ALL,
    no_base: Annotated[bool, typer.Option("--no-base", help="Take no first base backup where there is none.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for another follower of the source to end.")] = False,
) -> int:
    """Follow the change logs of sources until stopped.

    What the server writes is stored as it comes; any second since the last base backup can then be reached.
    """
    from holdfast.application.following import Following, FollowOrder, names_to_follow
    from holdfast.backup.following import Acknowledge
    from holdfast.model.errors import ConfigInvalid

    config = call.config()
    names = names_to_follow(config, source or [])
    if acknowledge not in list(Acknowledge):
        raise ConfigInvalid(f"--acknowledge {acknowledge} is unknown", hint="It is `all` or `first`.")
    for name in to or []:
        config.repository(name)
    order = FollowOrder(tuple(names), tuple(to or ()), Acknowledge(acknowledge), not no_base, wait)
    with watching(call, "following", names, polled=True) as watcher:
        outcomes = Following(config, watcher, order).run()
    for outcome in outcomes:
        if call.json:
            say_event(
                {
                    "event": "followed",
                    "source": outcome.source,
                    "stored_bytes": outcome.stored_bytes,
                    "spans": outcome.spans,
                }
            )
        elif not call.quiet:
            say(f"{outcome.source}: stored {size_text(outcome.stored_bytes)} of log in {outcome.spans} pieces")
    errors = [(outcome.source, outcome.error) for outcome in outcomes if outcome.error is not None]
    if not errors:
        return 0
    for name, error in errors:
        if not call.json or len(errors) > 1:
            tell_error(error, as_json=call.json, about=name)
    if len(errors) < len(outcomes):
        failed = ", ".join(name for name, _ in errors)
        raise PartlyDone(f"following of {failed} ended by itself", hint="Mend what they say and follow them again.")
    if call.json and len(errors) == 1:
        tell_error(errors[0][1], as_json=True)
    return errors[0][1].exit_code
