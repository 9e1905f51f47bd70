"""Gives a loaded database its name: both renames in one transaction, the old one kept, sessions ended meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from holdfast.model.errors import Denied, HoldfastError, Interrupted, OutcomeUnknown, SourceFailed, Unavailable
from holdfast.sources.postgres.connection import Session
from holdfast.sources.postgres.logical.archive import Archive
from holdfast.sources.postgres.logical.children import run_child
from holdfast.sources.postgres.logical.marks import open_maintenance
from holdfast.sources.postgres.logical.names import quote_identifier, quote_literal
from holdfast.sources.postgres.logical.sql_text import DatabaseScript
from holdfast.sources.postgres.settings import PostgresSettings

ATTEMPTS_MAX = 8
TERMINATE_SECONDS = 0.05
LOCK_SECONDS_MAX = 10
RENAME_SECONDS_MAX = 40.0
"""Each rename waits 10 s for the lock and 5 s for sessions to go, both bounded by the server."""
NAMES_TOLD_MAX = 5
LOCK_TIMEOUT = "(55P03)"
_BUSY = ("(55006)", LOCK_TIMEOUT)


@dataclass(frozen=True, slots=True)
class Exchange:
    """``loaded`` becomes ``name``; the database of that name, if any, becomes ``kept_as``. ``comment`` is SQL."""

    loaded: str
    name: str
    kept_as: str | None
    comment: str
    strings: str = "on"

    @property
    def statements(self) -> tuple[str, ...]:
        """What happens in one transaction; ended anywhere, nothing has happened."""
        kept = (
            (f"ALTER DATABASE {quote_identifier(self.name)} RENAME TO {quote_identifier(self.kept_as)}",)
            if self.kept_as is not None
            else ()
        )
        return (
            f"SET LOCAL lock_timeout = '{LOCK_SECONDS_MAX}s'",
            "SET LOCAL statement_timeout = 0",
            f"SET LOCAL standard_conforming_strings = {self.strings}",
            *kept,
            f"ALTER DATABASE {quote_identifier(self.loaded)} RENAME TO {quote_identifier(self.name)}",
            f"COMMENT ON DATABASE {quote_identifier(self.name)} IS {self.comment}",
        )


def read_live(archive: Archive, live: str, loaded: str) -> DatabaseScript:
    """Return what gives ``loaded`` the owner, limit, settings, privileges and comment that ``live`` has now.

    ``archive`` says with which programs; its own content is not used.
    """
    path = archive.path.with_name("live.dump")
    arguments = [archive.programs.path("pg_dump"), "--format=custom", "--schema-only", "--no-password"]
    # Only what is told of the database itself is wanted: no table is looked at, so none is locked.
    arguments += ["--exclude-schema=*", f"--dbname={archive.access.address(live)}"]
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:

        def keep(block: bytes) -> None:
            file.write(block)

        run_child(arguments, archive.access, f"reading what belongs to {live}", archive.stop_requested, take=keep)
    return Archive(path, archive.programs, archive.access, archive.stop_requested).database_script(live, loaded)


def give(session: Session, script: DatabaseScript) -> list[str]:
    """Carry out what belongs to a database but is no part of it; returns what could not be."""
    notes = []
    session.query(f"SET standard_conforming_strings = {script.strings}")
    for statement in (*script.early, *script.late):
        try:
            session.query(statement)
        except (Denied, SourceFailed) as error:
            notes.append(f"not set: {' '.join(statement.split())[:120]} ({error.message})")
    session.query("SET standard_conforming_strings = on")
    return notes


def exchange(
    settings: PostgresSettings, session: Session, wish: Exchange, stop_requested: Callable[[], bool] = lambda: False
) -> None:
    """Do it, ending sessions of both databases meanwhile. ``session`` is in neither of them.

    Raises ``Unavailable`` where sessions come back faster than they are ended, ``Denied`` where they may not be ended;
    all is then as it was. Where the connection is lost at the end, who has the name tells what happened.
    """
    before = _oid(session, wish.loaded)
    problem: HoldfastError | None = None
    for _ in range(ATTEMPTS_MAX):
        if stop_requested():
            raise Interrupted("stopped before the swap", hint=f"{wish.name} is as it was.")
        with _without_sessions(settings, wish) as protected:
            try:
                _transact(session, wish)
            except Unavailable as error:
                _settle(settings, wish, before, error)
                return
            except HoldfastError as error:
                if isinstance(error, Interrupted):
                    raise
                session.query("ROLLBACK")
                if not any(state in error.message for state in _BUSY):
                    raise
                problem = error
            else:
                return
        if protected:
            raise Denied(
                f"this role may not end sessions of {wish.name}, those of "
                f"{', '.join(sorted(protected)[:NAMES_TOLD_MAX])}",
                hint="GRANT pg_signal_backend to it (a superuser's sessions take a superuser), or end them yourself.",
            )
    if problem is not None and LOCK_TIMEOUT in problem.message:
        raise Unavailable(
            f"another session holds a lock on database {wish.name} or {wish.loaded}: {problem.message}",
            hint=f"{wish.name} is as it was. Look for an ALTER DATABASE that waits (pg_locks), and run this again.",
        )
    raise Unavailable(
        f"sessions of {wish.name} come back faster than they are ended: {problem.message if problem else ''}",
        hint=f"{wish.name} is as it was. Stop the application (or its pooler), and run this again.",
    )


def _transact(session: Session, wish: Exchange) -> None:
    session.query("BEGIN")
    for statement in wish.statements:
        session.query(statement, seconds_max=RENAME_SECONDS_MAX)
    stop_requested, session.stop_requested = session.stop_requested, lambda: False
    try:
        # It is too late for a stop now: one who did not wait for the answer would tell of a swap that was none.
        session.query("COMMIT")
    finally:
        session.stop_requested = stop_requested


def _settle(settings: PostgresSettings, wish: Exchange, loaded_oid: str | None, error: Unavailable) -> None:
    """Look what became of a transaction that got no answer; raises unless it happened."""
    try:
        with open_maintenance(settings, wish.name) as session:
            now = _oid(session, wish.name)
    except HoldfastError as second:
        raise OutcomeUnknown(
            f"no answer told whether {wish.loaded} became {wish.name}: {error.message}",
            hint=f"One of them is {wish.name}: run this again when the server answers; it looks first.",
        ) from second
    if now is None or now != loaded_oid:
        raise error


def _oid(session: Session, database: str) -> str | None:
    rows = session.query(f"SELECT oid FROM pg_catalog.pg_database WHERE datname = {quote_literal(database)}")
    return rows[0][0] if rows else None


@contextmanager
def _without_sessions(settings: PostgresSettings, wish: Exchange) -> Iterator[set[str]]:
    """End every session in the databases again and again, over a connection of its own; yields whose may not be."""
    done = threading.Event()
    protected: set[str] = set()
    listed = ", ".join(quote_literal(name) for name in (wish.name, wish.loaded))

    def sweep() -> None:
        try:
            with open_maintenance(settings, wish.name) as session:
                while not done.wait(TERMINATE_SECONDS):
                    _end_sessions(session, listed, protected)
        except HoldfastError:
            return  # The rename then fails for the sessions that are left, and says so.

    sweeper = threading.Thread(target=sweep, name="end-sessions", daemon=True)
    sweeper.start()
    try:
        yield protected
    finally:
        done.set()
        sweeper.join()


def _end_sessions(session: Session, listed: str, protected: set[str]) -> None:
    rows = session.query(
        "SELECT pid, coalesce(usename, '') FROM pg_catalog.pg_stat_activity "
        f"WHERE datname IN ({listed}) AND pid <> pg_catalog.pg_backend_pid()"
    )
    for pid, role in rows:
        try:
            session.query(f"SELECT pg_catalog.pg_terminate_backend({int(pid or 0)})")
        except Denied:
            if role:  # What has none (autovacuum) goes away by itself when a database is renamed.
                protected.add(role)
