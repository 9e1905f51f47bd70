"""What pg_restore tells of a schema archive: its list, what leans on what, and its statements as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from holdfast.model.errors import IntegrityBroken
from holdfast.sources.postgres.logical.children import ClientAccess, run_child
from holdfast.sources.postgres.logical.sql_text import DatabaseScript, database_script
from holdfast.sources.postgres.logical.tools import ClientPrograms

SQL_BYTES_MAX = 128 << 20

MAGIC = b"PGDMP"
_SINCE = {15: 16, 16: 17}
"""From which release on pg_restore reads an archive of version 1.n; below all of them do that are supported."""

# Words that begin like a shorter kind: pg_restore writes kind, schema and name with nothing but blanks between.
_LONGER = (
    *("DATABASE PROPERTIES", "DEFAULT ACL", "INDEX ATTACH", "TABLE ATTACH", "TABLE DATA", "SEQUENCE OWNED BY"),
    *("SEQUENCE SET", "MATERIALIZED VIEW DATA", "MATERIALIZED VIEW", "FOREIGN TABLE", "FOREIGN DATA WRAPPER"),
    *("FOREIGN SERVER", "FK CONSTRAINT", "CHECK CONSTRAINT", "EVENT TRIGGER", "ROW SECURITY", "SECURITY LABEL"),
    *("OPERATOR CLASS", "OPERATOR FAMILY", "PUBLICATION TABLES IN SCHEMA", "PUBLICATION TABLE", "PROCEDURAL LANGUAGE"),
    *("TEXT SEARCH CONFIGURATION", "TEXT SEARCH DICTIONARY", "TEXT SEARCH PARSER", "TEXT SEARCH TEMPLATE"),
    *("SUBSCRIPTION TABLE", "STATISTICS DATA", "ACCESS METHOD", "USER MAPPING", "SHELL TYPE", "BLOB METADATA"),
)
_LINE = re.compile(rf"(?P<id>\d+); (?P<catalog>\d+) (?P<oid>\d+) (?P<kind>{'|'.join(_LONGER)}|[A-Z]+) (?P<rest>\S.*)")
_DEPENDS = re.compile(r";\s+depends on:(?P<ids>[ \d]+)")


@dataclass(frozen=True, slots=True)
class Item:
    """One line of an archive's list. ``rest`` is schema, name and owner; ``depends`` are the numbers it leans on."""

    number: int
    kind: str
    rest: str
    line: str
    depends: tuple[int, ...] = ()


def major_that_reads(head: bytes) -> int:
    """Return the oldest release whose pg_restore reads an archive that begins so; 0 is any.

    Source: PostgreSQL's src/bin/pg_dump/pg_backup_archiver.h, "K_VERS". Raises ``IntegrityBroken``.
    """
    if len(head) < len(MAGIC) + 2 or not head.startswith(MAGIC):
        raise IntegrityBroken("the schema of the backup is no archive of pg_dump", hint="Run `holdfast check`.")
    version, minor = head[len(MAGIC)], head[len(MAGIC) + 1]
    newest = max(_SINCE)
    if version > 1 or minor > newest:
        return _SINCE[newest] + 1
    return _SINCE.get(minor, 0)


def parse_list(text: str) -> list[Item]:
    """Read what ``pg_restore --list --verbose`` prints."""
    found: list[Item] = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is not None:
            found.append(Item(int(match["id"]), match["kind"], match["rest"], line))
            continue
        depends = _DEPENDS.fullmatch(line)
        if depends is not None and found:
            found[-1] = replace(found[-1], depends=tuple(int(number) for number in depends["ids"].split()))
    return found


@dataclass(frozen=True, slots=True)
class Archive:
    """A schema archive in a private file."""

    path: Path
    programs: ClientPrograms
    access: ClientAccess
    stop_requested: Callable[[], bool]

    def _restore(self, *arguments: str) -> str:
        text = bytearray()

        def keep(block: bytes) -> None:
            if len(text) + len(block) > SQL_BYTES_MAX:
                raise IntegrityBroken(
                    f"the schema is more than {SQL_BYTES_MAX >> 20} MiB of SQL", hint="Load it with pg_restore itself."
                )
            text.extend(block)

        run_child(
            [self.programs.path("pg_restore"), *arguments, str(self.path)],
            self.access,
            "reading the schema's archive",
            self.stop_requested,
            take=keep,
        )
        return text.decode("utf-8", "surrogateescape")

    def items(self) -> list[Item]:
        """Return its list."""
        return parse_list(self._restore("--create", "--list", "--verbose"))

    def sql(self, *arguments: str) -> str:
        """Return its statements as text."""
        return self._restore("--file=-", *arguments)

    def use_list(self, name: str, items: Iterable[Item]) -> str:
        """Return the argument that keeps pg_restore to some items."""
        path = self.path.with_suffix(f".{name}")
        text = "".join(f"{item.line}\n" for item in items)
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        return f"--use-list={path}"

    def database_script(self, old: str, new: str) -> DatabaseScript:
        """Return the statements that make the database and what belongs to it, for ``new``."""
        chosen = [item for item in self.items() if _is_of_database(item)]
        return database_script(self.sql("--create", self.use_list("database", chosen)), old, new)


def _is_of_database(item: Item) -> bool:
    if item.kind in ("DATABASE", "DATABASE PROPERTIES"):
        return True
    return item.kind in ("ACL", "COMMENT", "SECURITY LABEL") and item.rest.startswith("- DATABASE ")
