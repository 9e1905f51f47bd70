"""Looks at a PostgreSQL server without changing anything, and says what is wrong and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from holdfast.model.errors import ConfigInvalid, Denied, HoldfastError, Interrupted, SourceFailed
from holdfast.sources.port import Finding, Identity, Probe, Severity
from holdfast.sources.postgres.connection import Mode, Session, open_replication, open_sql
from holdfast.sources.postgres.failures import Refusal, classify
from holdfast.sources.postgres.probe_facts import ServerView, narrow_view, read_view
from holdfast.sources.postgres.probe_findings import judge, replication_finding
from holdfast.sources.postgres.probe_log import judge_log, read_log_facts
from holdfast.sources.postgres.roles import ROLE_NAME, access_line, complete_role, create_role
from holdfast.sources.postgres.server import KIND, ServerFacts, read_server
from holdfast.sources.postgres.settings import PostgresSettings, parse_dsn

FALLBACK_DATABASE = "postgres"
"""Where a database named like the role, libpq's default, does not exist."""

_POOLER = re.compile(r"unsupported startup parameter|no such database|bouncer config error", re.IGNORECASE)
"""Words that only PgBouncer says; it answers in PostgreSQL's place."""
_REFUSED_CLIENT = re.compile(r'pg_hba\.conf\D*?(?:entry|rejects)[^"]*?host "([0-9a-fA-F.:]+)"(?:, user "([^"]*)")?')
_UNENCRYPTED = re.compile(r"no encryption|SSL off")


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class _Seen:
    """What was learned so far, whichever way in was found."""

    findings: list[Finding] = field(default_factory=list)
    view: ServerView | None = None
    server: ServerFacts | None = None

    def add(self, topic: str, severity: Severity, message: str, hint: str) -> None:
        self.findings.append(Finding(topic, severity, message, hint))


def probe_postgres(settings: PostgresSettings, now: Callable[[], datetime] = _utc_now) -> Probe:
    """Return what a source is and can do, as far as its role sees.

    Connects twice, for SQL and for replication; either alone still gives findings. Raises only ``Interrupted``.
    """
    seen = _Seen()
    _look_by_sql(settings, now, seen)
    _look_by_replication(settings, seen)
    return Probe(
        identity=_identity(seen),
        version=_version(seen),
        size_bytes=seen.view.size_bytes if seen.view else None,
        clock_offset_seconds=seen.view.clock_offset_seconds if seen.view else None,
        findings=tuple(seen.findings),
    )


def _look_by_sql(settings: PostgresSettings, now: Callable[[], datetime], seen: _Seen) -> None:
    try:
        with _open_sql(settings) as session:
            seen.view = read_view(session, now)
            log = read_log_facts(session, settings)
        if seen.view is None:
            raise SourceFailed("the server does not answer SQL as PostgreSQL does", hint="is a proxy in between?")
    except Interrupted:
        raise
    except HoldfastError as error:
        seen.findings.append(_refusal("connection", error, settings, seen))
    else:
        seen.add("connection", Severity.OK, f"connected to database {seen.view.database} as {seen.view.role}", "")
        seen.findings.extend(judge(seen.view))
        seen.findings.extend(judge_log(log))


def _open_sql(settings: PostgresSettings) -> Session:
    try:
        return open_sql(settings)
    except Denied as error:
        named = "dbname" in parse_dsn(settings.dsn)
        if named or classify(error.message) is not Refusal.DATABASE:
            raise
        return open_sql(settings, FALLBACK_DATABASE)


def _look_by_replication(settings: PostgresSettings, seen: _Seen) -> None:
    """Try the way that base backups take; without it nothing else counts."""
    try:
        with open_replication(settings) as session:
            seen.server = read_server(session)
            physical = session.mode is Mode.REPLICATION
            if seen.view is None:
                _judge_by_replication(session, _role(settings), seen)
    except Interrupted:
        raise
    except HoldfastError as error:
        seen.findings.append(_refusal("replication", error, settings, seen))
        return
    view = seen.view
    role = view.role if view else _role(settings)
    client, encrypted = (view.client, bool(view.encrypted)) if view else (None, False)
    seen.findings.append(replication_finding(role, client, encrypted=encrypted, physical=physical))
    identifier = seen.server.system_identifier
    seen.add("identity", Severity.OK, f"system {identifier}, timeline {seen.server.timeline}", "")


def _judge_by_replication(session: Session, role: str, seen: _Seen) -> None:
    """Without SQL a backup works all the same: judge what a WAL sender tells, and do not call the source broken."""
    seen.findings = [
        replace(
            finding,
            severity=Severity.WARNING,
            message=f"backups work, but without SQL the rest cannot be seen: {finding.message}",
        )
        for finding in seen.findings
    ]
    seen.findings.extend(judge(narrow_view(session, role)))


def _refusal(topic: str, error: HoldfastError, settings: PostgresSettings, seen: _Seen) -> Finding:
    """Return the finding for a way in that is closed, with what opens it."""
    hint = error.hint
    if _POOLER.search(error.message):
        hint = (
            "this address belongs to a connection pooler (PgBouncer or the like), which does not pass replication on: "
            "name the host and port of PostgreSQL itself"
        )
    elif not isinstance(error, ConfigInvalid):
        hint = _way_in(topic, error, settings, seen) or hint
    return Finding(topic, Severity.BROKEN, error.message, hint)


def _way_in(topic: str, error: HoldfastError, settings: PostgresSettings, seen: _Seen) -> str:
    role = seen.view.role if seen.view else _role(settings)
    match classify(error.message):
        case Refusal.ROLE:
            return f"run as a superuser: {create_role(role)} and set its password with \\password"
        case Refusal.PRIVILEGE:
            return f"run as a superuser: {complete_role(role)}"
        case Refusal.HBA:
            return f"add to pg_hba.conf and reload (SELECT pg_reload_conf()): {_line(topic, error, role, seen)}"
    return ""


def _line(topic: str, error: HoldfastError, role: str, seen: _Seen) -> str:
    """Return the line for pg_hba.conf with our address as the server sees it: from its refusal, or from SQL."""
    refused = _REFUSED_CLIENT.search(error.message)
    client = refused[1] if refused else seen.view.client if seen.view else None
    role = refused[2] if refused and refused[2] else role
    encrypted = (
        bool(seen.view.encrypted) if seen.view else client is not None and not _UNENCRYPTED.search(error.message)
    )
    line = access_line(role, client, encrypted=encrypted)
    return line if topic == "replication" else line.replace("replication", "all,replication", 1)


def _role(settings: PostgresSettings) -> str:
    try:
        return parse_dsn(settings.dsn).get("user", ROLE_NAME)
    except ConfigInvalid:
        return ROLE_NAME


def _identity(seen: _Seen) -> Identity | None:
    if seen.server is not None:
        return seen.server.identity
    view = seen.view
    if view is None or view.system_identifier is None:
        return None
    major = str(view.version_num // 10000)
    return Identity(KIND, (("system_identifier", view.system_identifier), ("major_version", major)))


def _version(seen: _Seen) -> str:
    if seen.server is not None:
        return seen.server.version
    return seen.view.settings.get("server_version", "") if seen.view else ""
