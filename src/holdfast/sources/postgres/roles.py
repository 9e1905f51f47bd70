"""The exact SQL that makes a role holdfast can use: the least that works, and what more would be good for."""

from __future__ import annotations

from dataclasses import dataclass

ROLE_NAME = "holdfast"
"""The name in the statements where no role is known."""


@dataclass(frozen=True, slots=True)
class Extra:
    """A privilege beyond the least. ``held_sql`` is an expression that tells whether the current role has it.

    ``grants`` are statements with ``{role}`` for the quoted role; ``purpose`` completes "without it ...".
    """

    name: str
    held_sql: str
    grants: tuple[str, ...]
    purpose: str

    def statements(self, role: str) -> str:
        """Return what a superuser runs to give it to a role."""
        return " ".join(f"{grant.format(role=quote_identifier(role))};" for grant in self.grants)


def _executable(*functions: str) -> str:
    return " AND ".join(f"has_function_privilege('{function}', 'EXECUTE')" for function in functions)


def _selectable(*relations: str) -> str:
    return " AND ".join(f"has_table_privilege('{relation}', 'SELECT')" for relation in relations)


EXTRAS = (
    Extra(
        "pg_monitor",
        "pg_has_role('pg_monitor', 'USAGE')",
        ("GRANT pg_monitor TO {role}",),
        "sizes of every database, the place of the configuration and some settings cannot be seen",
    ),
    Extra(
        "marks",
        _executable("pg_create_restore_point(text)", "pg_switch_wal()"),
        ("GRANT EXECUTE ON FUNCTION pg_create_restore_point(text), pg_switch_wal() TO {role}",),
        "`holdfast mark` cannot name a moment in the server's log",
    ),
    Extra(
        "configuration",
        " AND ".join(
            (
                _selectable("pg_file_settings", "pg_hba_file_rules", "pg_ident_file_mappings"),
                _executable("pg_show_all_file_settings()", "pg_hba_file_rules()", "pg_ident_file_mappings()"),
            )
        ),
        (
            "GRANT SELECT ON pg_file_settings, pg_hba_file_rules, pg_ident_file_mappings TO {role}",
            "GRANT EXECUTE ON FUNCTION pg_show_all_file_settings(), pg_hba_file_rules(), pg_ident_file_mappings() "
            "TO {role}",
        ),
        "configuration files and access rules outside the data folder are not kept, not even parsed",
    ),
)
"""Each one helps; none is needed for a backup that restores."""

FILE_BYTES = Extra(
    "configuration bytes",
    "pg_has_role('pg_read_server_files', 'USAGE') AND " + _executable("pg_read_binary_file(text,bigint,bigint)"),
    (
        "GRANT pg_read_server_files TO {role}",
        "GRANT EXECUTE ON FUNCTION pg_read_binary_file(text, bigint, bigint) TO {role}",
    ),
    "configuration outside the data folder is kept parsed, not byte for byte (the grant lets the role read ANY file "
    "that the server can read)",
)
"""Only worth its risk where the configuration lies outside the data folder."""


def quote_identifier(name: str) -> str:
    """Return a name as SQL takes it, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def create_role(role: str = ROLE_NAME) -> str:
    """Return the statement for the least role that can back up and follow; a password is set beside it."""
    return f"CREATE ROLE {quote_identifier(role)} LOGIN REPLICATION;"


def complete_role(role: str) -> str:
    """Return the statement that makes an existing role able to back up."""
    return f"ALTER ROLE {quote_identifier(role)} LOGIN REPLICATION;"


def access_line(role: str, client: str | None, *, encrypted: bool) -> str:
    """Return the pg_hba.conf line that lets a role replicate from an address, None being the local socket."""
    user = role if role.replace("_", "").isalnum() and role.islower() else quote_identifier(role)
    if client is None:
        return f"local  replication  {user}  scram-sha-256"
    address = client if "/" in client else f"{client}/{128 if ':' in client else 32}"
    return f"{'hostssl' if encrypted else 'host'}  replication  {user}  {address}  scram-sha-256"
