"""What pg_restore tells of a schema archive, and the statements about the database itself, under another name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.sources.postgres.logical.children import ClientAccess, run_child
from holdfast.sources.postgres.logical.names import quote_identifier
from holdfast.sources.postgres.logical.tools import ClientPrograms

_LINE = re.compile(r"(?P<id>\d+); \d+ \d+ (?P<kind>[A-Z][A-Z ]*?) (?P<rest>\S.*)")
_STATEMENT = (
    r"(?P<head>CREATE DATABASE|ALTER DATABASE|COMMENT ON DATABASE|ALTER ROLE (?:\"(?:[^\"]|\"\")*\"|\S+) IN DATABASE|"
    r"(?:GRANT|REVOKE) [A-Z, ]+ ON DATABASE) "
)


@dataclass(frozen=True, slots=True)
class Item:
    """One line of an archive's list."""

    number: int
    kind: str
    rest: str
    line: str


@dataclass(frozen=True, slots=True)
class Archive:
    """A schema archive in a private file."""

    path: Path
    programs: ClientPrograms
    access: ClientAccess
    stop_requested: Callable[[], bool]

    def _restore(self, *arguments: str) -> str:
        text = bytearray()
        run_child(
            [self.programs.path("pg_restore"), *arguments, str(self.path)],
            self.access,
            "reading the schema's archive",
            self.stop_requested,
            take=text.extend,
        )
        return text.decode("utf-8", "surrogateescape")

    def items(self) -> list[Item]:
        """Return its list."""
        found = []
        for line in self._restore("--create", "--list").splitlines():
            match = _LINE.fullmatch(line)
            if match is not None:
                found.append(Item(int(match["id"]), match["kind"], match["rest"], line))
        return found

    def sql(self, *arguments: str) -> str:
        """Return its statements as text."""
        return self._restore("--file=-", *arguments)

    def database_statements(self, old: str, new: str) -> list[str]:
        """Return the statements that make the database, its owner, settings, comment and privileges, for ``new``."""
        lines = [item.line for item in self.items() if _is_of_database(item)]
        listed = self.path.with_suffix(".database")
        listed.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
        return rename_database(self.sql("--create", f"--use-list={listed}"), old, new)


def _is_of_database(item: Item) -> bool:
    if item.kind in ("DATABASE", "DATABASE PROPERTIES"):
        return True
    return item.kind in ("ACL", "COMMENT", "SECURITY LABEL") and item.rest.startswith("- DATABASE ")


def rename_database(sql: str, old: str, new: str) -> list[str]:
    """Return the statements about database ``old`` in a script, each about ``new`` instead; others are left out."""
    quoted = quote_identifier(old)
    names = re.escape(quoted) + (f"|{re.escape(old)}" if re.fullmatch(r"[a-z_][a-z0-9_$]*", old) else "")
    pattern = re.compile(_STATEMENT + rf"(?P<name>{names})(?=[ ;])")
    statements = []
    for statement in split_statements(sql):
        match = pattern.match(statement)
        if match is not None:
            statements.append(f"{match['head']} {quote_identifier(new)}{statement[match.end() :]}")
    return statements


def split_statements(sql: str) -> list[str]:
    """Split a script of simple statements at semicolons outside quotes; comments and psql's own commands are left out.

    For what pg_dump writes about databases and roles: it has no dollar quotes.
    """
    statements: list[str] = []
    current: list[str] = []
    quote = ""
    for line in sql.splitlines(keepends=True):
        if not quote and not "".join(current).strip() and (line.startswith(("--", "\\")) or not line.strip()):
            continue
        for character in line:
            current.append(character)
            if quote:
                quote = "" if character == quote else quote
            elif character in "'\"":
                quote = character
            elif character == ";":
                statements.append("".join(current).strip())
                current = []
    return statements


def role_statements(sql: str, missing: Sequence[str]) -> list[str]:
    """Return what of a globals script makes the missing roles, without passwords, and grants them their memberships."""
    wanted = {quote_identifier(name) for name in missing} | {
        name for name in missing if re.fullmatch(r"[a-z_][a-z0-9_$]*", name)
    }
    chosen = []
    identifier = r'("(?:[^"]|"")*"|[^\s;]+)'
    for statement in split_statements(sql):
        made = re.match(rf"(?:CREATE|ALTER) ROLE {identifier}", statement)
        granted = re.match(rf"GRANT {identifier} TO {identifier}", statement)
        if made is not None and made[1] in wanted and " IN DATABASE " not in statement:
            chosen.append(re.sub(r" PASSWORD '(?:[^']|'')*'", "", statement))
        elif granted is not None and (granted[1] in wanted or granted[2] in wanted):
            # Who granted it may not be here, and does not matter to what it allows.
            chosen.append(re.sub(rf" GRANTED BY {identifier}", "", statement))
    return chosen
