"""What the operator should know about a copy before starting it, in sentences."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from holdfast.sources.postgres.details import BackupDetails, format_lsn
from holdfast.sources.postgres.locate import Target
from holdfast.sources.postgres.refill_locations import PlacedTablespace

_UNLOGGED = re.compile(r"(base|pg_tblspc)/.*/\d+_init")


def backup_notes(
    details: BackupDetails, paths: Iterable[str], placed: Sequence[PlacedTablespace], target: Target | None = None
) -> tuple[str, ...]:
    """Return the facts of a backup that change how its copy is used."""
    where = "" if target is None else f" up to {format_lsn(target.end)}"
    notes = [
        f"start it with PostgreSQL {details.major} (pg_ctl start); it replays its own log{where} and goes on alone, "
        "on its own timeline; it takes writes once pg_is_in_recovery() is false, a moment after it takes connections",
        "archiving, streaming, synchronous standbys and subscriptions are off in postgresql.auto.conf",
    ]
    notes += [f"tablespace {space.oid} lies in {space.new}; {space.old} is not touched" for space in placed]
    unlogged = sum(1 for path in paths if _UNLOGGED.fullmatch(path))
    if unlogged:
        notes.append(f"unlogged tables are empty after a restore ({unlogged} unlogged relations with their indexes)")
    if details.collations:
        known = ", ".join(sorted({f"{provider} {version}" for provider, version in details.collations}))
        notes.append(f"indexes on text were sorted by {known}; with other versions run pg_amcheck and REINDEX")
    if details.in_recovery:
        notes.append("the backup was taken from a standby; the copy is a primary")
    return tuple(notes)
