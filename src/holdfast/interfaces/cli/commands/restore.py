"""``holdfast restore``: plans, shows the plan, carries it out."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.interfaces.cli.asking import ask
from holdfast.interfaces.cli.call import Call, Section, command
from holdfast.interfaces.cli.commands.restore_points import (
    AtOption,
    LatestOption,
    LsnOption,
    MarkOption,
    NameOption,
    TimelineOption,
    XidOption,
    point_wish,
    show_point,
)
from holdfast.interfaces.cli.commands.restore_server import ServerWish, restore_into_server
from holdfast.interfaces.cli.completion import RepositoryOption, Sources
from holdfast.interfaces.cli.failures import PartlyDone, error_view, tell_error
from holdfast.interfaces.cli.output import clean, say, say_event
from holdfast.interfaces.cli.progress import looking, watching
from holdfast.interfaces.cli.shown import age_text, seconds_text, size_text, time_text
from holdfast.interfaces.cli.views import plan_view, restored_view
from holdfast.model.errors import ConfigInvalid, HoldfastError, Interrupted

if TYPE_CHECKING:
    from holdfast.application.results import RestoreOutcome, RestorePlan
    from holdfast.config.settings import Config

LATEST = "latest"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_START = {"postgres": "pg_ctl -D {target} start"}
_OWNER = {"postgres": "postgres"}


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "restore", Section.BRING_BACK)(restore)


def restore(
    call: Call,
    source: Sources = None,
    backup: Annotated[
        str, typer.Option("--backup", metavar="ID", help="Which backup, as it was; its id may be shortened.")
    ] = LATEST,
    at: AtOption = None,
    mark: MarkOption = None,
    lsn: LsnOption = None,
    xid: XidOption = None,
    name: NameOption = None,
    latest: LatestOption = False,
    timeline: TimelineOption = None,
    into: Annotated[
        str | None,
        typer.Option("--into", metavar="TARGET", help="An empty or new folder, or postgresql://HOST/NEW_DATABASE."),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="PART", help="Into a server: database, database.schema or .schema.table."),
    ] = None,
    into_table: Annotated[
        str | None,
        typer.Option("--into-table", metavar="NAME", help="Put the rows of one table into a new one beside it."),
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Put it in the place of the live database; that one is kept beside.")
    ] = False,
    with_passwords: Annotated[
        bool, typer.Option("--with-passwords", help="Give the roles that it makes their passwords, too.")
    ] = False,
    tablespace: Annotated[
        list[str] | None,
        typer.Option("--tablespace", metavar="OLD=NEW", help="Where a tablespace goes. [beside the folder]"),
    ] = None,
    delta: Annotated[
        bool, typer.Option("--delta", help="Keep what the folder already holds right, rewrite and remove the rest.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Show what would be done, and stop.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before anything that is there is replaced.")] = False,
    repository: RepositoryOption = None,
) -> int:
    """Bring sources back to a moment, into folders or servers.

    Without names every source is restored, each into a folder of its own beside the live system. Without a moment it is
    the latest that the stored log reaches, or the latest backup where no log is stored. With --only,
    --in-place or a URL a database or a part of it is loaded into a server and compared with what it was.
    """
    from holdfast.application.application import Application
    from holdfast.application.live import ServerPlace

    config = call.config()
    options = {"at": at, "mark": mark, "lsn": lsn, "xid": xid, "name": name, "timeline": timeline, "latest": latest}
    point = point_wish(config, options)
    if only is not None or in_place or into_table is not None or (into is not None and _URL.match(into)):
        if delta or tablespace:
            raise ConfigInvalid(
                "--delta and --tablespace are for restores into folders", hint="Leave them out for a server."
            )
        wanted = ServerPlace(into, only, into_table, in_place, with_passwords)
        order = ServerWish(source or (), backup, wanted, plan, yes, point)
        return restore_into_server(call, config, order, repository)
    if with_passwords:
        raise ConfigInvalid(
            "--with-passwords is for restores into servers", hint="A folder holds every role as it was."
        )
    target = _folder(into)
    locations = [_location(text) for text in tablespace or ()]
    planner = Application(config, looking(call), repository)
    plans = [
        planner.plan_restore(each, backup, target, locations, delta, point)
        for each in _names(config, source or (), backup, several=target is None)
    ]
    place = config.repository(repository)
    for chosen in plans:
        _show_plan(call, config, chosen, f"{place.name} ({place.url})")
    if plan:
        return 0
    if delta and not yes:
        _confirm(call, config, plans)
    return _restore_all(call, config, plans, repository)


def _names(config: Config, sources: Sequence[str], backup: str, *, several: bool) -> list[str | None]:
    """Return the sources to plan for; None lets the backup's id say which."""
    named: list[str | None] = list(dict.fromkeys(sources))
    if not named and backup != LATEST:
        return [None]
    if not named:
        named = [known.name for known in config.sources]
    if not named:
        raise ConfigInvalid("no source is configured", hint="Add one below `sources:` in the configuration.")
    if len(named) > 1 and backup != LATEST:
        raise ConfigInvalid(f"backup {backup} is of one source, {len(named)} are named", hint="Name one source.")
    if len(named) > 1 and not several:
        raise ConfigInvalid(
            f"--into names one folder for {len(named)} sources: {', '.join(str(name) for name in named)}",
            hint="Name one source, or leave --into out: each then gets a folder of its own.",
        )
    return named


def _folder(into: str | None) -> Path | None:
    if into is None:
        return None
    if not into or _URL.match(into):
        raise ConfigInvalid(
            f"--into {into!r} is not a folder", hint="Name a folder that is empty or new; this release restores there."
        )
    return Path(into).expanduser()


def _location(text: str) -> tuple[str, Path]:
    old, equals, new = text.partition("=")
    if not equals or not old.startswith("/") or not new.startswith("/"):
        raise ConfigInvalid(
            f"--tablespace {text} is not OLD=NEW", hint="Write two absolute paths: --tablespace /old/place=/new/place."
        )
    return old, Path(new)


def _show_plan(call: Call, config: Config, plan: RestorePlan, place: str) -> None:
    if call.json:
        say_event(plan_view(plan, place))
        return
    if call.quiet:
        return
    backup = plan.backup
    ended = f"{time_text(backup.ended_at, config.zone)}, {age_text(backup.ended_at, datetime.now(UTC))}"
    say(clean(f"restore {plan.source} of {config.application}"))
    say(clean(f"  backup      {backup.id} ({backup.tier}, {backup.form}), {size_text(backup.size_bytes)}"))
    if plan.point is None:
        say(clean(f"  as it was   {ended}; position {backup.position}"))
    else:
        say(clean(f"  from then   {ended}; position {backup.position}"))
        show_point(config, plan.point)
    say(clean(f"  from        {place}"))
    say(clean(f"  into        {plan.target}"))
    for old, new in plan.places:
        say(clean(f"  tablespace  {old} into {new}"))
    if plan.delta:
        say("  delta       what differs there is rewritten, what does not belong there is removed")
    if backup.damaged:
        say(f"  damaged     the source itself held {backup.damaged} broken places; they come back as they were")


def _confirm(call: Call, config: Config, plans: Sequence[RestorePlan]) -> None:
    """Ask for the application's name where a folder that holds something would be rewritten."""
    places = [place for plan in plans for place in (plan.target, *(new for _, new in plan.places)) if _occupied(place)]
    if not places:
        return
    what = ", ".join(str(place) for place in places)
    if not call.may_ask:
        raise ConfigInvalid(
            f"{what} is not empty, and nobody is here to agree that it is rewritten",
            hint="Add --yes if it may be rewritten.",
        )
    answer = ask(f"This rewrites what is in {what}. Type the application's name to go on")
    if answer != config.application:
        raise ConfigInvalid("that is not the application's name", hint="Nothing was changed.")


def _occupied(place: Path) -> bool:
    try:
        return any(place.iterdir())
    except OSError:
        return False


def _restore_all(call: Call, config: Config, plans: Sequence[RestorePlan], repository: str | None) -> int:
    from holdfast.application.application import Application

    failed: list[tuple[str, HoldfastError]] = []
    for plan in plans:
        try:
            with watching(call, "restoring", [plan.source], polled=True) as watcher:
                outcome = Application(config, watcher, repository).restore(plan)
        except Interrupted:
            raise
        except HoldfastError as error:
            failed.append((plan.source, error))
            if call.json:
                say_event({"event": "restore", "source": plan.source, "error": error_view(error)})
            elif len(plans) > 1:
                tell_error(error, as_json=False, about=plan.source)
        else:
            _show_outcome(call, outcome)
    if not failed:
        return 0
    if len(failed) == len(plans):
        if call.json or len(plans) == 1:
            tell_error(failed[0][1], as_json=call.json)
        return failed[0][1].exit_code
    partly = PartlyDone(
        f"partly done: {', '.join(name for name, _ in failed)} not restored", hint="The others are restored in full."
    )
    tell_error(partly, as_json=call.json)
    return partly.exit_code


def _show_outcome(call: Call, outcome: RestoreOutcome) -> None:
    plan = outcome.plan
    start = _START.get(plan.backup.kind)
    start = start.format(target=plan.target) if start is not None else None
    notes = [*outcome.notes, *_owner_note(plan)]
    if call.json:
        say_event(restored_view(outcome, notes, start))
        return
    if call.quiet:
        return
    took = seconds_text(outcome.duration_seconds)
    kept = f", {size_text(outcome.kept_bytes)} of them right already" if plan.delta else ""
    removed = f", {outcome.removed} removed" if outcome.removed else ""
    size = size_text(outcome.size_bytes)
    say(clean(f"{plan.source}: restored {outcome.files} files, {size}{kept}{removed}, in {took} into {plan.target}"))
    if start is not None:
        say(clean(f"  start it: {start}"))
    for note in notes:
        say(clean(f"  note: {note}"))


def _owner_note(plan: RestorePlan) -> list[str]:
    """Say whom the folder must belong to, where it was restored by root, as whom no server runs."""
    owner = _OWNER.get(plan.backup.kind)
    if owner is None or os.geteuid() != 0:
        return []
    places = " ".join(str(place) for place in (plan.target, *(new for _, new in plan.places)))
    return [f"it belongs to root, and its server runs as another user: chown -R {owner}: {places}"]
