"""One exported snapshot of a database in which every table reads as it was at that moment.

Source: PostgreSQL's documentation, "Snapshot Synchronization Functions"; a table truncated or rewritten by a
transaction that commits after the snapshot reads as empty in it, unless it was locked before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from holdfast.model.errors import Denied, HoldfastError, SourceFailed, Unavailable
from holdfast.sources.postgres.connection import Session, open_sql
from holdfast.sources.postgres.logical.catalog import Sequences, Table, read_sequences, read_tables, with_sizes
from holdfast.sources.postgres.logical.names import quote_identifier, quote_literal
from holdfast.sources.postgres.settings import PostgresSettings

ATTEMPTS_MAX = 30
LOCK_SECONDS_MAX = 60
"""How long a table that somebody else has locked is waited for."""
FOLLOW_SECONDS_MAX = 1
"""How long a session that follows waits for a table: it has to only where somebody queued up between, behind us."""
TABLES_PER_LOCK = 500
NO_CONVERSION = "SQL_ASCII"

PINNED = (
    "SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 3; SET bytea_output = 'hex'; "
    "SET TimeZone = 'UTC'; SET xmloption = 'content'; SET row_security = off; SET statement_timeout = 0; "
    "SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET idle_session_timeout = 0; "
    "SET synchronize_seqscans = off; SET quote_all_identifiers = off; SET standard_conforming_strings = on; "
    "SET search_path = pg_catalog; SET lc_monetary = 'C'"
)
"""What a row's text depends on besides its content."""
NEWER_TIMEOUT = "SET transaction_timeout = 0"
"""Of PostgreSQL 17 and later."""

BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_Joined = TypeVar("_Joined")


def client_encoding(encoding: str) -> str:
    """Return the encoding that names travel in: that of a database without one has bytes, not characters."""
    return NO_CONVERSION if encoding == NO_CONVERSION else "UTF8"


def pinned(server_version: int, encoding: str) -> str:
    """Return the statements that make the text of a row depend on nothing but its content."""
    newer = f"; {NEWER_TIMEOUT}" if server_version >= 170000 else ""
    return f"SET client_encoding = {quote_literal(client_encoding(encoding))}; {PINNED}{newer}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An exported snapshot, held open by ``session``, and the tables it sees, each locked against being rewritten.

    Sizes and sequences are known once everybody has joined.
    """

    id: str
    session: Session
    database: str
    encoding: str
    tables: tuple[Table, ...]
    sequences: Sequences

    def join_script(self) -> str:
        """Return the statements that bring another session into it, with its own locks on the tables.

        Whoever joins must lock all of them at once: later it would wait behind a session that waits for us.
        """
        return ";\n".join(
            (
                pinned(self.session.server_version, self.encoding),
                f"{BEGIN}; SET TRANSACTION SNAPSHOT {quote_literal(self.id)}",
                f"SET LOCAL lock_timeout = '{FOLLOW_SECONDS_MAX}s'",
                *_lock_statements(self.tables),
                "SET LOCAL lock_timeout = 0;\n",
            )
        )


class TableMovedError(Exception):
    """A table was truncated, rewritten, changed or dropped between the snapshot and its lock, or is about to be."""


@contextmanager
def hold_snapshot(
    settings: PostgresSettings,
    database: str,
    join: Callable[[Snapshot], AbstractContextManager[_Joined]],
    wanted: Callable[[Table], bool] = lambda table: True,
    between: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Snapshot, _Joined]]:
    """Hold a snapshot of a database in which no wanted table reads as empty though it was not.

    ``join`` brings everybody else in who reads it; where that raises ``TableMovedError`` a new snapshot is taken too.
    ``between`` is called after each snapshot, before its tables are locked. Raises ``Unavailable`` where tables move
    again and again or a lock is not to be had.
    """
    with open_sql(settings, database) as session:
        encoding = session.show("server_encoding") or "UTF8"
        session.query(pinned(session.server_version, encoding))
        moved = ""
        for _ in range(ATTEMPTS_MAX):
            with ExitStack() as followers:
                try:
                    snapshot = _take(session, database, encoding, wanted, between)
                    # First everybody's locks, then all questions: the less time, the fewer can queue up between.
                    joined = followers.enter_context(join(snapshot))
                    _require_unmoved(settings, snapshot)
                    snapshot = _completed(snapshot)
                except TableMovedError as error:
                    moved = str(error)
                else:
                    yield snapshot, joined
                    session.query("COMMIT")
                    return
            session.query("ROLLBACK")
    raise Unavailable(
        f"database {database}: during each of {ATTEMPTS_MAX} attempts to take a snapshot something changed: {moved}",
        hint="Take the backup while no job truncates, rewrites or alters tables all the time.",
    )


def _take(
    session: Session,
    database: str,
    encoding: str,
    wanted: Callable[[Table], bool],
    between: Callable[[], None],
) -> Snapshot:
    session.query(BEGIN)
    identifier = session.query("SELECT pg_catalog.pg_export_snapshot()")[0][0]
    if identifier is None:
        raise SourceFailed("the server exported no snapshot", hint="Is there a proxy in between? Connect directly.")
    between()
    tables = tuple(table for table in read_tables(session) if wanted(table))
    try:
        session.query(f"SET LOCAL lock_timeout = '{LOCK_SECONDS_MAX}s'")
        for statement in _lock_statements(tables):
            session.query(statement, seconds_max=LOCK_SECONDS_MAX * (TABLES_PER_LOCK + 1.0))
    except HoldfastError as error:
        raise _translated(session, error) from error
    return Snapshot(identifier, session, database, encoding, tables, Sequences((), ()))


def _require_unmoved(settings: PostgresSettings, snapshot: Snapshot) -> None:
    """Raise ``TableMovedError`` where a table is not what the snapshot sees.

    A snapshot sees the catalogs as they were; a session outside it sees them as they are, and since the locks so they
    stay.
    """
    with open_sql(settings, snapshot.database) as outside:
        outside.query(pinned(outside.server_version, snapshot.encoding))
        now = {table.oid: _shape(table) for table in read_tables(outside)}
    for table in snapshot.tables:
        if now.get(table.oid) != _shape(table):
            raise TableMovedError(f"table {table.title} was truncated, rewritten or altered")


def _completed(snapshot: Snapshot) -> Snapshot:
    session = snapshot.session
    try:
        sequences = read_sequences(session)
        tables = with_sizes(session, snapshot.tables)
        session.query("SET LOCAL lock_timeout = 0")
    except HoldfastError as error:
        raise _translated(session, error) from error
    return replace(snapshot, tables=tables, sequences=sequences)


def _shape(table: Table) -> tuple[object, ...]:
    return table.schema, table.name, table.columns, table.file


def _lock_statements(tables: tuple[Table, ...]) -> Iterator[str]:
    for start in range(0, len(tables), TABLES_PER_LOCK):
        names = ", ".join(f"ONLY {table.sql}" for table in tables[start : start + TABLES_PER_LOCK])
        yield f"LOCK TABLE {names} IN ACCESS SHARE MODE"


def _translated(session: Session, error: HoldfastError) -> Exception:
    """Return what it means that a table or a sequence could not be locked."""
    if re.search(r"\((42P01|3F000|40P01)\)", error.message):  # Dropped or renamed since the snapshot, or a deadlock.
        return TableMovedError(error.message)
    if isinstance(error, Denied):
        return Denied(
            error.message,
            hint="The role must be able to read every table: as a superuser, GRANT pg_read_all_data TO "
            f"{quote_identifier(session.resolved()['user'])}; `holdfast doctor` names the tables it cannot read.",
        )
    if "(55P03)" in error.message:
        return Unavailable(
            f"a table is locked by somebody else for more than {LOCK_SECONDS_MAX} s: {error.message}",
            hint="Look at pg_locks for an ACCESS EXCLUSIVE lock (ALTER, VACUUM FULL, TRUNCATE), and run this "
            "again when it is gone.",
        )
    return error
