"""One connection to PostgreSQL over libpq in which no wait is without a bound."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from enum import StrEnum
from types import TracebackType
from typing import Self

from psycopg import Error, OperationalError, pq
from psycopg.conninfo import conninfo_attempts, make_conninfo

from holdfast.model.errors import ConfigInvalid, Denied, HoldfastError, Interrupted, SourceFailed, Unavailable
from holdfast.sources.postgres.failures import Refusal, classify, clean, failed, refused
from holdfast.sources.postgres.settings import PostgresSettings, parse_dsn

Row = tuple[str | None, ...]

TICK_SECONDS = 0.1
"""How often a wait looks whether a stop was requested."""
CANCEL_SECONDS_MAX = 5.0
"""How long a cancel request, and then the server's answer to it, are waited for."""
ROWS_MAX = 1_000_000
"""The most rows one query may return; more is a fault of the query."""

_DEFAULTS = {
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}


class Mode(StrEnum):
    """What a connection is for, as libpq's ``replication`` parameter says it."""

    SQL = "false"
    REPLICATION = "true"
    REPLICATION_DATABASE = "database"


class Session:
    """An open connection, owned by one thread. Close it, or use it in a ``with`` block.

    ``may_query`` tells whether it understands SQL. Every wait ends with an answer, a stop request (``Interrupted``)
    or a bound (``Unavailable`` for a query).
    """

    def __init__(self, pgconn: pq.abc.PGconn, mode: Mode, settings: PostgresSettings) -> None:
        self._pgconn = pgconn
        self._settings = settings
        self._poll = select.poll()
        self._poll.register(pgconn.socket, select.POLLIN)
        self.mode = mode
        self.stop_requested: Callable[[], bool] = lambda: False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def may_query(self) -> bool:
        """Whether SQL works here: a physical replication connection takes only its own commands and SHOW."""
        return self.mode is not Mode.REPLICATION

    @property
    def server_version(self) -> int:
        """The server's version as a number, 150006 for 15.6."""
        return self._pgconn.server_version

    @property
    def is_pooled(self) -> bool:
        """Whether a pooler stands between: the server process that answers is not the one that greeted us."""
        rows = self.query("SELECT pg_catalog.pg_backend_pid()")
        return not rows or rows[0][0] != str(self._pgconn.backend_pid)

    def resolved(self) -> dict[str, str]:
        """Return the parameters this connection was made with, defaults left out, secrets in clear.

        Host and port are those of the server that answered, whatever list of them was tried.
        """
        params = {
            option.keyword.decode(): option.val.decode("utf-8", "surrogateescape")
            for option in self._pgconn.info
            if option.val is not None and option.val != option.compiled
        }
        params |= {"host": self._pgconn.host.decode("utf-8", "surrogateescape"), "port": self._pgconn.port.decode()}
        params |= {"user": self._pgconn.user.decode("utf-8", "surrogateescape")}
        params.pop("hostaddr", None)
        if self._pgconn.hostaddr:
            params["hostaddr"] = self._pgconn.hostaddr.decode()
        return params

    def on_notice(self, handler: Callable[[pq.abc.PGresult], None]) -> None:
        """Hand every notice and warning of the server to ``handler``, on the thread that owns the session."""
        self._pgconn.notice_handler = handler

    def close(self) -> None:
        """End the connection; may be repeated."""
        self._pgconn.finish()

    def query(
        self, statement: str, params: Sequence[str | None] = (), *, seconds_max: float | None = None
    ) -> list[Row]:
        """Return the rows of the last result of ``statement``, every value as text."""
        self.send(statement, params)
        bound = self._settings.query_seconds_max if seconds_max is None else seconds_max
        doing = " ".join(statement.split())[:60]
        rows: list[Row] = []
        problem: HoldfastError | None = None
        while (result := self.next_result(bound, doing)) is not None:
            if result.status == pq.ExecStatus.TUPLES_OK:
                rows = result_rows(result)
            elif result.status == pq.ExecStatus.FATAL_ERROR:
                problem = problem or failed(result, doing)
        if problem is not None:
            raise problem
        return rows

    def show(self, parameter: str) -> str | None:
        """Return a server parameter as SHOW prints it; None where it is unknown or not for this role to see."""
        try:
            rows = self.query(f"SHOW {parameter}")
        except (Denied, SourceFailed):
            return None
        return rows[0][0] if rows else None

    def send(self, statement: str, params: Sequence[str | None] = ()) -> None:
        """Send a command; its results are fetched with ``next_result``."""
        encoded = statement.encode("utf-8", "surrogateescape")
        try:
            if params:
                self._pgconn.send_query_params(encoded, [None if p is None else p.encode() for p in params])
            else:
                self._pgconn.send_query(encoded)
            deadline = time.monotonic() + self._settings.query_seconds_max
            while self._pgconn.flush():
                self._wait(deadline, "sending a command", select.POLLOUT)
        except OperationalError as error:
            raise self._lost(error) from error

    def next_result(self, seconds_max: float, doing: str) -> pq.abc.PGresult | None:
        """Return the next result of what was sent, None at its end."""
        deadline = time.monotonic() + seconds_max
        try:
            while self._pgconn.is_busy():
                self._wait(deadline, doing)
                self._pgconn.consume_input()
            return self._pgconn.get_result()
        except OperationalError as error:
            raise self._lost(error) from error

    def copy_messages(self, silence_seconds_max: float) -> Iterator[memoryview]:
        """Yield every message of a running COPY OUT, as it arrives; each is good until the next is asked for."""
        pgconn = self._pgconn
        deadline: float | None = None
        looked = False
        try:
            while True:
                # Never get_copy_data(0): it would wait inside libpq, holding the interpreter's lock.
                size, data = pgconn.get_copy_data(1)
                if size > 0:
                    deadline, looked = None, False
                    yield data
                elif size < 0:
                    return
                elif not looked:
                    # While the server is ahead of us more has arrived already: asking the socket first is a call less.
                    if self.stop_requested():
                        raise Interrupted("stopped while streaming from PostgreSQL")
                    pgconn.consume_input()
                    looked = True
                else:
                    deadline = deadline or time.monotonic() + silence_seconds_max
                    self._wait(deadline, "streaming")
                    pgconn.consume_input()
        except OperationalError as error:
            raise self._lost(error) from error

    @property
    def socket(self) -> int:
        """The socket's descriptor, to wait for it beside other things."""
        return self._pgconn.socket

    @property
    def backend_pid(self) -> int:
        """The process id of the server's side."""
        return self._pgconn.backend_pid

    def take_copy_message(self) -> tuple[int, memoryview]:
        """Return size and bytes of the next message of a running copy, without waiting: 0 is none yet, -1 the end."""
        try:
            return self._pgconn.get_copy_data(1)
        except OperationalError as error:
            raise self._lost(error) from error

    def look(self) -> None:
        """Take what has arrived into libpq's buffer, without waiting."""
        try:
            self._pgconn.consume_input()
        except OperationalError as error:
            raise self._lost(error) from error

    def put_copy_message(self, data: bytes) -> None:
        """Hand a message of a running copy over to be sent; ``flush`` sends it."""
        try:
            self._pgconn.put_copy_data(data)
        except OperationalError as error:
            raise self._lost(error) from error

    def end_copy(self) -> None:
        """Say that no message of ours follows in a running copy; ``flush`` sends it."""
        try:
            self._pgconn.put_copy_end()
        except OperationalError as error:
            raise self._lost(error) from error

    def flush(self) -> bool:
        """Send what waits, without waiting; return whether all of it is gone."""
        try:
            return self._pgconn.flush() == 0
        except OperationalError as error:
            raise self._lost(error) from error

    def cancel(self) -> None:
        """Ask the server to cancel what runs, and take its answer within a bound. Never raises; close follows."""
        self.stop_requested = lambda: False
        # Where any of it fails, closing the connection ends the server's side too, at its next write.
        with suppress(Error, HoldfastError, TimeoutError):
            deadline = time.monotonic() + CANCEL_SECONDS_MAX
            canceller = self._pgconn.cancel_conn()
            canceller.start()
            _drive(canceller.poll, lambda: canceller.socket, deadline)
            canceller.finish()
            for _ in self.copy_messages(CANCEL_SECONDS_MAX):
                if time.monotonic() > deadline:
                    return
            while self.next_result(CANCEL_SECONDS_MAX, "cancelling") is not None and time.monotonic() < deadline:
                continue

    def _wait(self, deadline: float, doing: str, events: int = select.POLLIN) -> None:
        """Wait a moment for the socket; raises at the deadline, or when asked to stop.

        May return without an event: under TLS what was sent may lie in libpq's buffers already, and only looking tells.
        """
        if self.stop_requested():
            raise Interrupted(f"stopped while waiting for PostgreSQL ({doing})")
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise Unavailable(
                f"PostgreSQL was silent for too long ({doing})",
                hint="Look at the server's load, locks and network; the bounds are in the source's settings.",
            )
        self._poll.modify(self._pgconn.socket, events)
        self._poll.poll(min(remaining, TICK_SECONDS) * 1000)

    def _lost(self, error: OperationalError) -> HoldfastError:
        words = clean(str(error).encode(), secret_values(self._settings))
        return Unavailable(
            f"the connection to PostgreSQL was lost: {words}",
            hint="Read the server's log at this time: it restarted, crashed, or the network broke.",
        )


def open_sql(settings: PostgresSettings, database: str | None = None) -> Session:
    """Connect for SQL, to ``database`` or the one the DSN names. Raises ``Denied`` or ``Unavailable``."""
    session = _open(settings, Mode.SQL, database)
    session.query(f"SET statement_timeout = {int(settings.query_seconds_max * 1000)}; SET search_path = pg_catalog")
    return session


def open_replication(settings: PostgresSettings) -> Session:
    """Connect as a WAL sender: physically, or through a database where pg_hba.conf has no line for replication.

    Raises ``Denied`` (of the first try, whose hint names the line) or ``Unavailable``.
    """
    try:
        return _open(settings, Mode.REPLICATION, None)
    except (Denied, Unavailable) as first:
        if classify(first.message) not in (Refusal.HBA, Refusal.OTHER):
            raise
        named = parse_dsn(settings.dsn).get("dbname") or os.environ.get("PGDATABASE")
        for database in dict.fromkeys(("postgres", named)):
            try:
                if database:
                    return _open(settings, Mode.REPLICATION_DATABASE, database)
            except (Denied, Unavailable):
                continue
        raise


def result_rows(result: pq.abc.PGresult) -> list[Row]:
    """Return a result's rows as text; bytes that are not UTF-8 survive by surrogateescape."""
    if result.ntuples > ROWS_MAX:
        raise SourceFailed(f"a query returned {result.ntuples} rows, more than {ROWS_MAX}")
    return [
        tuple(_text(result.get_value(row, column)) for column in range(result.nfields)) for row in range(result.ntuples)
    ]


def secret_values(settings: PostgresSettings) -> tuple[str, ...]:
    """Return every secret in clear, only to blot it out of libpq's words."""
    named = (settings.password, *(secret for _, secret in settings.other_secrets))
    return (*(secret.reveal() for secret in named if secret), os.environ.get("PGPASSWORD", ""))


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "surrogateescape")


def _open(settings: PostgresSettings, mode: Mode, database: str | None) -> Session:
    params = _parameters(settings, mode, database)
    seconds = _connect_seconds(params, settings)
    problem: HoldfastError | None = None
    for attempt in _attempts(params):
        pgconn = pq.PGconn.connect_start(make_conninfo("", **attempt).encode("utf-8", "surrogateescape"))
        words = _finish_connecting(pgconn, seconds, secret_values(settings))
        if words is None:
            pgconn.nonblocking = 1
            return Session(pgconn, mode, settings)
        pgconn.finish()
        problem = refused(words)
        if isinstance(problem, Denied):
            break  # Somebody answered: another address is another server.
    raise problem or refused("no address to try")


def _finish_connecting(pgconn: pq.abc.PGconn, seconds: float, secrets: tuple[str, ...]) -> str | None:
    """Return None once the connection stands, else why it does not, without secrets."""
    try:
        if pgconn.status != pq.ConnStatus.BAD and _drive(
            pgconn.connect_poll, lambda: pgconn.socket, time.monotonic() + seconds
        ):
            return None
    except TimeoutError:
        return f"no answer within {seconds:g} seconds (timeout)"
    return clean(pgconn.error_message, secrets)


def _attempts(params: dict[str, str]) -> list[dict[str, str]]:
    """Split several hosts and addresses, since libpq bounds none of them by itself when it is polled."""
    if params.get("service") or os.environ.get("PGSERVICE"):
        return [params]  # libpq alone knows the host.
    try:
        return [{name: str(value) for name, value in attempt.items()} for attempt in conninfo_attempts(params)]
    except OperationalError as error:
        raise refused(clean(str(error).encode())) from error


def _parameters(settings: PostgresSettings, mode: Mode, database: str | None) -> dict[str, str]:
    params = _DEFAULTS | parse_dsn(settings.dsn)
    params.setdefault("fallback_application_name", settings.application_name)
    secrets = dict(settings.other_secrets)
    if settings.password is not None:
        secrets["password"] = settings.password
    params |= {name: secret.reveal() for name, secret in secrets.items()}
    for name, path in (
        ("sslrootcert", settings.tls_root_certificate),
        ("sslcert", settings.tls_certificate),
        ("sslkey", settings.tls_key),
    ):
        if path is not None:
            params[name] = str(path)
    # A WAL sender's texts (paths) must come unconverted; SQL is wanted in one encoding.
    params["client_encoding"] = "UTF8" if mode is Mode.SQL else "SQL_ASCII"
    if mode is not Mode.SQL:
        params["replication"] = mode.value
    if database is not None:
        params["dbname"] = database
    return params


def _connect_seconds(params: dict[str, str], settings: PostgresSettings) -> float:
    chosen = params.get("connect_timeout") or os.environ.get("PGCONNECT_TIMEOUT") or "0"
    try:
        seconds = float(chosen)
    except ValueError as error:
        raise ConfigInvalid(f"connect_timeout {chosen!r} is no number", hint="Give it in seconds.") from error
    # As libpq has it: 0 is no choice, and less than 2 seconds are 2; but no wait is without a bound here.
    return max(seconds, 2.0) if seconds > 0 else settings.connect_timeout_seconds


def _drive(poll: Callable[[], int], descriptor: Callable[[], int], deadline: float) -> bool:
    """Poll a connection being made until it stands (True) or failed (False); raises TimeoutError at the deadline."""
    while True:
        status = poll()
        if status == pq.PollingStatus.OK:
            return True
        if status == pq.PollingStatus.FAILED:
            return False
        remaining = deadline - time.monotonic()
        waiter = select.poll()
        waiter.register(descriptor(), select.POLLIN if status == pq.PollingStatus.READING else select.POLLOUT)
        if remaining <= 0 or not waiter.poll(remaining * 1000):
            raise TimeoutError
