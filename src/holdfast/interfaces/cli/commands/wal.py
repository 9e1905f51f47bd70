"""``holdfast wal``: push and fetch, for archive_command and restore_command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holdfast.interfaces.cli.call import Call, Section, command
from holdfast.interfaces.cli.completion import RepositoryOption, complete_source
from holdfast.interfaces.cli.groups import new_group

Source = Annotated[
    str | None,
    typer.Option("--source", metavar="SOURCE", help="Whose log it is. [the only one]", autocompletion=complete_source),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = new_group("Push and fetch files of the log of PostgreSQL.")
    command(group, "push")(push)
    command(group, "fetch")(fetch)
    app.add_typer(group, name="wal", rich_help_panel=Section.PROTECT)


def push(
    call: Call,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file, as %p is in archive_command.")],
    source: Source = None,
    repository: RepositoryOption = None,
) -> int:
    """Store a file of the log, for archive_command.

    archive_command = 'holdfast wal push %p'

    0 only once it is durable. The same file again is fine; one that differs from what is stored is refused.
    """
    # `holdfast.__main__` takes this command before it comes here, because it has to be quick; this is for the help,
    # and for what is wrong with a command line.
    from holdfast.interfaces.cli.wal_push import PushWish, push_slowly

    return push_slowly(PushWish(path, call.config_path, source, repository), call.stop, call.json, call.verbose)


def fetch(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which file, as %f is in restore_command.")],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Where to, as %p is.")],
    source: Source = None,
    repository: RepositoryOption = None,
) -> int:
    """Bring back a file of the log, for restore_command.

    restore_command = 'holdfast wal fetch %f %p'

    0: it is complete; 1: it certainly is not stored; 255: anything else, so that an outage is not the end of the log.
    """
    # `holdfast.__main__` takes this command before it comes here, because it has to be quick; this is for the help.
    from holdfast.interfaces.cli.wal_fetch import fetch_slowly

    return fetch_slowly(name, path, call.config_path, source, repository)
