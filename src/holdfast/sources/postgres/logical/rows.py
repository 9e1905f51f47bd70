"""The rows of one table on their way out: as a script that psql loads, with their digest."""

from __future__ import annotations

import re
from collections.abc import Iterable

from holdfast.model.errors import SourceFailed
from holdfast.sources.port import Stream
from holdfast.sources.postgres.logical.catalog import Table
from holdfast.sources.postgres.logical.digest import TableDigest
from holdfast.sources.postgres.logical.names import quote_identifier, quote_literal
from holdfast.sources.postgres.logical.snapshot import client_encoding
from holdfast.sources.postgres.logical.witness import How, TableWitness

_SAMPLE = re.compile(rb"^[^\t\n]*00(?:\t[^\n]*)?$", re.MULTILINE)
"""A row is in the sample where the text of its first column ends in 00."""


def copy_out(table: Table | TableWitness, encoding: str, columns: str) -> str:
    """Return the statement that reads a table's rows in the database's own encoding."""
    name = f"{quote_identifier(table.schema)}.{quote_identifier(table.name)}"
    of = f"{name}{columns}"
    if table.condition:
        chosen = columns.strip()[1:-1] or "*"
        of = f"(SELECT {chosen} FROM ONLY {name} {table.condition})"
    return f"COPY {of} TO STDOUT WITH (ENCODING {quote_literal(encoding)})"


def script_header(table: Table, encoding: str) -> bytes:
    """Return what stands before the rows."""
    return (
        f"SET client_encoding = {quote_literal(client_encoding(encoding))};\n"
        "SET DateStyle = 'ISO, MDY';\nSET IntervalStyle = 'postgres';\nSET TimeZone = 'UTC';\n"
        "SET xmloption = 'content';\nSET row_security = off;\n"
        f"COPY {table.load_sql}{table.column_list} FROM stdin WITH (ENCODING {quote_literal(encoding)});\n"
    ).encode("utf-8", "surrogateescape")


SCRIPT_END = b"\\.\n"


class Counting:
    """Takes blocks of rows and tells at the end what a witness says of them. Keeps no row, however long."""

    def __init__(self, how: How) -> None:
        self._how = how
        self._digest = TableDigest()
        self._rows = 0
        self._is_open = False
        self._key = b""
        self._key_is_open = True

    def feed(self, block: bytes) -> None:
        """Take the next bytes of the rows."""
        if self._how is How.COMPARED:
            self._digest.feed(block)
            return
        self._rows += block.count(b"\n")
        begin = 0
        if self._is_open:
            begin = block.find(b"\n") + 1
            self._go_on(block[: begin - 1] if begin else block)
            if not begin:
                return
            self._end_line()
        end = block.rfind(b"\n") + 1
        for line in _SAMPLE.findall(block[begin:end]):
            self._digest.feed(line + b"\n")
        if end < len(block):
            self._is_open = True
            self._go_on(block[end:])

    def _go_on(self, piece: bytes) -> None:
        """Take a part of a row cut by the ends of blocks; only the end of its first column is kept."""
        self._digest.feed(piece)
        if self._key_is_open:
            column, tab, _ = piece.partition(b"\t")
            self._key = (self._key + column[-2:])[-2:]
            self._key_is_open = not tab

    def _end_line(self) -> None:
        if self._key == b"00":
            self._digest.feed(b"\n")
        else:
            self._digest.forget_line()
        self._is_open, self._key, self._key_is_open = False, b"", True

    @property
    def is_complete(self) -> bool:
        """Whether the last row was ended."""
        return self._digest.is_complete and not self._is_open

    @property
    def rows(self) -> int:
        """How many rows passed."""
        return self._digest.rows if self._how is How.COMPARED else self._rows

    @property
    def digest(self) -> str:
        """The digest of the rows, or of the sample."""
        return self._digest.hexdigest()


def pour(blocks: Iterable[bytes], stream: Stream, counting: Counting) -> None:
    """Pass rows on to a stream and count them."""
    for block in blocks:
        counting.feed(block)
        stream.write(block)
    if not counting.is_complete:
        raise SourceFailed("a table's rows ended within a line", hint="Run the backup again.")
