"""Holds the log back on the server for the length of one session."""

from __future__ import annotations

from holdfast.model.errors import SourceFailed
from holdfast.sources.postgres.connection import Session
from holdfast.sources.postgres.details import parse_lsn


def reserve_log(session: Session, name: str) -> int:
    """Create a temporary slot and return the position from which the log is held back from now on.

    Must run before the base backup on the same connection, so that one WAL sender is enough; the server drops the
    slot when that connection ends, however it ends. Without it the log could be removed before it was sent.
    """
    session.query(f'CREATE_REPLICATION_SLOT "{name}" TEMPORARY PHYSICAL (RESERVE_WAL)')
    match session.query(f'READ_REPLICATION_SLOT "{name}"'):
        case [(_, str() as restart_lsn, *_)]:
            return parse_lsn(restart_lsn)
    raise SourceFailed(
        f"the server does not hold its log back for slot {name}",
        hint="Raise max_slot_wal_keep_size: it must exceed what is written during a backup.",
    )
