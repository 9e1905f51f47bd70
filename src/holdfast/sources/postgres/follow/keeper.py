"""What a follower looks after beside its stream: do commits wait for it, and slots on servers that may take over."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Event, Thread
from types import TracebackType
from typing import Self

from holdfast.model.errors import ConfigInvalid, Denied, HoldfastError, SourceFailed, Unavailable
from holdfast.model.logs import Sample
from holdfast.sources.postgres.connection import Session, open_replication, open_sql
from holdfast.sources.postgres.details import format_lsn, parse_lsn
from holdfast.sources.postgres.follow.hosts import Found
from holdfast.sources.postgres.follow.slots import create_slot, drop_slot, read_slot
from holdfast.sources.postgres.follow.standby_names import parse_standby_names
from holdfast.sources.postgres.follow.stream import Beside
from holdfast.sources.postgres.settings import PostgresSettings, parse_dsn

SYNC_SECONDS = 2.0
"""How often is looked whether commits wait for us."""
OTHERS_SECONDS = 30.0
"""How often the slots of the other hosts are looked after."""
END_SECONDS_MAX = 5.0
UNPRIVILEGED_DATABASE = "postgres"

_STATE = """
SELECT sync_state, (flush_lsn IS NULL OR state <> 'streaming')::int::text
FROM pg_catalog.pg_stat_replication WHERE pid = $1::int"""
_NAMES = "SELECT pg_catalog.current_setting('synchronous_standby_names')"
_REPLAYED = """
SELECT pg_catalog.pg_last_wal_replay_lsn()::text,
       ((extract(epoch FROM pg_catalog.pg_last_xact_replay_timestamp()) * 1000000)::bigint)::text"""
_ADVANCE = "SELECT pg_catalog.pg_replication_slot_advance($1, $2::pg_lsn)"


def own_name(settings: PostgresSettings) -> str:
    """Return the application_name that the server knows us by."""
    return parse_dsn(settings.dsn).get("application_name") or os.environ.get("PGAPPNAME") or settings.application_name


def sync_by_names(session: Session, settings: PostgresSettings) -> bool:
    """Tell by the server's settings alone whether commits may wait for us; all that any role may see."""
    names = parse_standby_names(session.show("synchronous_standby_names") or "")
    return names is not None and names.names_one(own_name(settings))


class Keeper:
    """A thread beside one stream, ended with its ``with`` block. What it finds it writes into ``beside``.

    All of it is a help and nothing needs it: where the role may not look, the stream goes on without.
    """

    def __init__(
        self, found: Found, slot: str, beside: Beside, wake: Callable[[], None], durable: Callable[[], int]
    ) -> None:
        self._found = found
        self._slot = slot
        self._beside = beside
        self._wake = wake
        self._durable = durable
        self._ended = Event()
        self._sql: Session | None = None
        self._pid = found.session.backend_pid
        self._thread = Thread(target=self._run, name="holdfast-follow-keeper", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(END_SECONDS_MAX)

    def _run(self) -> None:
        others_at = 0.0
        try:
            while not self._ended.is_set():
                self._guarded(self._look)
                if self._found.others and time.monotonic() - others_at >= OTHERS_SECONDS:
                    others_at = time.monotonic()
                    for other in self._found.others:
                        self._guarded(partial(self._keep_slot, other))
                self._ended.wait(SYNC_SECONDS)
        finally:
            self._close()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except HoldfastError:
            # Refused, or the server is away, which the stream notices itself: asked again on a new connection.
            self._close()

    def _close(self) -> None:
        sql, self._sql = self._sql, None
        if sql is not None:
            sql.close()

    def _look(self) -> None:
        if self._sql is None:
            self._sql = _open_any(self._found.settings)
            self._sql.stop_requested = self._ended.is_set
        if self._found.server.in_recovery:
            self._look_at_replay(self._sql)
            return
        rows = self._sql.query(_STATE, (str(self._pid),))
        state, is_beginning = rows[0] if rows else (None, None)
        if state is None or is_beginning == "1":
            # Not for this role to see; or nothing was acknowledged yet, and then the server calls everybody async.
            names = parse_standby_names(self._sql.query(_NAMES)[0][0] or "")
            sync = names is not None and names.names_one(own_name(self._found.settings))
        else:
            sync = state in ("sync", "quorum")
        changed, self._beside.sync = sync != self._beside.sync, sync
        if changed:
            self._wake()

    def _look_at_replay(self, sql: Session) -> None:
        """A standby's clock says nothing of its primary; the last commit it replayed does."""
        match sql.query(_REPLAYED):
            case [(str() as position, str() as micros)]:
                at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(micros))
                self._beside.sample = Sample(at, parse_lsn(position))

    def _keep_slot(self, host: PostgresSettings) -> None:
        """Hold the log back on a standby that may be promoted, and let go what is durable.

        A slot that cannot be moved on would fill its disk: then there is none.
        """
        with open_replication(host) as session:
            session.stop_requested = self._ended.is_set
            if session.show("in_hot_standby") != "on":
                return  # An old primary, or one that was just promoted: the follower itself decides.
            state = read_slot(session, self._slot)
            if state is not None and state.restart is None:
                drop_slot(session, self._slot)
                state = None
            if state is None:
                create_slot(session, self._slot)
            try:
                with _open_any(host) as sql:
                    durable = self._durable()
                    if durable > (state.restart or 0 if state is not None else 0):
                        sql.query(_ADVANCE, (self._slot, format_lsn(durable)))
            except (Denied, Unavailable, SourceFailed):
                drop_slot(session, self._slot)
                raise


def _open_any(settings: PostgresSettings) -> Session:
    """Connect for SQL to the database named, or to one that every cluster has."""
    if parse_dsn(settings.dsn).get("dbname"):
        with suppress(Denied, ConfigInvalid):
            return open_sql(settings)
    return open_sql(settings, UNPRIVILEGED_DATABASE)
