"""Takes the witness of a database as it is now, the same way as at its capture, for comparison."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from holdfast.model.errors import Interrupted
from holdfast.sources.postgres.logical.catalog import Table, read_facts
from holdfast.sources.postgres.logical.children import ClientAccess
from holdfast.sources.postgres.logical.names import dotted, quote_identifier
from holdfast.sources.postgres.logical.readers import Reader, Tools, open_readers, reading
from holdfast.sources.postgres.logical.rows import Counting, copy_out
from holdfast.sources.postgres.logical.snapshot import Snapshot, hold_snapshot
from holdfast.sources.postgres.logical.tools import ClientPrograms
from holdfast.sources.postgres.logical.witness import (
    NEVER_FILLED,
    VIEW,
    Column,
    DatabaseWitness,
    How,
    TableWitness,
)
from holdfast.sources.postgres.settings import PostgresSettings


@dataclass(frozen=True, slots=True)
class Inspection:
    """What an inspection is given. ``schema`` and ``table`` narrow it to a part."""

    settings: PostgresSettings
    programs: ClientPrograms
    access: ClientAccess
    stop_requested: Callable[[], bool] = lambda: False
    schema: str | None = None
    table: str | None = None

    def wanted(self, table: Table) -> bool:
        """Whether the table belongs to the part."""
        return self.schema in (None, table.schema) and self.table in (None, table.name)


def inspect_database(work: Inspection, database: str, expected: DatabaseWitness) -> DatabaseWitness:
    """Return what a database holds, read in the terms of ``expected``: its encoding, its columns in their order.

    A table that lacks an expected column is told with the columns it has, and not read. Raises as a capture does.
    """
    known = {(table.schema, table.name): table for table in expected.tables}
    failed = threading.Event()

    def stopped() -> bool:
        return failed.is_set() or work.stop_requested()

    def join(snapshot: Snapshot) -> AbstractContextManager[tuple[Reader, ...]]:
        snapshot.session.stop_requested = work.stop_requested
        count = min(work.settings.jobs, len(snapshot.tables))
        return open_readers(Tools(work.programs, work.access, stopped), snapshot, count)

    def read(reader: Reader, table: Table) -> TableWitness:
        return _read_one(reader, expected.encoding, table, known.get((table.schema, table.name)))

    with hold_snapshot(work.settings, database, join, work.wanted) as (snapshot, readers):
        facts = read_facts(snapshot.session, database, snapshot.tables, snapshot.sequences)
        largest_first = sorted(snapshot.tables, key=lambda table: -table.size_bytes)
        with reading(readers, largest_first, read, failed) as results:
            tables = results()
    if work.stop_requested():
        raise Interrupted("stopped while comparing tables")
    views = [
        TableWitness(
            view.schema,
            view.name,
            view.columns,
            How.RECOMPUTED,
            size_bytes=view.size_bytes,
            reason=VIEW if view.is_filled else NEVER_FILLED,
        )
        for view in facts.views
        if work.wanted(view)
    ]
    return DatabaseWitness(
        name=database,
        encoding=facts.encoding,
        owner=facts.owner,
        tables=tuple(sorted([*tables, *views], key=lambda table: (table.schema, table.name))),
        sequences=facts.sequences,
        extensions=facts.extensions,
        settings=facts.settings,
        objects=facts.objects,
        large_objects=facts.large_objects,
    )


def _read_one(reader: Reader, encoding: str, table: Table, expected: TableWitness | None) -> TableWitness:
    found = TableWitness(
        table.schema,
        table.name,
        table.columns,
        How.NOT_COMPARED,
        size_bytes=table.size_bytes,
        root=dotted(*table.root) if table.root else "",
    )
    if expected is None or expected.how in (How.NOT_COMPARED, How.RECOMPUTED):
        return found
    there = {column.name for column in table.columns}
    if any(column.name not in there for column in expected.columns):
        return found
    counting = Counting(expected.how)
    columns = _column_list(expected.columns)
    statement = copy_out(replace(found, condition=expected.condition), encoding, columns)
    for block in reader.rows(statement, f"comparing table {found.title}"):
        counting.feed(block)
    return replace(found, how=expected.how, rows=counting.rows, digest=counting.digest)


def _column_list(columns: Sequence[Column]) -> str:
    names = ", ".join(quote_identifier(column.name) for column in columns)
    return f" ({names})" if names else ""
