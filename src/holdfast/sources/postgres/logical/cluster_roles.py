"""Makes the roles that a restored database needs and its new server lacks; those it has are never touched."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from holdfast.model.errors import Denied, HoldfastError
from holdfast.sources.postgres.connection import Session
from holdfast.sources.postgres.logical.names import quote_identifier
from holdfast.sources.postgres.logical.sql_text import statements, unquote

TOLD_MAX = 5
_NAME = r'("(?:[^"]|"")*"|[^\s;]+)'
_MADE = re.compile(rf"(?:CREATE|ALTER|COMMENT ON) ROLE {_NAME}(?=[ ;])")
_GRANTED = re.compile(rf"GRANT {_NAME} TO {_NAME}(?=[ ;])")
_PARAMETER = re.compile(rf"GRANT [A-Z, ]+ ON PARAMETER .* TO {_NAME}(?=[ ;])", re.DOTALL)
_GRANTOR = re.compile(rf" GRANTED BY {_NAME}(?=[ ;])")
_PASSWORD = re.compile(r" PASSWORD '(?:[^']|'')*'")
_FOR_SUPERUSERS = re.compile(r" (?:NO)?(?:SUPERUSER|REPLICATION|BYPASSRLS)\b")
_MIGHTY = re.compile(r" (SUPERUSER|REPLICATION|BYPASSRLS)\b")


@dataclass(frozen=True, slots=True)
class RolePlan:
    """Which roles are to be made and by what statements. Nothing in it changes a role that is there."""

    names: tuple[str, ...]
    statements: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RoleRules:
    """``with_passwords`` brings the passwords of roles that are made; ``is_superuser`` is about who makes them."""

    with_passwords: bool = False
    is_superuser: bool = True


def plan_roles(script: str, wanted: Iterable[str], there: Iterable[str], rules: RoleRules) -> RolePlan:
    """Return how the ``wanted`` roles that are not ``there`` are made from a script of pg_dumpall. Pure.

    A role that is made brings the roles it is a member of. Memberships of roles that are there already are told, not
    given: they would let somebody do what he could not before.
    """
    all_statements = statements(script)
    existing = set(there)
    memberships = [(unquote(m[1]), unquote(m[2])) for m in map(_GRANTED.match, all_statements) if m is not None]
    missing = _with_groups({name for name in wanted if name not in existing}, memberships, existing)
    known = {unquote(match[1]) for match in map(_MADE.match, all_statements) if match is not None}
    missing &= known
    chosen: list[str] = []
    notes: list[str] = []
    for statement in all_statements:
        made, granted = _MADE.match(statement), _GRANTED.match(statement)
        parameter = _PARAMETER.match(statement)
        if made is not None and unquote(made[1]) in missing and " IN DATABASE " not in statement[: made.end() + 13]:
            chosen.append(_allowed(statement, unquote(made[1]), rules, notes))
        elif granted is not None and unquote(granted[2]) in missing:
            chosen.append(_GRANTOR.sub("", statement))
        elif granted is not None and unquote(granted[1]) in missing:
            notes.append(f"existing roles are not touched; not done: {_GRANTOR.sub('', statement)}")
        elif parameter is not None and unquote(parameter[1]) in missing and rules.is_superuser:
            chosen.append(_GRANTOR.sub("", statement))
    if missing and not rules.is_superuser:
        chosen += [f"GRANT {quote_identifier(name)} TO CURRENT_USER" for name in sorted(missing)]
    return RolePlan(tuple(sorted(missing)), tuple(chosen), tuple(notes))


def _with_groups(missing: set[str], memberships: list[tuple[str, str]], existing: set[str]) -> set[str]:
    while more := {group for group, member in memberships if member in missing} - missing - existing:
        missing |= more
    return missing


def _allowed(statement: str, name: str, rules: RoleRules, notes: list[str]) -> str:
    if not rules.with_passwords:
        statement = _PASSWORD.sub("", statement)
    if rules.is_superuser or not statement.startswith("ALTER ROLE") or " WITH " not in statement:
        return statement
    lost = _MIGHTY.findall(statement)
    if lost:
        notes.append(f"role {name} is made without {', '.join(lost)}: only a superuser may give that")
    return _FOR_SUPERUSERS.sub("", statement)


def make_roles(session: Session, plan: RolePlan) -> list[str]:
    """Make them, all or none. Raises ``Denied`` where this role may not."""
    if not plan.names:
        return list(plan.notes)
    told = ", ".join(plan.names[:TOLD_MAX]) + (", ..." if len(plan.names) > TOLD_MAX else "")
    session.query("BEGIN")
    try:
        for statement in plan.statements:
            session.query(statement)
        session.query("COMMIT")
    except HoldfastError as error:
        _roll_back(session)
        if isinstance(error, Denied):
            raise Denied(
                f"the target lacks roles that the backup needs ({told}), and this role may not make them: "
                f"{error.message}",
                hint="Make them first, or restore with a role that has CREATEROLE (or is superuser).",
            ) from error
        raise
    return [f"{len(plan.names)} roles were made: {told}", *plan.notes]


def _roll_back(session: Session) -> None:
    try:
        session.query("ROLLBACK")
    except HoldfastError:
        return  # The connection is gone, and the transaction with it; the first error is told.
