"""Which of a source's servers is followed: every host of its address is looked at, the primary is taken."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

from psycopg.conninfo import make_conninfo

from holdfast.model.errors import Conflict, Denied, HoldfastError, Interrupted, SourceFailed, Unavailable
from holdfast.sources.postgres.connection import Session, open_replication
from holdfast.sources.postgres.server import ServerFacts, read_server, require_supported
from holdfast.sources.postgres.settings import PostgresSettings, parse_dsn

HOSTS_MAX = 16


@dataclass(frozen=True, slots=True)
class Found:
    """The server to follow, connected, and how it and the others are reached."""

    session: Session
    server: ServerFacts
    settings: PostgresSettings
    others: tuple[PostgresSettings, ...]


def hosts_of(settings: PostgresSettings) -> tuple[PostgresSettings, ...]:
    """Return settings for each host of an address, in its order. One host, or a service: the settings as they are."""
    params = parse_dsn(settings.dsn)
    if params.get("service") or os.environ.get("PGSERVICE"):
        return (settings,)
    named = {
        key: (params.get(key) or os.environ.get(variable) or "").split(",")
        for key, variable in (("host", "PGHOST"), ("hostaddr", "PGHOSTADDR"), ("port", "PGPORT"))
    }
    count = max(len(named["host"]), len(named["hostaddr"]))
    if count < 2:
        return (settings,)
    found = []
    for at in range(min(count, HOSTS_MAX)):
        own = {key: values[at] if at < len(values) else values[0] for key, values in named.items()}
        rest = {key: value for key, value in params.items() if key not in named}
        dsn = make_conninfo("", **rest, **{key: value for key, value in own.items() if value})
        found.append(replace(settings, dsn=dsn))
    return tuple(found)


def find_server(
    settings: PostgresSettings, accept: Callable[[ServerFacts], None], stop_requested: Callable[[], bool]
) -> Found:
    """Connect to the server to follow: of several a primary before a standby, the highest timeline first.

    ``accept`` raises ``Conflict`` for a server that must not be followed; others of the address may do. Raises that,
    ``Denied`` or ``Unavailable`` where none will do.
    """
    hosts = hosts_of(settings)
    problems: list[HoldfastError] = []
    candidates: list[tuple[ServerFacts, Session, PostgresSettings]] = []
    with ExitStack() as stack:
        for host in hosts:
            if stop_requested():
                raise Interrupted("stopped while connecting to PostgreSQL")
            try:
                session = open_replication(host)
                stack.callback(session.close)
                require_supported(session.server_version)
                server = read_server(session)
                accept(server)
            except (Unavailable, Denied, SourceFailed, Conflict) as error:
                problems.append(error)
            else:
                candidates.append((server, session, host))
        if not candidates:
            raise _worst(problems)
        server, session, chosen = max(candidates, key=lambda one: (not one[0].in_recovery, one[0].timeline))
        for other in candidates:
            if other[1] is not session:
                other[1].close()
        stack.pop_all()
    return Found(session, server, chosen, tuple(host for host in hosts if host is not chosen))


def _worst(problems: list[HoldfastError]) -> HoldfastError:
    """Return what is told of hosts none of which will do: what waiting may mend comes first."""
    order = (Unavailable, SourceFailed, Conflict, Denied)
    return min(problems, key=lambda error: next(at for at, kind in enumerate(order) if isinstance(error, kind)))
