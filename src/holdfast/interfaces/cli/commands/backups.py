"""``holdfast backups``: lists the backups there are."""

from __future__ import annotations

from datetime import UTC, datetime

import typer

from holdfast.interfaces.cli.call import Call, Section, command
from holdfast.interfaces.cli.completion import RepositoryOption, Sources
from holdfast.interfaces.cli.output import say_json, say_table, tell
from holdfast.interfaces.cli.progress import looking
from holdfast.interfaces.cli.shown import age_text, size_text, time_text

SHORT_ID = 12


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "backups", Section.LOOK)(backups)


def backups(call: Call, source: Sources = None, repository: RepositoryOption = None) -> None:
    """List the backups there are.

    Shows id, tier, time, size, what each added to the repository, whether it is verified or held, when it expires.
    """
    from holdfast.application.application import Application

    config = call.config()
    found = Application(config, looking(call), repository).backups(source or ())
    if call.json:
        from holdfast.interfaces.cli.views import backup_view

        say_json([backup_view(backup) for backup in found])
        return
    if not found:
        tell("There are no backups yet: holdfast backup makes one.")
        return
    now = datetime.now(UTC)
    rows = [
        [
            backup.id if call.verbose else backup.id[:SHORT_ID],
            backup.source,
            backup.tier,
            time_text(backup.ended_at, config.zone),
            age_text(backup.ended_at, now),
            size_text(backup.size_bytes),
            size_text(backup.stored_bytes),
            "damaged" if backup.damaged else "verified" if backup.verified else "",
            "held" if backup.held else time_text(backup.expires_at, config.zone) if backup.expires_at else "never",
        ]
        for backup in found
    ]
    titles = ["id", "source", "tier", "ended", "age", "size", "new", "state", "expires"]
    styles = ["red" if backup.damaged else "" for backup in found]
    say_table(titles, rows, right=("size", "new"), styles=styles)
