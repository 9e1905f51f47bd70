"""One exported snapshot of a database in which every table reads as it was at that moment.

Source: PostgreSQL's documentation, "Snapshot Synchronization Functions"; a table truncated or rewritten by a
transaction that commits after the snapshot reads as empty in it, unless it was locked before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from holdfast.model.errors import Denied, HoldfastError, SourceFailed, Unavailable
from holdfast.sources.postgres.connection import Session, open_sql
from holdfast.sources.postgres.logical.catalog import Table, read_tables
from holdfast.sources.postgres.logical.names import quote_literal
from holdfast.sources.postgres.settings import PostgresSettings

ATTEMPTS_MAX = 5
LOCK_SECONDS_MAX = 60
TABLES_PER_LOCK = 500

PINNED = (
    "SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 3; SET bytea_output = 'hex'; "
    "SET TimeZone = 'UTC'; SET xmloption = 'content'; SET row_security = off; SET statement_timeout = 0; "
    "SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET synchronize_seqscans = off; "
    "SET search_path = pg_catalog"
)
"""What a row's text depends on besides its content; lc_monetary takes a superuser's leave nowhere."""
PINNED_MONETARY = "SET lc_monetary = 'C'"
NEWER_TIMEOUT = "SET transaction_timeout = 0"
"""Of PostgreSQL 17 and later."""

BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"


def pinned(server_version: int) -> str:
    """Return the statements that make the text of a row depend on nothing but its content."""
    newer = f"; {NEWER_TIMEOUT}" if server_version >= 170000 else ""
    return f"{PINNED}; {PINNED_MONETARY}{newer}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An exported snapshot, held open by ``session``, and the tables it sees, each locked against being rewritten."""

    id: str
    session: Session
    tables: tuple[Table, ...]

    @property
    def join(self) -> str:
        """The statements that bring another session into it."""
        return f"{BEGIN}; SET TRANSACTION SNAPSHOT {quote_literal(self.id)}"


class _Moved(Exception):
    """A table was truncated, rewritten or dropped between the snapshot and its lock."""


@contextmanager
def hold_snapshot(
    settings: PostgresSettings,
    database: str,
    wanted: Callable[[Table], bool] = lambda table: True,
    between: Callable[[], None] = lambda: None,
) -> Iterator[Snapshot]:
    """Hold a snapshot of a database in which no wanted table reads as empty though it was not.

    ``between`` is called after each snapshot, before its tables are locked. Raises ``Unavailable`` where tables move
    again and again or a lock is not to be had.
    """
    with open_sql(settings, database) as session:
        session.query(pinned(session.server_version))
        moved: str = ""
        for _ in range(ATTEMPTS_MAX):
            try:
                snapshot = _take(session, wanted, between)
            except _Moved as error:
                moved = str(error)
                session.query("ROLLBACK")
                continue
            yield snapshot
            return
    raise Unavailable(
        f"table {moved} of database {database} was truncated, rewritten or dropped during each of {ATTEMPTS_MAX} "
        "attempts to take a snapshot",
        hint="Take the backup while no job truncates or rewrites tables all the time.",
    )


def _take(session: Session, wanted: Callable[[Table], bool], between: Callable[[], None]) -> Snapshot:
    session.query(BEGIN)
    identifier = session.query("SELECT pg_catalog.pg_export_snapshot()")[0][0]
    if identifier is None:
        raise SourceFailed("the server exported no snapshot", hint="Is there a proxy in between? Connect directly.")
    between()
    tables = tuple(table for table in read_tables(session) if wanted(table))
    _lock(session, tables)
    after = {table.oid: table for table in read_tables(session)}
    for table in tables:
        if after[table.oid].moved:
            raise _Moved(f"{table.schema}.{table.name}")
    return Snapshot(identifier, session, tables)


def _lock(session: Session, tables: tuple[Table, ...]) -> None:
    session.query(f"SET LOCAL lock_timeout = '{LOCK_SECONDS_MAX}s'")
    for start in range(0, len(tables), TABLES_PER_LOCK):
        batch = tables[start : start + TABLES_PER_LOCK]
        names = ", ".join(f"ONLY {table.sql}" for table in batch)
        try:
            session.query(f"LOCK TABLE {names} IN ACCESS SHARE MODE", seconds_max=LOCK_SECONDS_MAX * (len(batch) + 1.0))
        except Denied as error:
            raise Denied(
                error.message,
                hint="The role must be able to read every table: GRANT pg_read_all_data TO its name (as a superuser); "
                "`holdfast doctor` names the tables it cannot read.",
            ) from error
        except HoldfastError as error:
            if "(42P01)" in error.message or "(3F000)" in error.message:
                raise _Moved(error.message) from error
            if "(55P03)" in error.message:
                raise Unavailable(
                    f"a table is locked by somebody else for more than {LOCK_SECONDS_MAX} s: {error.message}",
                    hint="Look at pg_locks for an ACCESS EXCLUSIVE lock (ALTER, VACUUM FULL, TRUNCATE), and run this "
                    "again when it is gone.",
                ) from error
            raise
    session.query("SET LOCAL lock_timeout = 0")
