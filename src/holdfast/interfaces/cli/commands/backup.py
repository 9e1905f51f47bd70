"""``holdfast backup``: takes backups, all sources side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.interfaces.cli.call import Call, Section, command
from holdfast.interfaces.cli.completion import Sources
from holdfast.interfaces.cli.failures import PARTLY, PartlyDone, tell_error
from holdfast.interfaces.cli.output import clean, say, say_event, tell
from holdfast.interfaces.cli.progress import watching
from holdfast.interfaces.cli.shown import seconds_text, size_text
from holdfast.interfaces.cli.stopping import INTERRUPTED
from holdfast.model.errors import ConfigInvalid
from holdfast.sources.port import Tier

if TYPE_CHECKING:
    from holdfast.application.results import BackupOutcome
    from holdfast.config.settings import Config

KINDS_WITHOUT_SNAPSHOT = ("postgres",)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "backup", Section.PROTECT)(backup)


def backup(
    call: Call,
    source: Sources = None,
    tier: Annotated[
        Tier,
        typer.Option("--tier", help="full reads and compares everything; incremental looks at the last one first."),
    ] = Tier.INCREMENTAL,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for another backup of the source to end.")] = False,
) -> int:
    """Back up sources, all of them when none is named.

    A full and an incremental backup each restore alone; both store only what the repository does not hold yet.
    """
    from holdfast.application.application import Application

    config = call.config()
    names = source or [known.name for known in config.sources]
    _refuse_tier(config, names, tier)
    with watching(call, "backing up", names, polled=True) as watcher:
        outcomes = Application(config, watcher).backup(names, tier, wait)
    for outcome in outcomes:
        if call.json:
            from holdfast.interfaces.cli.views import outcome_view

            say_event(outcome_view(outcome))
        else:
            _show(call, outcome)
    return _conclude(call, outcomes)


def _refuse_tier(config: Config, names: Sequence[str], tier: Tier) -> None:
    if tier is not Tier.SNAPSHOT:
        return
    for name in names:
        kind = config.source(name).kind
        if kind in KINDS_WITHOUT_SNAPSHOT:
            raise ConfigInvalid(
                f"source {name} is of kind {kind}, which has no snapshots", hint="Use --tier full or incremental."
            )


def _show(call: Call, outcome: BackupOutcome) -> None:
    taken = outcome.summary
    if taken is None:
        return
    if not call.quiet:
        took = seconds_text(outcome.duration_seconds)
        sizes = f"{size_text(taken.size_bytes)}, of which {size_text(taken.stored_bytes)} new in the repository"
        say(f"{taken.source}: backup {taken.id} ({taken.tier}), {sizes}, in {took}")
        for notice in outcome.notices:
            tell(clean(f"notice: {taken.source}: {notice}"))
    if taken.damaged:
        tell(
            f"damaged: {taken.source}: {taken.damaged} places of the source itself are broken; the backup holds them so"
        )
        for path, count, detail in outcome.damage:
            tell(clean(f"  {path}: {count}: {detail}"))


def _conclude(call: Call, outcomes: Sequence[BackupOutcome]) -> int:
    """Tell the errors, and return the exit code that sums the sources up."""
    failed = [(outcome.source, outcome.error) for outcome in outcomes if outcome.error is not None]
    damaged = [outcome.source for outcome in outcomes if outcome.damage]
    if not call.json:
        for name, error in failed:
            tell_error(error, as_json=False, about=name)
    if not failed and not damaged:
        return 0
    first = failed[0][1] if failed else None
    stopped = next((error for _, error in failed if error.exit_code == INTERRUPTED), None)
    if first is not None and len(failed) == len(outcomes):
        first = stopped or first
    elif stopped is not None:
        first = stopped
    else:
        first = _partly([name for name, _ in failed], damaged)
    if call.json:
        tell_error(first, as_json=True)
    elif damaged and not failed:
        tell_error(first, as_json=False)
    return first.exit_code


def _partly(failed: Sequence[str], damaged: Sequence[str]) -> PartlyDone:
    parts = [f"no backup of {', '.join(failed)}"] if failed else []
    parts += [f"a damaged backup of {', '.join(damaged)}"] if damaged else []
    hint = "Back up the others once what kept them is mended." if failed else ""
    if damaged:
        hint = "Look at the server's disks and logs, and at its last sound backup (pg_amcheck tells more)."
    error = PartlyDone(f"partly done: {' and '.join(parts)}", hint=hint)
    assert error.exit_code == PARTLY
    return error
