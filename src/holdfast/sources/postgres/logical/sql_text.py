"""Reads the SQL that PostgreSQL's own programs write: words, statements, and a database's under another name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.sources.postgres.logical.names import quote_identifier

# In what pg_dump writes a quote inside a literal is always doubled, never escaped, whatever the literal's kind.
_TOKEN = re.compile(
    r"""
    (?P<skip>\s+|--[^\n]*)
  | (?P<meta>(?<![^\n])\\[^\n]*)
  | (?P<text>[eE]?'(?:[^']|'')*')
  | (?P<body>\$(?P<tag>(?:[A-Za-z_][A-Za-z0-9_]*)?)\$.*?\$(?P=tag)\$)
  | (?P<quoted>"(?:[^"]|"")*")
  | (?P<word>[^\W\d][\w$]*)
  | (?P<mark>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_SIMPLE_NAME = re.compile(r"[a-z_][a-z0-9_$]*")
_ROLE_WORDS = frozenset(("TO", "FROM", "ROLE", "USER", "BY", "FOR", "AUTHORIZATION"))
_NAME = r'(?:"(?:[^"]|"")*"|[^\s;,.(]+)'
_ABOUT_DATABASE = re.compile(
    rf"(?P<head>(?:CREATE|ALTER|COMMENT ON) DATABASE|ALTER ROLE {_NAME} IN DATABASE|"
    rf"(?:GRANT|REVOKE)(?: GRANT OPTION FOR)? [A-Z, ]+ ON DATABASE) (?P<name>{_NAME})(?=[ ;])"
)
_EARLY = re.compile(r" OWNER TO | SET [\w\"]+\.")
_STRINGS = re.compile(r"^SET standard_conforming_strings = (on|off);", re.MULTILINE)
_TABLESPACE_CLAUSE = re.compile(rf" TABLESPACE = (?P<name>{_NAME})(?=[ ;])")


@dataclass(frozen=True, slots=True)
class Token:
    """A word, a quoted name, a literal or a mark; blanks, comments and psql's own commands are left out."""

    kind: str
    text: str

    @property
    def name(self) -> str | None:
        """What it names if it is a name."""
        if self.kind == "quoted":
            return unquote(self.text)
        return self.text if self.kind == "word" else None


def tokens(sql: str) -> Iterator[Token]:
    """Yield the tokens of a script."""
    for match in _TOKEN.finditer(sql):
        kind = match.lastgroup or "mark"
        if kind not in ("skip", "meta"):
            yield Token("body" if kind == "tag" else kind, match[0])


def statements(sql: str) -> list[str]:
    """Split a script at semicolons outside literals and bodies; comments and psql's own commands are left out."""
    found: list[str] = []
    current: list[str] = []
    for match in _TOKEN.finditer(sql):
        if match["meta"] is not None or match[0].startswith("--"):
            continue
        current.append(match[0])
        if match["mark"] == ";":
            found.append("".join(current).strip())
            current.clear()
    return found


def spellings(name: str) -> set[str]:
    """Return the ways in which a name may be written."""
    return {quote_identifier(name), name} if _SIMPLE_NAME.fullmatch(name) else {quote_identifier(name)}


def unquote(written: str) -> str:
    """Return the name that is written."""
    return written[1:-1].replace('""', '"') if written.startswith('"') else written


@dataclass(frozen=True, slots=True)
class NamedThings:
    """What a script leans on that lives outside a database, or comes with the host."""

    roles: frozenset[str]
    owners: frozenset[str]
    tablespaces: frozenset[str]
    collations: frozenset[str]


def named_things(sql: str) -> NamedThings:
    """Return which names stand where roles, tablespaces and the system's collations are named.

    Of roles that is too many rather than too few: whoever asks knows which roles there were.
    """
    roles, owners, tablespaces, collations = set[str](), set[str](), set[str](), set[str]()
    window: list[Token] = [Token("mark", "")] * 3
    is_listing = False
    for token in tokens(sql):
        second, third, before = window
        name = token.name
        is_listing = (is_listing and token.text == ",") or (is_listing and before.text == ",")
        if name is not None and (before.text.upper() in _ROLE_WORDS or is_listing):
            roles.add(name)
            is_listing = True
            if before.text == "TO" and third.text == "OWNER":
                owners.add(name)
        if name is not None and "TABLESPACE" in (before.text, third.text if before.text == "=" else ""):
            tablespaces.add(name)
        if name is not None and (third.text, before.text) == ("default_tablespace", "="):
            tablespaces.add(name)
        if name is not None and before.text == "." and third.text == "pg_catalog" and second.text == "COLLATE":
            collations.add(name)
        window = [third, before, token]
    return NamedThings(frozenset(roles), frozenset(owners), frozenset(tablespaces), frozenset(collations))


@dataclass(frozen=True, slots=True)
class DatabaseScript:
    """The statements about one database. ``strings`` is the setting they are written for; ``comment`` an expression.

    ``early`` is what loading itself depends on: the owner, whom the public schema is of, and settings with names of the
    application's own, which constraints may read.
    """

    strings: str
    create: str
    early: tuple[str, ...]
    late: tuple[str, ...]
    comment: str


def database_script(sql: str, old: str, new: str) -> DatabaseScript:
    """Return what of a script is about database ``old``, each statement about ``new`` instead."""
    strings = _STRINGS.search(sql)
    create, comment = "", "NULL"
    early: list[str] = []
    late: list[str] = []
    written = spellings(old)
    for statement in statements(sql):
        match = _ABOUT_DATABASE.match(statement)
        if match is None or match["name"] not in written:
            continue
        rest = statement[match.end() :]
        renamed = f"{match['head']} {quote_identifier(new)}{rest}"
        if match["head"] == "CREATE DATABASE":
            create = renamed
        elif match["head"] == "COMMENT ON DATABASE":
            comment = rest.partition(" IS ")[2].rstrip(";")
        elif match["head"] == "ALTER DATABASE" and _EARLY.match(rest):
            early.append(renamed)
        else:
            late.append(renamed)
    return DatabaseScript(strings[1] if strings else "on", create, tuple(early), tuple(late), comment)


def without_tablespace(create: str, there: set[str]) -> str:
    """Return a CREATE DATABASE without the tablespace that is not ``there``."""
    match = _TABLESPACE_CLAUSE.search(create)
    if match is None or unquote(match["name"]) in there:
        return create
    return create[: match.start()] + create[match.end() :]
