"""The physical slot that holds the log back for us: made, looked at, made again when it was lost."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from holdfast.model.errors import SourceFailed
from holdfast.sources.postgres.connection import Session
from holdfast.sources.postgres.details import parse_lsn

NAME_BYTES_MAX = 63
_READABLE_MAX = 40
_DIGEST_DIGITS = 8


@dataclass(frozen=True, slots=True)
class SlotState:
    """A slot as the server tells it; ``restart`` None means that it holds nothing back (any more)."""

    restart: int | None


def slot_name(*parts: str) -> str:
    """Return a slot's name for a source, readable and allowed: lower case letters, digits and underscores."""
    wanted = "_".join(("holdfast", *parts))
    plain = re.sub(r"[^a-z0-9_]", "_", wanted.lower())[:_READABLE_MAX]
    if plain == wanted:
        return plain
    return f"{plain}_{hashlib.sha256(wanted.encode()).hexdigest()[:_DIGEST_DIGITS]}"


def read_slot(session: Session, name: str) -> SlotState | None:
    """Return a slot's state; None where there is none. Raises ``SourceFailed`` for one that is not physical."""
    match session.query(f'READ_REPLICATION_SLOT "{name}"'):
        case [(None, *_)] | []:
            return None
        case [("physical", restart, *_)]:
            return SlotState(None if restart is None else parse_lsn(restart))
    raise SourceFailed(f"slot {name} is not a physical one", hint=f"Drop it: SELECT pg_drop_replication_slot('{name}')")


def create_slot(session: Session, name: str) -> int:
    """Make the slot, holding the log back from now on; return from where. Raises ``SourceFailed``."""
    session.query(f'CREATE_REPLICATION_SLOT "{name}" PHYSICAL (RESERVE_WAL)')
    state = read_slot(session, name)
    if state is None or state.restart is None:
        raise SourceFailed(
            f"the server does not hold its log back for slot {name}",
            hint="Raise max_slot_wal_keep_size: it must exceed what is written while nobody follows.",
        )
    return state.restart


def drop_slot(session: Session, name: str) -> None:
    """Drop the slot; the server refuses while somebody uses it."""
    session.query(f'DROP_REPLICATION_SLOT "{name}"')
