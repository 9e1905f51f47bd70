"""``holdfast runs``: what was done, when, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo
from typing import Annotated

import typer

from holdfast.interfaces.cli.call import Call, Section, command
from holdfast.interfaces.cli.completion import RepositoryOption, SourceOption
from holdfast.interfaces.cli.output import clean, say, say_json, say_table, tell
from holdfast.interfaces.cli.progress import looking
from holdfast.interfaces.cli.shown import seconds_text, size_text, time_text
from holdfast.model.documents import JsonObject, parse_time
from holdfast.model.errors import ConfigInvalid

LATEST = "latest"
SHORT_ID = 12


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "runs", Section.LOOK)(runs)


def runs(
    call: Call,
    run: Annotated[str | None, typer.Argument(metavar="ID", help="One run in full: its id, or latest.")] = None,
    source: SourceOption = None,
    repository: RepositoryOption = None,
) -> None:
    """List past runs, or show one in full."""
    from holdfast.application.application import Application

    config = call.config()
    found = Application(config, looking(call), repository).runs(source or ())
    if run is not None:
        chosen = _chosen(found, run)
        if call.json:
            say_json(chosen)
        else:
            _show_one(chosen, config.zone)
    elif call.json:
        say_json(list(found))
    elif found:
        _show_all(found, config.zone, full=call.verbose)
    else:
        tell("Nothing was run yet.")


def _chosen(found: Sequence[JsonObject], run: str) -> JsonObject:
    matching = list(found[-1:]) if run == LATEST else [known for known in found if str(known["id"]).startswith(run)]
    if not run or not matching:
        raise ConfigInvalid(f"there is no run {run}", hint="`holdfast runs` lists those there are.")
    if len(matching) > 1:
        raise ConfigInvalid(f"{run} is the beginning of {len(matching)} runs", hint="Give more of the id.")
    return matching[0]


def _show_all(found: Sequence[JsonObject], zone: tzinfo | None, *, full: bool) -> None:
    rows = []
    for run in found:
        begun, ended = parse_time(str(run["started_at"])), parse_time(str(run["ended_at"]))
        error = run.get("error")
        said = str(error.get("message", "")) if isinstance(error, dict) else ""
        rows.append(
            [
                str(run["id"]) if full else str(run["id"])[:SHORT_ID],
                str(run["source"]),
                f"{run['verb']} {run.get('tier') or ''}".strip(),
                time_text(begun, zone),
                seconds_text((ended - begun).total_seconds()),
                str(run["outcome"]),
                _stored(run),
                said,
            ]
        )
    styles = ["red" if run["outcome"] == "failed" else "" for run in found]
    titles = ["id", "source", "run", "started", "took", "outcome", "new", "error"]
    say_table(titles, rows, right=("took", "new"), styles=styles)


def _stored(run: JsonObject) -> str:
    figures = run.get("figures")
    stored = figures.get("stored_bytes") if isinstance(figures, dict) else None
    return size_text(stored) if isinstance(stored, int) else ""


def _show_one(run: JsonObject, zone: tzinfo | None) -> None:
    for key, value in run.items():
        if key in {"figures", "messages", "error"}:
            continue
        text = time_text(parse_time(str(value)), zone) if key.endswith("_at") else str(value)
        say(clean(f"{key:<12} {text}"))
    figures = run.get("figures")
    if isinstance(figures, dict):
        for key, value in figures.items():
            say(clean(f"{key:<12} {value}"))
    messages = run.get("messages")
    for message in messages if isinstance(messages, list) else []:
        say(clean(f"notice: {message}"))
    error = run.get("error")
    if isinstance(error, dict):
        say(clean(f"error: {error.get('message', '')}"))
        if error.get("hint"):
            say(clean(f"hint: {error['hint']}"))
