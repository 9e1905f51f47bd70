"""Looks at a target server before anything is written to it: whatever would fail later fails here, with a hint."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from holdfast.model.errors import ConfigInvalid, Conflict, Denied, HoldfastError, Interrupted, NotFound, Unavailable
from holdfast.sources.postgres.connection import Session
from holdfast.sources.postgres.logical.names import quote_identifier, quote_literal
from holdfast.sources.postgres.logical.sql_text import NamedThings
from holdfast.sources.postgres.logical.witness import DatabaseWitness

TOLD_MAX = 5
CONNECTIONS_BESIDE_JOBS = 5
"""The one that leads, the one that ends sessions, the snapshot's, its outside look, and pg_restore's own."""

_SELF = """
SELECT r.rolsuper, r.rolcreatedb, r.rolcreaterole, current_user, pg_catalog.pg_is_in_recovery()
FROM pg_catalog.pg_roles r WHERE r.rolname = current_user"""
_CONNECTIONS = """
SELECT (SELECT sum(CASE name WHEN 'max_connections' THEN setting::int ELSE -setting::int END)
        FROM pg_catalog.pg_settings
        WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections'))
       - (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend')"""
_EXTENSIONS = "SELECT name, coalesce(default_version, '') FROM pg_catalog.pg_available_extensions"
_MEMBERS = """
SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = ANY ($1::text[])
AND NOT pg_catalog.pg_has_role(oid, 'MEMBER')"""
_CREATE_CLAUSE = re.compile(r" (LOCALE_PROVIDER|LC_COLLATE|LC_CTYPE|LOCALE|ENCODING) = ('(?:[^']|'')*'|\w+)")


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """The target server, and the role we are there."""

    version_num: int
    role: str
    is_superuser: bool
    may_create_database: bool
    may_create_role: bool
    in_recovery: bool
    roles: frozenset[str]
    tablespaces: frozenset[str]
    databases: frozenset[str]

    @property
    def major(self) -> int:
        """The major version."""
        return self.version_num // 10000


@dataclass(frozen=True, slots=True)
class Needs:
    """What a restore asks of a target. ``extensions`` are those of the part that is loaded."""

    major: int
    database: DatabaseWitness
    named: NamedThings
    create: str
    extensions: tuple[tuple[str, str], ...]
    jobs: int


def read_target(session: Session) -> TargetFacts:
    """Ask a server what must be known of it."""
    is_super, makes_databases, makes_roles, role, in_recovery = session.query(_SELF)[0]
    return TargetFacts(
        version_num=session.server_version,
        role=role or "",
        is_superuser=is_super == "t",
        may_create_database=makes_databases == "t",
        may_create_role=makes_roles == "t",
        in_recovery=in_recovery == "t",
        roles=_names(session, "SELECT rolname FROM pg_catalog.pg_roles"),
        tablespaces=_names(session, "SELECT spcname FROM pg_catalog.pg_tablespace"),
        databases=_names(session, "SELECT datname FROM pg_catalog.pg_database"),
    )


def _names(session: Session, query: str) -> frozenset[str]:
    return frozenset(name or "" for (name,) in session.query(query))


def refuse_target(facts: TargetFacts, major: int) -> None:
    """Raise for a server that no database of PostgreSQL ``major`` can be made on by this role."""
    if facts.in_recovery:
        raise Conflict("the target is a standby: nothing can be written there", hint="Name the primary.")
    if facts.major < major:
        raise Conflict(
            f"the backup is of PostgreSQL {major} and the target is PostgreSQL {facts.major}",
            hint=f"Restore into a server of version {major} or newer.",
        )
    if not (facts.is_superuser or facts.may_create_database):
        raise Denied(
            f"role {facts.role} may not create databases on the target",
            hint=f"As a superuser: ALTER ROLE {quote_identifier(facts.role)} CREATEDB; or restore as another role.",
        )


def check_target(session: Session, facts: TargetFacts, needs: Needs) -> list[str]:
    """Return what is worth knowing; raises what would stop the restore, all of it at once."""
    problems: list[HoldfastError] = []
    notes: list[str] = []
    for check in (_connections, _extensions, _locale, _collations, _owners, _tablespaces):
        for found in check(session, facts, needs):
            if isinstance(found, HoldfastError):
                problems.append(found)
            else:
                notes.append(found)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise Conflict(
            f"the target cannot take this backup: {'; '.join(problem.message for problem in problems)}",
            hint=" ".join(dict.fromkeys(problem.hint for problem in problems)),
        )
    return notes


Findings = Iterator[HoldfastError | str]


def _connections(session: Session, facts: TargetFacts, needs: Needs) -> Findings:
    free = int(session.query(_CONNECTIONS)[0][0] or 0)
    wanted = 2 * needs.jobs + CONNECTIONS_BESIDE_JOBS
    if free < wanted:
        yield Unavailable(
            f"the target has {max(free, 0)} free connections, and a restore needs {wanted}",
            hint="End idle sessions, raise max_connections, or lower `jobs` of this source.",
        )


def _extensions(session: Session, facts: TargetFacts, needs: Needs) -> Findings:
    available = {name or "": version or "" for name, version in session.query(_EXTENSIONS)}
    missing = [name for name, _ in needs.extensions if name not in available]
    if missing:
        yield NotFound(
            f"the target lacks extensions that {needs.database.name} uses: {', '.join(missing)}",
            hint="Install their packages on the target's host (Debian: postgresql-contrib, postgresql-"
            f"{facts.major}-NAME), and run this again; nothing was written.",
        )
    for name, version in needs.extensions:
        if available.get(name, version) != version:
            yield f"extension {name} was {version} and will be {available[name]}, the target's own version"


def _locale(session: Session, facts: TargetFacts, needs: Needs) -> Findings:
    clauses = {name: value.strip("'").replace("''", "'") for name, value in _CREATE_CLAUSE.findall(needs.create)}
    provider = clauses.get("LOCALE_PROVIDER", "libc")
    if provider == "icu" and not session.query(
        "SELECT 1 FROM pg_catalog.pg_collation WHERE collprovider = 'i' LIMIT 1"
    ):
        yield Conflict(
            f"database {needs.database.name} sorts by ICU, and the target was built without it",
            hint="Restore into a server built with ICU.",
        )
    collate = clauses.get("LC_COLLATE") or clauses.get("LOCALE", "C")
    ctype = clauses.get("LC_CTYPE") or clauses.get("LOCALE", "C")
    if provider == "libc" and not _has_locale(session, collate, ctype):
        yield NotFound(
            f"the target's host has no locale {collate}" + (f" or {ctype}" if ctype != collate else ""),
            hint="Make it there (Debian: dpkg-reconfigure locales), restart the server, and run this again.",
        )


def _has_locale(session: Session, collate: str, ctype: str) -> bool:
    """Try to make a collation of it in a transaction that is rolled back: only the server knows its host."""
    if {collate, ctype} <= {"C", "POSIX"}:
        return True
    session.query("BEGIN")
    try:
        session.query(
            f"CREATE COLLATION pg_temp.holdfast_try (LC_COLLATE = {quote_literal(collate)}, "
            f"LC_CTYPE = {quote_literal(ctype)})"
        )
    except HoldfastError as error:
        if isinstance(error, Interrupted):
            raise
        # Whatever else it says (another encoding, no leave to try) is for CREATE DATABASE to judge.
        return "could not create locale" not in error.message
    else:
        return True
    finally:
        session.query("ROLLBACK")


def _collations(session: Session, facts: TargetFacts, needs: Needs) -> Findings:
    if not needs.named.collations:
        return
    there = _names(
        session,
        "SELECT collname FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace "
        "WHERE n.nspname = 'pg_catalog'",
    )
    missing = sorted(needs.named.collations - there)
    if missing:
        yield NotFound(
            f"the target lacks collations that {needs.database.name} uses: {_some(missing)}",
            hint="Make the locales on the target's host, then SELECT pg_import_system_collations('pg_catalog');",
        )


def _owners(session: Session, facts: TargetFacts, needs: Needs) -> Findings:
    if facts.is_superuser:
        return
    foreign = [name or "" for (name,) in session.query(_MEMBERS, (_array(sorted(needs.named.owners & facts.roles)),))]
    if foreign:
        listed = ", ".join(quote_identifier(name) for name in foreign)
        yield Denied(
            f"role {facts.role} may not give objects to their owners: {_some(foreign)}",
            hint=f"GRANT {listed} TO {quote_identifier(facts.role)}; or restore as a superuser.",
        )


def _tablespaces(session: Session, facts: TargetFacts, needs: Needs) -> Findings:
    missing = sorted(needs.named.tablespaces - facts.tablespaces)
    if missing:
        yield f"the target has no tablespace {_some(missing)}: what lay there goes to the default one"


def _array(names: Iterable[str]) -> str:
    return "{" + ",".join('"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"' for name in names) + "}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:TOLD_MAX]) + (", ..." if len(names) > TOLD_MAX else "")


def refuse_bound(session: Session, live: str) -> list[str]:
    """Raise ``Conflict`` for what keeps a database from being renamed; return what would not follow the swap."""
    name = quote_literal(live)
    owner, is_ours, takes_connections = session.query(
        "SELECT pg_catalog.pg_get_userbyid(datdba), pg_catalog.pg_has_role(datdba, 'USAGE'), datallowconn "
        f"FROM pg_catalog.pg_database WHERE datname = {name}"
    )[0]
    if is_ours != "t":
        raise Denied(
            f"database {live} belongs to {owner}, and this role may not rename it",
            hint=f"GRANT {quote_identifier(owner or '')} to it, or restore as that role (it needs CREATEDB too).",
        )
    if takes_connections != "t":
        raise Conflict(
            f"database {live} takes no connections, and what belongs to it has to be read",
            hint=f"ALTER DATABASE {quote_identifier(live)} ALLOW_CONNECTIONS true; to keep the application out give it "
            "CONNECTION LIMIT 0 meanwhile (superusers are not held back by it), or revoke its role's CONNECT.",
        )
    prepared = session.query(f"SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = {name}")
    if prepared:
        raise Conflict(
            f"database {live} has {len(prepared)} prepared transactions, first {prepared[0][0]}",
            hint="End each in that database with COMMIT PREPARED or ROLLBACK PREPARED, then run this again.",
        )
    slots = session.query(f"SELECT slot_name FROM pg_catalog.pg_replication_slots WHERE database = {name}")
    if slots:
        raise Conflict(
            f"database {live} has logical replication slots: {', '.join(row[0] or '' for row in slots)}",
            hint="They are bound to the old database and would not follow: stop their consumers, drop them "
            "(SELECT pg_drop_replication_slot(...)), and make them anew after the swap.",
        )
    subscriptions = _subscriptions(session, name)
    if subscriptions:
        raise Conflict(
            f"database {live} has enabled subscriptions: {_some(subscriptions)}",
            hint="Disable each in that database (ALTER SUBSCRIPTION ... DISABLE), and set them up anew after the swap.",
        )
    sessions = session.query(
        f"SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE datname = {name} AND backend_type = 'client backend'"
    )[0][0]
    return [f"{sessions} sessions of {live} will be ended at the swap"] if sessions != "0" else []


def _subscriptions(session: Session, quoted: str) -> list[str]:
    try:
        rows = session.query(
            "SELECT p.subname FROM pg_catalog.pg_subscription p JOIN pg_catalog.pg_database d ON d.oid = p.subdbid "
            f"WHERE d.datname = {quoted} AND p.subenabled ORDER BY 1"
        )
    except Denied:
        return []  # Only superusers see them; an enabled one that works holds a session, which keeps the swap away.
    return [name or "" for (name,) in rows]


def refuse_taken(facts: TargetFacts, names: Iterable[str | None]) -> None:
    """Raise ``ConfigInvalid`` where a name for a new database is taken."""
    for name in names:
        if name in facts.databases:
            raise ConfigInvalid(
                f"the server has a database {name} already",
                hint="Name another one that does not exist yet, or add --in-place to replace it.",
            )
