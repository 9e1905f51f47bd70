"""Points in time: which backup and how much of the stored log bring a source to the moment that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from holdfast.application.results import ReachedPoint
from holdfast.model.errors import ConfigInvalid
from holdfast.model.moments import Latest, Moment
from holdfast.repository.format.entry import Mark
from holdfast.repository.format.record import BackupRecord
from holdfast.sources.kinds import PHYSICAL, POSTGRES

if TYPE_CHECKING:
    from holdfast.sources.port import LogContent
    from holdfast.sources.postgres.locate import Base, Point, Target

TIMELINES = ("latest", "current")


@dataclass(frozen=True, slots=True)
class PointWish:
    """A moment as it is asked for: one of its fields. ``timeline`` is latest, current or a number.

    ``is_default`` says that nothing was asked for: the latest reachable moment, or the latest backup where no log is.
    """

    at: Moment | None = None
    mark: str | None = None
    lsn: str | None = None
    xid: int | None = None
    name: str | None = None
    timeline: str | None = None
    is_default: bool = False

    def refuse_contradictions(self) -> None:
        """Raise ``ConfigInvalid`` where more than one moment is named, or something that cannot be."""
        named = [
            word
            for word, value in (
                ("--at", self.at),
                ("--mark", self.mark),
                ("--lsn", self.lsn),
                ("--xid", self.xid),
                ("--name", self.name),
            )
            if value is not None
        ]
        if len(named) > 1:
            raise ConfigInvalid(f"{' and '.join(named)} name two moments", hint="Give one of them.")
        timeline = self.timeline
        if timeline is not None and timeline not in TIMELINES and not (timeline.isascii() and timeline.isdigit()):
            raise ConfigInvalid(
                f"--timeline {timeline} is none", hint="It is latest, current or a number (decimal, as 3 for 00000003)."
            )


LATEST_POINT = PointWish(is_default=True)


@dataclass(frozen=True, slots=True)
class ChosenPoint:
    """The backup to start from, and what is reached from it."""

    record: BackupRecord
    reached: ReachedPoint


def choose_point(
    records: Sequence[BackupRecord], marks: Sequence[Mark], log: LogContent, wish: PointWish
) -> ChosenPoint | None:
    """Choose for one source; None where nothing was asked for and there is no log: then the latest backup serves.

    ``records`` are its live backups in order. Raises ``ConfigInvalid`` where the moment cannot be reached.
    """
    wish.refuse_contradictions()
    physical = [record for record in records if record.form == PHYSICAL.form]
    if wish.is_default and (not physical or not log.generations()):
        return None
    if records and all(record.kind != POSTGRES for record in records):
        raise ConfigInvalid(
            f"points in time of a source of kind {records[-1].kind} are not known to this release",
            hint="Restore a backup with --backup.",
        )
    from holdfast.sources.postgres.locate import locate

    bases = [base_of(record) for record in physical]
    target = locate(log, bases, _point(wish, marks))
    record = next(record for record in physical if record.id == target.backup)
    return ChosenPoint(record, _reached(target, wish))


def base_of(record: BackupRecord) -> Base:
    """Return a physical backup in the words of the log."""
    from holdfast.sources.postgres.details import BackupDetails, parse_lsn
    from holdfast.sources.postgres.locate import Base

    details = BackupDetails.from_document(record.details)
    return Base(
        record.id,
        details.system_identifier,
        details.stop_timeline,
        parse_lsn(details.start_lsn),
        parse_lsn(details.stop_lsn),
        record.ended_at,
    )


def _point(wish: PointWish, marks: Sequence[Mark]) -> Point:
    from holdfast.sources.postgres.details import parse_lsn
    from holdfast.sources.postgres.locate import Ask, Point

    timeline = wish.timeline or TIMELINES[0]
    if wish.mark is not None:
        mark = find_mark(marks, wish.mark)
        position = mark.position
        return Point(
            Ask.LSN,
            lsn=parse_lsn(str(position["lsn"])),
            timeline=wish.timeline or str(position["timeline"]),
            system=str(position["system_identifier"]),
        )
    if wish.lsn is not None:
        try:
            return Point(Ask.LSN, lsn=parse_lsn(wish.lsn), timeline=timeline)
        except ValueError as error:
            raise ConfigInvalid(f"--lsn {wish.lsn} is not a log position", hint="Write it as 16/B374D848.") from error
    if wish.xid is not None:
        return Point(Ask.XID, xid=wish.xid, timeline=timeline)
    if wish.name is not None:
        return Point(Ask.NAME, name=wish.name, timeline=timeline)
    if isinstance(wish.at, datetime):
        return Point(Ask.TIME, time=wish.at, timeline=timeline)
    return Point(Ask.LATEST, timeline=timeline)


def find_mark(marks: Sequence[Mark], name: str) -> Mark:
    """Return the mark of a name; raises ``ConfigInvalid``."""
    for mark in reversed(marks):
        if mark.name == name:
            return mark
    known = ", ".join(mark.name for mark in marks[-5:])
    raise ConfigInvalid(
        f"there is no mark {name}", hint=f"The latest marks are: {known}." if known else "`holdfast mark` makes one."
    )


def _asked(wish: PointWish) -> str:
    if wish.mark is not None:
        return f"mark {wish.mark}"
    if wish.lsn is not None:
        return f"position {wish.lsn}"
    if wish.xid is not None:
        return f"transaction {wish.xid}"
    if wish.name is not None:
        return f"restore point {wish.name}"
    if wish.at is None or isinstance(wish.at, Latest):
        return "the latest moment"
    return "a moment"


def _reached(target: Target, wish: PointWish) -> ReachedPoint:
    from holdfast.sources.postgres.details import format_lsn

    transaction = target.transaction
    return ReachedPoint(
        asked=_asked(wish),
        at=wish.at if isinstance(wish.at, datetime) else None,
        position=format_lsn(target.lsn),
        is_inclusive=target.inclusive,
        timeline=target.timeline,
        transaction_at=transaction.at if transaction is not None else None,
        transaction_xid=transaction.xid if transaction is not None else None,
        log_bytes=sum(leg.stretch.size_bytes for leg in target.legs),
        notes=target.notes,
        target=target,
    )
