"""Brings the rows of one table back into the live database, into a new table beside the old one.

How the new table looks is PostgreSQL's to say: the table as it was backed up is made by pg_restore in an empty database
on the same server, copied there without rows under the new name (CREATE TABLE ... LIKE: columns, types and generated
columns, but no sequence, no index, no constraint that other tables would feel), and that copy's definition is carried
over by pg_dump. Definition and rows go into the live database in one transaction, so that a restore that dies leaves
nothing there; no lock is taken on anything that exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from holdfast.model.errors import HoldfastError, SourceFailed
from holdfast.sources.postgres.connection import open_sql
from holdfast.sources.postgres.logical.children import run_child
from holdfast.sources.postgres.logical.loading import NOT_KNOWN_BEFORE_17, Loader, redirected
from holdfast.sources.postgres.logical.names import quote_identifier, quote_literal
from holdfast.sources.postgres.logical.parts import Name, Part
from holdfast.sources.postgres.logical.verdict import merged_table
from holdfast.sources.postgres.logical.witness import DatabaseWitness
from holdfast.sources.postgres.settings import PostgresSettings

SCRIPT_BYTES_MAX = 16 << 20
ASIDE = "holdfast_moved_aside"
"""What in the empty database has the new table's name already is called so there."""


def copy_definition(settings: PostgresSettings, scratch: str, table: Name, into: Name) -> None:
    """Make, in the empty database, a table like the one that was backed up, under the new name."""
    taken = (
        "SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
        f"WHERE n.nspname = {quote_literal(into[0])} AND c.relname = {quote_literal(into[1])}"
    )
    with open_sql(settings, scratch) as session:
        if session.query(taken):
            # A dropped table may come back under its own name.
            session.query(f"ALTER TABLE {_sql(into)} RENAME TO {quote_identifier(ASIDE)}")
            table = (table[0], ASIDE) if table == into else table
        session.query(
            f"CREATE TABLE {_sql(into)} (LIKE {_sql(table)} INCLUDING GENERATED INCLUDING COMMENTS "
            "INCLUDING STORAGE INCLUDING COMPRESSION)"
        )


def load_beside(loader: Loader, scratch: str, live: str, into: Name, part: Part) -> None:
    """Make the table in the live database and load its rows, all in one transaction."""
    definition = _definition(loader, scratch, into)

    def script() -> Iterator[bytes]:
        yield b"BEGIN;\n"
        yield definition
        for index in loader.tables(part):
            yield from redirected(loader.script(index), into)
        yield f"ANALYZE {_sql(into)};\nCOMMIT;\n".encode("utf-8", "surrogateescape")

    try:
        loader.psql(live, script(), f"loading rows into {into[0]}.{into[1]} of {live}")
    except SourceFailed as error:
        raise _explained(error) from error


def expected_beside(database: DatabaseWitness, part: Part, into: Name) -> DatabaseWitness:
    """Return what the witness says of the table, under its new name."""
    wanted = set(part.tables)
    leaves = [table for table in database.tables if (table.schema, table.name) in wanted]
    return replace(database, tables=(merged_table(into, leaves),), sequences=(), extensions=(), objects=(),
                   large_objects=0)  # fmt: skip


def _definition(loader: Loader, scratch: str, into: Name) -> bytes:
    pattern = ".".join(f'"{re.sub(chr(34), chr(34) * 2, name)}"' for name in into)
    text = bytearray()

    def keep(block: bytes) -> None:
        if len(text) + len(block) > SCRIPT_BYTES_MAX:
            raise SourceFailed("the definition of one table is impossibly long")
        text.extend(block)

    arguments = [loader.programs.path("pg_dump"), "--schema-only", "--no-password", f"--table={pattern}"]
    arguments += ["--no-owner", "--no-privileges", "--no-tablespaces", f"--dbname={loader.access.address(scratch)}"]
    run_child(arguments, loader.access, "reading the definition of the table", take=keep)
    return bytes(text).replace(f"{NOT_KNOWN_BEFORE_17}\n".encode(), b"")


def _explained(error: SourceFailed) -> HoldfastError:
    missing = re.search(r'(?:type|schema|function|collation) "?[^:]* does not exist', error.message)
    if missing is None:
        return error
    return SourceFailed(
        error.message,
        hint="The live database no longer has what the table needs. Restore the table into a new database instead "
        "(--into .../NEWNAME); nothing was changed.",
    )


def _sql(name: Name) -> str:
    return f"{quote_identifier(name[0])}.{quote_identifier(name[1])}"
