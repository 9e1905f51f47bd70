"""Puts a loaded database in the place of the live one: both renames in one transaction, the old one kept."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from holdfast.model.errors import Conflict, HoldfastError, Interrupted, SourceFailed, Unavailable
from holdfast.sources.postgres.connection import Session, open_sql
from holdfast.sources.postgres.logical.archive import Archive
from holdfast.sources.postgres.logical.children import ClientAccess, run_child
from holdfast.sources.postgres.logical.names import quote_identifier, quote_literal
from holdfast.sources.postgres.logical.tools import ClientPrograms
from holdfast.sources.postgres.settings import PostgresSettings

ATTEMPTS_MAX = 20
TERMINATE_SECONDS = 0.05
RENAME_SECONDS_MAX = 30.0


def refuse_bound(session: Session, live: str) -> None:
    """Raise ``Conflict`` for what binds a database to its place: it would be lost, or keep the swap from happening."""
    name = quote_literal(live)
    prepared = session.query(f"SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = {name}")
    slots = session.query(f"SELECT slot_name FROM pg_catalog.pg_replication_slots WHERE database = {name}")
    subscriptions = session.query(
        "SELECT count(*) FROM pg_catalog.pg_stat_subscription s JOIN pg_catalog.pg_subscription p ON p.oid = s.subid "
        f"JOIN pg_catalog.pg_database d ON d.oid = p.subdbid WHERE d.datname = {name} AND p.subenabled"
    )[0][0]
    if prepared:
        raise Conflict(
            f"database {live} has {len(prepared)} prepared transactions, first {prepared[0][0]}",
            hint="End each in that database with COMMIT PREPARED or ROLLBACK PREPARED, then run this again.",
        )
    if slots:
        raise Conflict(
            f"database {live} has logical replication slots: {', '.join(row[0] or '' for row in slots)}",
            hint="They are bound to the old database and would not follow: stop their consumers, drop them "
            "(SELECT pg_drop_replication_slot(...)), and make them anew after the swap.",
        )
    if subscriptions != "0":
        raise Conflict(
            f"database {live} has {subscriptions} enabled subscriptions",
            hint="Disable each in that database (ALTER SUBSCRIPTION ... DISABLE), and set them up anew after the swap.",
        )


class Swap:
    """One exchange. Killed at any moment the name belongs to the old database or to the new one."""

    def __init__(
        self,
        settings: PostgresSettings,
        programs: ClientPrograms,
        access: ClientAccess,
        stop_requested: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._programs = programs
        self._access = access
        self._stop_requested = stop_requested

    def run(
        self, session: Session, live: str, loaded: str, kept: str, at_step: Callable[[str], None] = lambda step: None
    ) -> list[str]:
        """Give ``loaded`` what belongs to ``live``, then exchange their names; ``live`` becomes ``kept``."""
        refuse_bound(session, live)
        notes: list[str] = []
        comment = "NULL"
        for statement in self._statements_of(live, loaded):
            if statement.startswith("CREATE DATABASE "):
                continue
            if statement.startswith("COMMENT ON DATABASE "):
                comment = statement.partition(" IS ")[2].rstrip(";")
                continue
            try:
                session.query(statement)
            except HoldfastError as error:
                notes.append(f"not carried over: {' '.join(statement.split())[:120]} ({error.message})")
        at_step("rename")
        self._exchange(session, live, loaded, kept, comment)
        at_step("renamed")
        return [
            *notes,
            f"the database before is kept as {kept}; when all is well: DROP DATABASE {quote_identifier(kept)};",
        ]

    def _statements_of(self, live: str, loaded: str) -> list[str]:
        """Return what gives ``loaded`` the owner, limit, settings, privileges and comment that ``live`` has."""
        path = self._access.folder / "live.dump"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        # A pattern that matches no table: only what is told of the database itself is wanted.
        arguments = [self._programs.path("pg_dump"), "--format=custom", "--schema-only", "--no-password"]
        arguments.append(f"--dbname={self._access.address(live)}")
        with os.fdopen(fd, "wb") as file:

            def keep(block: bytes) -> None:
                file.write(block)

            run_child(arguments, self._access, f"reading what belongs to {live}", self._stop_requested, take=keep)
        archive = Archive(path, self._programs, self._access, self._stop_requested)
        return archive.database_statements(live, loaded)

    def _exchange(self, session: Session, live: str, loaded: str, kept: str, comment: str) -> None:
        renames = (
            f"ALTER DATABASE {quote_identifier(live)} RENAME TO {quote_identifier(kept)}; "
            f"ALTER DATABASE {quote_identifier(loaded)} RENAME TO {quote_identifier(live)}; "
            f"COMMENT ON DATABASE {quote_identifier(live)} IS {comment}"
        )
        problem: HoldfastError | None = None
        for _ in range(ATTEMPTS_MAX):
            if self._stop_requested():
                raise Interrupted("stopped before the swap", hint=f"{live} is as it was.")
            done = threading.Event()
            sweeper = threading.Thread(target=self._end_sessions, args=((live, loaded), done), daemon=True)
            sweeper.start()
            try:
                session.query("BEGIN")
                session.query(renames, seconds_max=RENAME_SECONDS_MAX)
                session.query("COMMIT")
            except SourceFailed as error:
                session.query("ROLLBACK")
                if "(55006)" not in error.message:
                    raise
                problem = error
            else:
                return
            finally:
                done.set()
                sweeper.join()
        raise Unavailable(
            f"sessions of {live} come back faster than they are ended: {problem.message if problem else ''}",
            hint=f"{live} is as it was, the restored one is {loaded}. Stop the application, and run this again.",
        )

    def _end_sessions(self, databases: tuple[str, ...], done: threading.Event) -> None:
        """End every session in the databases again and again, over a connection of its own."""
        listed = ", ".join(quote_literal(name) for name in databases)
        try:
            with open_sql(self._settings) as session:
                while not done.is_set():
                    session.query(
                        "SELECT count(pg_catalog.pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity "
                        f"WHERE datname IN ({listed}) AND pid <> pg_catalog.pg_backend_pid()"
                    )
                    time.sleep(TERMINATE_SECONDS)
        except HoldfastError:
            return  # The rename then fails for the sessions that are left, and says so.
