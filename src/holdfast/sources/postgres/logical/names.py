"""Where things lie in a logical backup, and what a selection of its parts names."""

from __future__ import annotations

import re
from dataclasses import dataclass

from holdfast.model.errors import ConfigInvalid

GLOBALS = "globals.sql"
WITNESS = "@witness.json"
SCHEMA = "schema.dump"
LARGE_OBJECTS = "large_objects.dump"
SEQUENCES = "sequences.sql"
VIEWS = "views.sql"
"""Fills the materialised views that were filled, each after those it reads; only where there are any."""

_HIDDEN = re.compile(r"[%/\x00-\x1f\x7f\udc80-\udcff]|^[.@]")
_PART = re.compile(r'"(?:[^"]|"")+"|[^".]+')


def encode_name(name: str) -> str:
    """Return a name as one part of a path: what a path cannot hold is written as ``%`` and two digits a byte."""
    return _HIDDEN.sub(
        lambda match: "".join(f"%{byte:02x}" for byte in match[0].encode("utf-8", "surrogateescape")), name
    )


def decode_name(part: str) -> str:
    """Return the name that ``encode_name`` wrote."""
    raw = re.sub(rb"%([0-9a-f]{2})", lambda match: bytes([int(match[1], 16)]), part.encode("utf-8", "surrogateescape"))
    return raw.decode("utf-8", "surrogateescape")


def database_path(database: str, file: str) -> str:
    """Return the path of one of a database's files."""
    return f"databases/{encode_name(database)}/{file}"


def table_path(database: str, schema: str, table: str) -> str:
    """Return the path of a table's rows."""
    return database_path(database, f"tables/{encode_name(schema)}/{encode_name(table)}.sql")


@dataclass(frozen=True, slots=True)
class TablePlace:
    """Which table a path holds the rows of."""

    database: str
    schema: str
    table: str


def parse_table_path(path: str) -> TablePlace | None:
    """Return whose rows lie at ``path``; None for anything else."""
    match path.split("/"):
        case ["databases", database, "tables", schema, file] if file.endswith(".sql"):
            return TablePlace(decode_name(database), decode_name(schema), decode_name(file.removesuffix(".sql")))
    return None


@dataclass(frozen=True, slots=True)
class Selection:
    """A part of a cluster: a database, or one of its schemas, or one table. Prints as it is written."""

    database: str
    schema: str | None = None
    table: str | None = None

    @classmethod
    def parse(cls, text: str) -> Selection:
        """Read ``db[.schema[.table]]``; parts with dots or quotes stand in double quotes. Raises ``ConfigInvalid``."""
        parts = _PART.findall(text)
        if ".".join(parts) != text or not 1 <= len(parts) <= 3:
            raise ConfigInvalid(
                f"{text!r} names no part of a PostgreSQL source",
                hint="Write database, database.schema or database.schema.table; put a part that holds a dot or a "
                'quote in double quotes, as in shop."odd.schema".orders.',
            )
        return cls(*(_unquote(part) for part in parts))

    def __str__(self) -> str:
        return dotted(*(part for part in (self.database, self.schema, self.table) if part is not None))


def dotted(*parts: str) -> str:
    """Return a name for people; parts that hold a dot or a quote stand in double quotes, so that no two are alike."""
    return ".".join(_quote(part) for part in parts)


def _unquote(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part


def _quote(part: str) -> str:
    return part if re.fullmatch(r'[^".]+', part) else '"' + part.replace('"', '""') + '"'


def quote_identifier(name: str) -> str:
    """Return a name as SQL writes it, always quoted. Raises ``ConfigInvalid`` for a null character."""
    if "\0" in name:
        raise ConfigInvalid("a name holds a null character", hint="PostgreSQL has no such names.")
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """Return a text as SQL writes it, whatever ``standard_conforming_strings`` says."""
    quoted = "'" + text.replace("'", "''") + "'"
    return " E" + quoted.replace("\\", "\\\\") if "\\" in text else quoted
