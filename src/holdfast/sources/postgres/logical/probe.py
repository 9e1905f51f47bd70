"""What a logical capture of a server would meet: tools, privileges, tables that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.model.errors import HoldfastError, Interrupted, NotFound
from holdfast.sources.port import Finding, Probe, Severity
from holdfast.sources.postgres.connection import Session, open_sql
from holdfast.sources.postgres.logical.capture import NO_IDENTIFIER, POOLER_HINT, read_logical_server
from holdfast.sources.postgres.logical.names import quote_identifier
from holdfast.sources.postgres.logical.tools import clients_for
from holdfast.sources.postgres.server import MAJOR_FIRST, MAJOR_LAST
from holdfast.sources.postgres.settings import PostgresSettings

TOPIC = "logical"
GRANT_LARGE_OBJECTS = (
    "As a superuser, in database {}: DO $$DECLARE each oid; BEGIN FOR each IN SELECT oid FROM pg_largeobject_metadata "
    "LOOP EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO {}', each); END LOOP; END$$; (and again for new ones)"
)
NAMES_TOLD_MAX = 5
DATABASES_LOOKED_AT_MAX = 200

_ROLE = """
SELECT current_user, rolsuper, rolbypassrls, pg_catalog.pg_has_role(current_user, 'pg_read_all_data', 'USAGE'),
       (SELECT min(known.service) FROM pg_catalog.pg_roles s JOIN (VALUES
            ('rds_superuser', 'Amazon RDS'), ('cloudsqlsuperuser', 'Google Cloud SQL'), ('alloydbsuperuser', 'AlloyDB'),
            ('azure_pg_admin', 'Azure Database'), ('neon_superuser', 'Neon'), ('supabase_admin', 'Supabase')
            ) known(role, service) ON known.role = s.rolname)
FROM pg_catalog.pg_roles WHERE rolname = current_user"""

# What is locked by pg_dump (a partitioned table too) or read by us; of extensions only what is configuration.
_UNREADABLE = """
SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND NOT (pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND
           CASE c.relkind WHEN 'S' THEN pg_catalog.has_sequence_privilege(c.oid, 'SELECT')
                ELSE pg_catalog.has_table_privilege(c.oid, 'SELECT') OR NOT EXISTS (
                    SELECT 1 FROM pg_catalog.pg_attribute a
                    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
                END)
  AND (c.oid IN (SELECT unnest(extconfig) FROM pg_catalog.pg_extension) OR NOT EXISTS (
      SELECT 1 FROM pg_catalog.pg_depend d
      WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'))
ORDER BY 1"""

_GUARDED = """
SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relrowsecurity
  AND (c.relforcerowsecurity OR NOT pg_catalog.pg_has_role(c.relowner, 'USAGE')) ORDER BY 1"""

_LARGE = """
SELECT count(*) FROM pg_catalog.pg_largeobject_metadata m
WHERE NOT pg_catalog.pg_has_role(m.lomowner, 'USAGE')
  AND NOT EXISTS (SELECT 1 FROM pg_catalog.aclexplode(m.lomacl) a
                  WHERE a.privilege_type = 'SELECT'
                    AND (a.grantee = 0 OR pg_catalog.pg_has_role(a.grantee, 'USAGE')))"""


def probe_logical(settings: PostgresSettings) -> Probe:
    """Look at everything a logical capture needs; change nothing."""
    try:
        with open_sql(settings) as session:
            return _look(settings, session)
    except Interrupted:
        raise
    except HoldfastError as error:
        finding = Finding(TOPIC, Severity.BROKEN, error.message, error.hint)
        return Probe(None, "", None, None, (finding,))


def _look(settings: PostgresSettings, session: Session) -> Probe:
    findings: list[Finding] = []
    if session.is_pooled:
        findings.append(Finding(TOPIC, Severity.BROKEN, "a connection pooler stands between", POOLER_HINT))
        return Probe(None, "", None, None, tuple(findings))
    server = read_logical_server(session, settings)
    if not MAJOR_FIRST <= server.major <= MAJOR_LAST:
        message = f"PostgreSQL {server.major} is not supported, only {MAJOR_FIRST} to {MAJOR_LAST}"
        findings.append(Finding(TOPIC, Severity.BROKEN, message, "Upgrade the server, or holdfast."))
    findings += _tools(settings, server.major)
    findings += _role(session, settings)
    if not server.sees_passwords:
        findings.append(
            Finding(
                TOPIC,
                Severity.NOTICE,
                "roles are kept without their passwords: this role may not read pg_authid",
                "As a superuser: GRANT SELECT ON pg_authid TO the role, or set passwords anew after a restore.",
            )
        )
    if not server.system_identifier:
        role = quote_identifier(session.resolved()["user"])
        grant = f"GRANT EXECUTE ON FUNCTION pg_control_system() TO {role};"
        hint = f"As a superuser, in the database it connects to: {grant}"
        findings.append(Finding(TOPIC, Severity.NOTICE, NO_IDENTIFIER.format(server.address), hint))
    return Probe(server.identity, server.version, None, None, tuple(findings))


def _tools(settings: PostgresSettings, major: int) -> Iterator[Finding]:
    try:
        programs = clients_for(major, named=settings.programs)
    except NotFound as error:
        yield Finding(TOPIC, Severity.BROKEN, error.message, error.hint)
    else:
        yield Finding(TOPIC, Severity.OK, f"client programs of PostgreSQL {programs.version} in {programs.folder}")


def _role(session: Session, settings: PostgresSettings) -> Iterator[Finding]:
    role, is_super, bypasses, reads_all, managed = session.query(_ROLE)[0]
    name = quote_identifier(role or "")
    if managed:
        message = f"{managed}, a managed service: logical backups are the only ones it allows"
        yield Finding(TOPIC, Severity.NOTICE, message, "Restores go into a database of it, beside or in place.")
    databases = [
        database
        for (database,) in session.query(
            "SELECT datname FROM pg_catalog.pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1"
        )
        if database is not None and (not settings.databases or database in settings.databases)
    ]
    sound = True
    for database in databases[:DATABASES_LOOKED_AT_MAX]:
        for finding in _database(settings, database, name, sees_all=is_super == "t", bypasses=bypasses == "t"):
            sound = False
            yield finding
    if sound:
        how = "superuser" if is_super == "t" else "pg_read_all_data" if reads_all == "t" else "its own grants"
        yield Finding(TOPIC, Severity.OK, f"{role} can read every table of {len(databases)} databases ({how})")


def _database(
    settings: PostgresSettings, database: str, role: str, *, sees_all: bool, bypasses: bool
) -> Iterator[Finding]:
    if sees_all:
        return
    try:
        with open_sql(settings, database) as session:
            unreadable = [row[0] or "" for row in session.query(_UNREADABLE)]
            guarded = [] if bypasses else [row[0] or "" for row in session.query(_GUARDED)]
            large = int(session.query(_LARGE)[0][0] or 0)
    except Interrupted:
        raise
    except HoldfastError as error:
        yield Finding(TOPIC, Severity.BROKEN, f"database {database}: {error.message}", error.hint)
        return
    if unreadable:
        yield Finding(
            TOPIC,
            Severity.BROKEN,
            f"database {database}: {len(unreadable)} tables and sequences cannot be read: {_some(unreadable)}",
            f"As a superuser: GRANT pg_read_all_data TO {role};",
        )
    if guarded:
        yield Finding(
            TOPIC,
            Severity.BROKEN,
            f"database {database}: row security hides rows of {len(guarded)} tables from this role: {_some(guarded)}",
            f"As a superuser: ALTER ROLE {role} BYPASSRLS;",
        )
    if large:
        yield Finding(
            TOPIC,
            Severity.BROKEN,
            f"database {database}: {large} large objects cannot be read (pg_read_all_data does not cover them)",
            GRANT_LARGE_OBJECTS.format(database, role.replace("'", "''").replace("%", "%%")),
        )


def _some(found: list[str]) -> str:
    return ", ".join(found[:NAMES_TOLD_MAX]) + (", ..." if len(found) > NAMES_TOLD_MAX else "")
