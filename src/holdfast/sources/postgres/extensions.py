"""Which extensions a cluster's databases use: a server that is to hold a copy of them needs the same ones."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.model.errors import HoldfastError, Interrupted
from holdfast.sources.postgres.connection import open_sql
from holdfast.sources.postgres.settings import PostgresSettings

DATABASES_LOOKED_AT_MAX = 50


@dataclass(frozen=True, slots=True)
class ExtensionsUsed:
    """The server's major version, and the names of extensions in the databases that let us in."""

    major: int
    names: tuple[str, ...]


def read_extensions(settings: PostgresSettings) -> ExtensionsUsed:
    """Ask every database. Raises as connecting does; a database that refuses is left out."""
    found: set[str] = set()
    with open_sql(settings) as session:
        major = session.server_version // 10000
        rows = session.query("SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1")
    for (database,) in rows[:DATABASES_LOOKED_AT_MAX]:
        try:
            with open_sql(settings, database) as session:
                found |= {name for (name,) in session.query("SELECT extname FROM pg_extension") if name is not None}
        except Interrupted:
            raise
        except HoldfastError:
            continue
    return ExtensionsUsed(major, tuple(sorted(found)))
