"""``holdfast ls`` and ``holdfast cat``: look inside a backup."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from holdfast.interfaces.cli.call import Call, Section, command
from holdfast.interfaces.cli.completion import RepositoryOption, SourceOption
from holdfast.interfaces.cli.output import clean, say, say_json
from holdfast.interfaces.cli.progress import looking
from holdfast.interfaces.cli.shown import time_text
from holdfast.model.errors import ConfigInvalid

_MARKS = {"folder": "/", "link": "@"}


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "ls", Section.LOOK)(ls)
    command(app, "cat", Section.LOOK)(cat)


def ls(
    call: Call,
    place: Annotated[str, typer.Argument(metavar="BACKUP[:PATH]", help="A backup's id or latest; a path in it.")],
    source: SourceOption = None,
    repository: RepositoryOption = None,
) -> None:
    """List what a backup holds: mode, size, time, path."""
    from holdfast.application.application import Application

    backup, path = _split(place)
    config = call.config()
    summary, entries = Application(config, looking(call), repository).ls(backup, path, source or ())
    if call.json:
        from holdfast.interfaces.cli.views import backup_view, entry_view

        say_json({"backup": backup_view(summary), "entries": [entry_view(entry) for entry in entries]})
        return
    for entry in entries:
        name = clean(entry.path) + _MARKS.get(entry.type, "")
        if call.quiet:
            say(clean(entry.path))
            continue
        if entry.link is not None:
            name += f" -> {clean(entry.link)}"
        mode = f"{entry.mode:04o}" if entry.mode is not None else "-"
        modified = "-"
        if entry.modified_at is not None:
            modified = time_text(datetime.fromtimestamp(entry.modified_at, UTC), config.zone)
        say(f"{mode:>4} {entry.size_bytes:>13} {modified:<25} {name}")


def cat(
    call: Call,
    place: Annotated[str, typer.Argument(metavar="BACKUP:PATH", help="A backup's id or latest, and a file in it.")],
    source: SourceOption = None,
    repository: RepositoryOption = None,
) -> None:
    """Write one file of a backup to standard output."""
    from holdfast.application.application import Application

    backup, path = _split(place)
    if not path:
        raise ConfigInvalid(f"{place} names no file", hint=f"Write BACKUP:PATH; see `holdfast ls {backup}`.")
    out = sys.stdout.buffer
    for piece in Application(call.config(), looking(call), repository).cat(backup, path, source or ()):
        out.write(piece)
    out.flush()


def _split(place: str) -> tuple[str, str]:
    backup, _, path = place.partition(":")
    if not backup:
        raise ConfigInvalid(f"{place!r} names no backup", hint="Write BACKUP:PATH; `holdfast backups` lists backups.")
    return backup, path
