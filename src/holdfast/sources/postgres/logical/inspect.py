"""Takes the witness of a database as it is now, the same way as at its capture, for comparison."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from holdfast.model.errors import Interrupted
from holdfast.sources.postgres.connection import open_sql
from holdfast.sources.postgres.logical.catalog import Table, read_facts
from holdfast.sources.postgres.logical.children import Child, ClientAccess
from holdfast.sources.postgres.logical.names import quote_identifier
from holdfast.sources.postgres.logical.rows import CHILD_BYTES_MIN, Counting, Reading, copy_out, read_large, read_small
from holdfast.sources.postgres.logical.snapshot import Snapshot, hold_snapshot, pinned
from holdfast.sources.postgres.logical.tools import ClientPrograms
from holdfast.sources.postgres.logical.witness import Column, DatabaseWitness, How, TableWitness
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
    with hold_snapshot(work.settings, database, work.wanted) as snapshot:
        snapshot.session.stop_requested = work.stop_requested
        in_recovery = snapshot.session.query("SELECT pg_catalog.pg_is_in_recovery()")[0][0] == "t"
        facts = read_facts(snapshot.session, database, snapshot.tables, in_recovery=in_recovery)
        tables = _read_all(work, database, expected, [(table, known.get((table.schema, table.name)))
                                                      for table in snapshot.tables], snapshot)  # fmt: skip
        snapshot.session.query("COMMIT")
    views = [
        TableWitness(view.schema, view.name, view.columns, How.RECOMPUTED, size_bytes=view.size_bytes)
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


def _read_all(
    work: Inspection,
    database: str,
    expected: DatabaseWitness,
    pairs: Sequence[tuple[Table, TableWitness | None]],
    snapshot: Snapshot,
) -> list[TableWitness]:
    left = iter(sorted(pairs, key=lambda pair: -pair[0].size_bytes))
    lock, failed = threading.Lock(), threading.Event()

    def stopped() -> bool:
        return failed.is_set() or work.stop_requested()

    def next_pair() -> tuple[Table, TableWitness | None] | None:
        with lock:
            return None if stopped() else next(left, None)

    def read_some() -> list[TableWitness]:
        try:
            return list(_read(replace(work, stop_requested=stopped), database, expected.encoding, next_pair, snapshot))
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(work.settings.jobs, thread_name_prefix="inspect") as pool:
        futures = [pool.submit(read_some) for _ in range(min(work.settings.jobs, max(1, len(pairs))))]
        errors = [error for error in (future.exception() for future in futures) if error is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, Interrupted)):
            raise error
        if work.stop_requested():
            raise Interrupted("stopped while comparing tables")
        return [table for future in futures for table in future.result()]


def _read(
    work: Inspection,
    database: str,
    encoding: str,
    next_pair: Callable[[], tuple[Table, TableWitness | None] | None],
    snapshot: Snapshot,
) -> Iterator[TableWitness]:
    pair = next_pair()
    if pair is None:
        return
    with open_sql(work.settings, database) as session:
        session.stop_requested = work.stop_requested
        session.query(pinned(session.server_version))
        session.query(snapshot.join)
        preamble = f"{pinned(session.server_version)}; {snapshot.join}"
        reading = Reading(session, preamble, encoding, work.settings.silence_seconds_max)
        while pair is not None:
            yield _read_one(work, reading, database, *pair)
            pair = next_pair()


def _read_one(
    work: Inspection, reading: Reading, database: str, table: Table, expected: TableWitness | None
) -> TableWitness:
    found = TableWitness(table.schema, table.name, table.columns, How.NOT_COMPARED, size_bytes=table.size_bytes)
    if expected is None or expected.how in (How.NOT_COMPARED, How.RECOMPUTED):
        return found
    there = {column.name for column in table.columns}
    if any(column.name not in there for column in expected.columns):
        return found
    counting = Counting(expected.how)
    columns = _column_list(expected.columns)
    statement = copy_out(replace(found, condition=expected.condition), reading.encoding, columns)
    if table.size_bytes < CHILD_BYTES_MIN:
        blocks = read_small(reading, statement)
        for block in blocks:
            counting.feed(block)
    else:
        arguments = [work.programs.path("psql"), "-XqAt", "--no-password", "-v", "ON_ERROR_STOP=1"]
        arguments += ["-d", work.access.address(database), "-f", "-"]
        with Child(arguments, work.access, f"comparing table {found.title}", work.stop_requested) as child:
            for block in read_large(child, reading.preamble, statement):
                counting.feed(block)
    return replace(found, how=expected.how, rows=counting.rows, digest=counting.digest)


def _column_list(columns: Sequence[Column]) -> str:
    names = ", ".join(quote_identifier(column.name) for column in columns)
    return f" ({names})" if names else ""
