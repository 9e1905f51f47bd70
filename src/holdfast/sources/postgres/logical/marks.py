"""How a database that is being loaded is told from everybody else's, by whoever comes after a crash.

It has a name of ours until it is complete, a comment that says for what it is, and as long as its restore is alive the
server holds a lock that says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from holdfast.model.errors import Conflict, HoldfastError, Interrupted, NotFound, Unavailable
from holdfast.sources.postgres.connection import Session, open_sql
from holdfast.sources.postgres.logical.names import quote_identifier, quote_literal
from holdfast.sources.postgres.settings import FALLBACK_DATABASE, MAINTENANCE_DATABASE, PostgresSettings

MARK = "holdfast:"
NAME = "holdfast_loading_"
NAME_BYTES_MAX = 63
LOCK_CLASS = 0x686F6C64
"""The first half of the advisory lock of a restore that is alive; the second is its id."""
DROP_SECONDS_MAX = 300.0
MAINTENANCE = (MAINTENANCE_DATABASE, FALLBACK_DATABASE)

_MARK = re.compile(
    r"holdfast: (?P<stage>loading|ready) (?P<id>[0-9a-f]{8}) of (?P<backup>\S+) for (?P<name>.*)", re.DOTALL
)
_NAME = re.compile(rf"{NAME}(?P<id>[0-9a-f]{{8}})")


class Stage(StrEnum):
    """How far it came: being loaded, or complete and compared."""

    LOADING = "loading"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class Mark:
    """What the comment says: for which database, and which state (source database and moment) is loaded."""

    stage: Stage
    id: str
    backup: str
    name: str

    def __str__(self) -> str:
        return f"{MARK} {self.stage} {self.id} of {self.backup} for {self.name}"

    @classmethod
    def parse(cls, text: str) -> Mark | None:
        """Read a comment; None for anybody else's."""
        match = _MARK.fullmatch(text)
        return Mark(Stage(match["stage"]), match["id"], match["backup"], match["name"]) if match else None


@dataclass(frozen=True, slots=True)
class LeftOver:
    """A database of ours that is not complete. ``mark`` is None where the restore died before it could say more."""

    database: str
    id: str
    mark: Mark | None
    is_alive: bool


def loading_name(identifier: str) -> str:
    """Return the name of a database until it is complete."""
    return f"{NAME}{identifier}"


def dated(name: str, word: str, stamp: str) -> str:
    """Return ``name_word_stamp``, shortened at the name where PostgreSQL would cut the stamp."""
    tail = f"_{word}_{stamp}"
    room = NAME_BYTES_MAX - len(tail.encode())
    return name.encode("utf-8", "surrogateescape")[:room].decode("utf-8", "ignore") + tail


def open_maintenance(settings: PostgresSettings, avoid: str | None = None) -> Session:
    """Connect to a database that is neither renamed nor dropped: not ``avoid``."""
    problem: HoldfastError | None = None
    for database in MAINTENANCE:
        if database == avoid:
            continue
        try:
            session = open_sql(settings, database)
        except (Unavailable, Interrupted):
            raise
        except HoldfastError as error:
            problem = problem or error
        else:
            session.query("SET idle_session_timeout = 0; SET idle_in_transaction_session_timeout = 0")
            return session
    raise problem or NotFound("the server has no database to work from", hint="Create one named postgres.")


def claim(session: Session, identifier: str) -> None:
    """Say, as long as ``session`` lives, that the restore does."""
    got = session.query(f"SELECT pg_catalog.pg_try_advisory_lock({LOCK_CLASS}, {_lock_id(identifier)})")[0][0]
    if got != "t":
        raise Conflict(f"another restore has the id {identifier}", hint="Run this again.")


def left_over(session: Session, but: str = "") -> list[LeftOver]:
    """Return every database of ours that is not complete, except that of restore ``but``."""
    rows = session.query(
        "SELECT datname, pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database ORDER BY 1"
    )
    alive = {
        int(row[0] or 0)
        for row in session.query(
            "SELECT objid FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2 "
            f"AND classid = {LOCK_CLASS}"
        )
    }
    found = []
    for name, comment in rows:
        mark = Mark.parse(comment or "")
        named = _NAME.fullmatch(name or "")
        identifier = mark.id if mark else named["id"] if named else None
        if identifier is not None and identifier != but:
            found.append(LeftOver(name or "", identifier, mark, _lock_id(identifier) in alive))
    return found


def set_mark(session: Session, database: str, mark: Mark) -> None:
    """Write what a database of ours is for."""
    session.query(f"COMMENT ON DATABASE {quote_identifier(database)} IS {quote_literal(str(mark))}")


def drop_marked(session: Session, database: str, identifier: str) -> None:
    """Drop a database that carries the mark of restore ``identifier``, or its name and nothing else; no other."""
    rows = session.query(
        "SELECT pg_catalog.shobj_description(oid, 'pg_database'), datistemplate FROM pg_catalog.pg_database "
        f"WHERE datname = {quote_literal(database)}"
    )
    if not rows:
        return
    mark = Mark.parse(rows[0][0] or "")
    is_ours = mark.id == identifier if mark else rows[0][0] is None and database == loading_name(identifier)
    if not is_ours:
        raise Conflict(f"database {database} does not carry the mark of restore {identifier}", hint="Look at it.")
    # What a killed restore left running (an index being built) may still hold sessions in it.
    session.query("SET statement_timeout = 0")
    if rows[0][1] == "t":  # It had got that from the live one already.
        session.query(f"ALTER DATABASE {quote_identifier(database)} IS_TEMPLATE false")
    session.query(f"DROP DATABASE {quote_identifier(database)} WITH (FORCE)", seconds_max=DROP_SECONDS_MAX)


def is_empty(settings: PostgresSettings, database: str) -> bool:
    """Tell whether nothing was ever made in a database."""
    with open_sql(settings, database) as session:
        return session.query("SELECT count(*) FROM pg_catalog.pg_class WHERE oid >= 16384")[0][0] == "0"


def _is_empty_for_sure(settings: PostgresSettings, database: str) -> bool:
    try:
        return is_empty(settings, database)
    except (Interrupted, Unavailable):
        raise
    except HoldfastError:
        return False  # We may not even look into it.


def clear(
    settings: PostgresSettings, session: Session, own: str, may_resume: Callable[[Mark], bool]
) -> tuple[LeftOver | None, list[str]]:
    """Drop what dead restores left half loaded. Returns what can be finished instead, and what to tell.

    What is alive, or complete and somebody else's, or holds tables without our mark, is only named.
    """
    resumed: LeftOver | None = None
    notes: list[str] = []
    for each in left_over(session, own):
        if each.is_alive:
            notes.append(f"database {each.database} is being loaded by another restore right now")
        elif each.mark is not None and each.mark.stage is Stage.READY and resumed is None and may_resume(each.mark):
            resumed = each
            notes.append(f"database {each.database} was loaded and compared by a restore that died: it is used")
        elif each.mark is not None and each.mark.stage is Stage.READY:
            notes.append(
                f"database {each.database} is complete, for {each.mark.name}, of a restore that died before it could "
                f"finish: run that one again, or DROP DATABASE {quote_identifier(each.database)};"
            )
        elif each.mark is None and not _is_empty_for_sure(settings, each.database):
            notes.append(f"database {each.database} has a name of ours and no mark: look at it; it is not touched")
        else:
            notes.append(_dropped(session, each))
    return resumed, notes


def _dropped(session: Session, each: LeftOver) -> str:
    """Drop it and say so; what cannot be dropped (it is another role's, or says it is) stands in nobody's way."""
    try:
        drop_marked(session, each.database, each.id)
    except (Interrupted, Unavailable):
        raise
    except HoldfastError as error:
        return f"database {each.database} looks half loaded by a restore that died, and stays: {error.message}"
    return f"database {each.database}, left half loaded by a restore that died, was dropped"


def _lock_id(identifier: str) -> int:
    return int(identifier, 16) & 0x7FFFFFFF
