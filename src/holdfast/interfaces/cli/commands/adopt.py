"""``holdfast adopt``: accepts that a source's server is another one from now on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.interfaces.cli.asking import ask
from holdfast.interfaces.cli.call import Call, Section, command
from holdfast.interfaces.cli.completion import complete_source
from holdfast.interfaces.cli.output import clean, say, say_event, tell
from holdfast.interfaces.cli.progress import looking
from holdfast.model.documents import JsonValue
from holdfast.model.errors import ConfigInvalid

if TYPE_CHECKING:
    from holdfast.application.marks import Adoption


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "adopt", Section.LOOK_AFTER)(adopt)


def adopt(
    call: Call,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The source's name.", autocompletion=complete_source)],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> int:
    """Accept a source's new server, as after pg_upgrade.

    Older backups stay restorable. The new server's log and backups begin beside the old ones: back it up next.
    """
    from holdfast.application.application import Application

    config = call.config()

    def agree(adoption: Adoption) -> bool:
        _show(call, adoption)
        if yes:
            return True
        if not call.may_ask:
            raise ConfigInvalid(
                f"source {source} would be another server from now on, and nobody is here to agree",
                hint="Add --yes to agree.",
            )
        answer = ask(f"Type the source's name ({source}) to accept it")
        if answer != source:
            raise ConfigInvalid("that is not the source's name", hint="Nothing was changed.")
        return True

    adoption = Application(config, looking(call)).adopt(source, agree)
    if call.json:
        say_event(
            {
                "event": "adopt",
                "source": source,
                "adopted": adoption.is_new,
                "before": dict[str, JsonValue](adoption.known) if adoption.known is not None else None,
                "identity": dict[str, JsonValue](adoption.found),
            }
        )
    elif not adoption.is_new:
        tell(clean(f"{source}: it is the server that its earlier backups are of; nothing to adopt"))
    elif not call.quiet:
        say(clean(f"{source}: adopted; back it up now: holdfast backup {source} --tier full"))
    return 0


def _show(call: Call, adoption: Adoption) -> None:
    if call.json:
        return
    known = dict(adoption.known) if adoption.known is not None else {}
    for name, value in adoption.found:
        before = known.get(name)
        change = f"{value}" if before in (None, value) else f"{before} becomes {value}"
        tell(clean(f"  {name.replace('_', ' ')}: {change}"))
