"""The options of ``holdfast restore`` that name a moment, and how what they reach is shown."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.interfaces.cli.output import clean, say
from holdfast.interfaces.cli.shown import size_text, time_text
from holdfast.model.errors import ConfigInvalid
from holdfast.model.moments import format_moment, parse_moment

if TYPE_CHECKING:
    from holdfast.application.points import PointWish
    from holdfast.application.results import ReachedPoint
    from holdfast.config.settings import Config

AtOption = Annotated[
    str | None,
    typer.Option("--at", metavar="TIME", help="As it was then: ISO 8601 with a zone, -15m, 'yesterday 14:30', latest."),
]
MarkOption = Annotated[str | None, typer.Option("--mark", metavar="NAME", help="As it was at a mark.")]
LsnOption = Annotated[str | None, typer.Option("--lsn", metavar="LSN", help="With the log up to this position.")]
XidOption = Annotated[int | None, typer.Option("--xid", metavar="XID", help="Right after this transaction.", min=1)]
NameOption = Annotated[
    str | None, typer.Option("--name", metavar="RESTORE_POINT", help="At a restore point of PostgreSQL.")
]
LatestOption = Annotated[bool, typer.Option("--latest", help="The latest moment there is; the default.")]
TimelineOption = Annotated[
    str | None,
    typer.Option("--timeline", metavar="TIMELINE", help="latest (the default), current (the backup's), or a number."),
]


def point_wish(config: Config, options: Mapping[str, object]) -> PointWish:
    """Return what the options ask for; raises ``ConfigInvalid``."""
    from holdfast.application.points import PointWish

    at = options["at"]
    latest = bool(options["latest"])
    moment = parse_moment(str(at), now=datetime.now(UTC), zone=config.zone) if at is not None else None
    wish = PointWish(
        moment,
        options["mark"],  # type: ignore[arg-type]
        options["lsn"],  # type: ignore[arg-type]
        options["xid"],  # type: ignore[arg-type]
        options["name"],  # type: ignore[arg-type]
        options["timeline"],  # type: ignore[arg-type]
        is_default=not latest and all(value is None for key, value in options.items() if key != "latest"),
    )
    wish.refuse_contradictions()
    named = any(options[word] is not None for word in ("at", "mark", "lsn", "xid", "name"))
    if latest and named:
        raise ConfigInvalid("--latest and another moment contradict", hint="Give one of them.")
    return wish


def show_point(config: Config, point: ReachedPoint) -> None:
    """Print what a restore to a point reaches."""
    asked = format_moment(point.at, config.zone) if point.at is not None else point.asked
    say(clean(f"  wanted      {asked}"))
    how = "after" if point.is_inclusive else "before"
    if point.log_bytes:
        stop = f"{how} the record at {point.position} of timeline {point.timeline}"
        say(clean(f"  replays     {size_text(point.log_bytes)} of the log, stops {stop}"))
    if point.transaction_at is not None:
        at = time_text(point.transaction_at, config.zone)
        micros = f"{point.transaction_at.microsecond:06d}"
        say(clean(f"  reaches     transaction {point.transaction_xid}, ended {at} (.{micros})"))
    for note in point.notes:
        say(clean(f"  note: {note}"))
