"""``holdfast restore`` into a running server: shows the plan, asks, loads, and tells what the comparison found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.interfaces.cli.asking import ask
from holdfast.interfaces.cli.call import Call
from holdfast.interfaces.cli.commands.restore_points import show_point
from holdfast.interfaces.cli.failures import PartlyDone, tell_error
from holdfast.interfaces.cli.output import clean, say, say_event, tell
from holdfast.interfaces.cli.progress import watching
from holdfast.interfaces.cli.shown import seconds_text, size_text, time_text
from holdfast.model.documents import JsonObject, JsonValue
from holdfast.model.errors import ConfigInvalid

if TYPE_CHECKING:
    from holdfast.application.live import ServerPlace, ServerRestoreOutcome, ServerRestorePlan
    from holdfast.application.points import PointWish
    from holdfast.config.settings import Config

DIFFERENCES_TOLD_MAX = 20


@dataclass(frozen=True, slots=True)
class ServerWish:
    """What the command line asks for."""

    sources: Sequence[str]
    backup: str
    place: ServerPlace
    plan: bool
    yes: bool
    point: PointWish


def restore_into_server(call: Call, config: Config, wish: ServerWish, repository: str | None) -> int:
    """Restore one source into a server; return the exit code."""
    from holdfast.application.application import Application

    source = _source(config, wish)

    def agree(plan: ServerRestorePlan) -> bool:
        _show_plan(call, config, plan)
        if wish.plan:
            return False
        if wish.place.in_place and not wish.yes:
            _confirm(call, config, plan)
        return True

    with watching(call, "restoring", [source or config.application], polled=True) as watcher:
        outcome = Application(config, watcher, repository).restore_server(
            agree, source, wish.backup, wish.place, wish.point
        )
    if outcome is None:
        return 0
    _show_outcome(call, outcome)
    if not outcome.report.differences:
        return 0
    partly = PartlyDone(
        f"partly done: what was loaded into {outcome.report.database} differs from what the backup saw in "
        f"{len(outcome.report.differences)} points",
        hint="Look at each; `holdfast check --read-data` tells whether the repository is sound.",
    )
    tell_error(partly, as_json=call.json)
    return partly.exit_code


def _source(config: Config, wish: ServerWish) -> str | None:
    named = list(dict.fromkeys(wish.sources))
    if len(named) > 1:
        raise ConfigInvalid(
            f"a restore into a server is of one source, and {len(named)} are named", hint="Name one of them."
        )
    if named or wish.backup != "latest":
        return named[0] if named else None
    if len(config.sources) == 1:
        return config.sources[0].name
    raise ConfigInvalid(
        "which source goes into the server?", hint=f"Name one: {', '.join(known.name for known in config.sources)}."
    )


def _show_plan(call: Call, config: Config, plan: ServerRestorePlan) -> None:
    live, backup = plan.live, plan.backup
    if call.json:
        say_event(plan_document(plan))
        return
    if call.quiet:
        return
    say(clean(f"restore {plan.source} of {config.application}"))
    say(clean(f"  backup      {backup.id} ({backup.tier}, {backup.form})"))
    if plan.point is None:
        say(clean(f"  as it was   {time_text(backup.started_at, config.zone)}"))
    else:
        show_point(config, plan.point)
    part = live.selection or live.source_database
    say(clean(f"  part        {part}: {live.tables} tables, {size_text(live.size_bytes)}"))
    say(clean(f"  server      {plan.address}"))
    if live.into_table is not None:
        say(clean(f"  into        table {live.into_table} (new) of database {live.loaded_as}"))
    else:
        say(clean(f"  into        database {live.loaded_as} (new)"))
    if live.live is not None:
        say(clean(f"  then        swapped in as {live.live}; the one before is kept as {live.kept_as}"))
    for note in live.notes:
        say(clean(f"  note: {note}"))


def _confirm(call: Call, config: Config, plan: ServerRestorePlan) -> None:
    if not call.may_ask:
        raise ConfigInvalid(
            f"database {plan.live.live} would be replaced, and nobody is here to agree", hint="Add --yes to agree."
        )
    answer = ask(f"This replaces database {plan.live.live}. Type the application's name to go on")
    if answer != config.application:
        raise ConfigInvalid("that is not the application's name", hint="Nothing was changed.")


def _show_outcome(call: Call, outcome: ServerRestoreOutcome) -> None:
    report = outcome.report
    if call.json:
        say_event(outcome_document(outcome))
        return
    for difference in report.differences[:DIFFERENCES_TOLD_MAX]:
        tell(clean(f"different: {difference}"))
    if len(report.differences) > DIFFERENCES_TOLD_MAX:
        tell(f"different: {len(report.differences) - DIFFERENCES_TOLD_MAX} more")
    if call.quiet:
        return
    took = seconds_text(outcome.duration_seconds)
    table = f"table {report.into_table} of " if report.into_table is not None else ""
    place = f"{table}database {report.database} of {outcome.plan.address}"
    say(clean(f"{outcome.plan.source}: loaded into {place} in {took}"))
    equal = "equal by digest" if not report.differences else "compared by digest"
    counted = f", {report.tables_counted} tables by count and sample" if report.tables_counted else ""
    rest = f", {report.tables_not_compared} not compared" if report.tables_not_compared else ""
    say(f"  compared: {report.tables_compared} tables, {report.rows_compared} rows, {equal}{counted}{rest}")
    steps = ", ".join(f"{name} {seconds_text(seconds)}" for name, seconds in report.seconds)
    say(f"  steps: {steps}")
    for note in report.notes:
        say(clean(f"  note: {note}"))


def plan_document(plan: ServerRestorePlan) -> JsonObject:
    """Return what ``restore --json`` prints before it begins."""
    from holdfast.interfaces.cli.views import backup_view, point_view

    live = plan.live
    return {
        "event": "plan",
        "source": plan.source,
        "backup": backup_view(plan.backup),
        "point": point_view(plan.point),
        "target": plan.address,
        "database": live.loaded_as,
        "table": live.into_table,
        "replaces": live.live,
        "kept_as": live.kept_as,
        "only": str(live.selection) if live.selection else None,
        "tables": live.tables,
        "size_bytes": live.size_bytes,
        "notes": list[JsonValue](live.notes),
    }


def outcome_document(outcome: ServerRestoreOutcome) -> JsonObject:
    """Return the last line of ``restore --json`` into a server."""
    report = outcome.report
    return {
        "event": "restore",
        "source": outcome.plan.source,
        "id": outcome.plan.backup.id,
        "target": outcome.plan.address,
        "database": report.database,
        "table": report.into_table,
        "kept_as": report.kept_as,
        "tables_compared": report.tables_compared,
        "rows_compared": report.rows_compared,
        "tables_counted": report.tables_counted,
        "tables_not_compared": report.tables_not_compared,
        "differences": [str(difference) for difference in report.differences],
        "seconds": {name: round(seconds, 3) for name, seconds in report.seconds},
        "duration_seconds": round(outcome.duration_seconds, 3),
        "notes": list[JsonValue](report.notes),
        "error": None,
    }
