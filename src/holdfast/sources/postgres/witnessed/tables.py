"""Rows of some tables of one database, counted and digested in a snapshot, as many as a budget of time allows."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from psycopg import pq

from holdfast.model.errors import HoldfastError, Interrupted, SourceFailed
from holdfast.sources.postgres.connection import Session
from holdfast.sources.postgres.failures import failed
from holdfast.sources.postgres.logical.catalog import Table
from holdfast.sources.postgres.logical.digest import TableDigest
from holdfast.sources.postgres.logical.names import dotted
from holdfast.sources.postgres.logical.rows import copy_out
from holdfast.sources.postgres.logical.witness import How, TableWitness

BLOCK_ROWS = 8192
LOCK_SECONDS_MAX = 1
RATE_FIRST = 50 << 20
"""Bytes a second, as long as none were read."""
NO_TIME = "no time left in the budget of the witness"
MOVED = "truncated, rewritten or altered meanwhile"
UNLOGGED = "unlogged: empty after a restore"


@dataclass(slots=True)
class Budget:
    """Seconds for reading rows, and how fast that goes."""

    ends_at: float
    clock: Callable[[], float] = time.monotonic
    read_bytes: int = 0
    read_seconds: float = 0.0

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.ends_at - self.clock()

    def allows(self, size_bytes: int) -> bool:
        """Whether a table of that size can probably be read in what is left."""
        rate = self.read_bytes / self.read_seconds if self.read_seconds > 0.05 else RATE_FIRST
        return size_bytes / max(rate, 1.0) < self.left

    def spent(self, size_bytes: int, seconds: float) -> None:
        """Count a table that was read."""
        self.read_bytes += size_bytes
        self.read_seconds += seconds


def in_turn(tables: Sequence[Table], chance: random.Random) -> Iterator[Table]:
    """Yield the largest of those left and one at random by turns: large ones hold the most, small ones are many."""
    left = sorted(tables, key=lambda table: -table.size_bytes)
    while left:
        yield left.pop(0)
        if left:
            yield left.pop(chance.randrange(len(left)))


def read_tables_in(
    session: Session, encoding: str, tables: Sequence[Table], budget: Budget, chance: random.Random
) -> list[TableWitness]:
    """Read what the budget allows; of every other table only its name and columns are told, and why."""
    found = [_witness(table, UNLOGGED) for table in tables if table.is_unlogged]
    broken = ""
    for table in in_turn([table for table in tables if not table.is_unlogged], chance):
        if broken or not budget.allows(table.size_bytes):
            found.append(_witness(table, broken or NO_TIME))
            continue
        begun = budget.clock()
        try:
            found.append(_read(session, encoding, table, budget))
        except Interrupted:
            raise
        except HoldfastError as error:
            found.append(_witness(table, error.message))
            broken = _recovered(session)
        budget.spent(table.size_bytes, budget.clock() - begun)
    return sorted(found, key=lambda table: (table.schema, table.name))


def _read(session: Session, encoding: str, table: Table, budget: Budget) -> TableWitness:
    witness = _witness(table, "")
    session.query(f"SAVEPOINT holdfast; SET LOCAL lock_timeout = '{LOCK_SECONDS_MAX}s'")
    session.query(f"LOCK TABLE ONLY {table.sql} IN ACCESS SHARE MODE")
    # The catalogs are read as the snapshot sees them, this as it is now: a snapshot sees a truncated table empty.
    now = session.query(f"SELECT pg_catalog.pg_relation_filenode({table.oid}), {table.file or 0}")
    if now[0][0] != now[0][1]:
        session.query("ROLLBACK TO SAVEPOINT holdfast")
        return replace(witness, how=How.NOT_COMPARED, reason=MOVED)
    digest = TableDigest()
    for block in _rows(session, copy_out(witness, encoding, table.column_list), budget):
        digest.feed(block)
    session.query("RELEASE SAVEPOINT holdfast")
    return replace(witness, how=How.COMPARED, rows=digest.rows, digest=digest.hexdigest(), reason="")


def _rows(session: Session, statement: str, budget: Budget) -> Iterator[bytes]:
    session.send(statement)
    result = session.next_result(max(budget.left, 1.0), "reading rows for the witness")
    if result is None or result.status != pq.ExecStatus.COPY_OUT:
        raise failed(result, "reading rows for the witness") if result is not None else SourceFailed("no answer")
    lines: list[bytes] = []
    for message in session.copy_messages(max(budget.left, 1.0)):
        lines.append(bytes(message))
        if len(lines) == BLOCK_ROWS:
            yield b"".join(lines)
            lines.clear()
            if budget.left < 0:
                session.cancel()
                raise SourceFailed(NO_TIME)
    yield b"".join(lines)
    while (result := session.next_result(max(budget.left, 1.0), "reading rows for the witness")) is not None:
        if result.status == pq.ExecStatus.FATAL_ERROR:
            raise failed(result, "reading rows for the witness")


def _recovered(session: Session) -> str:
    """Go back to before the table that failed; return why nothing more can be read here, empty where it can."""
    try:
        session.query("ROLLBACK TO SAVEPOINT holdfast")
    except HoldfastError as error:
        return error.message
    return ""


def _witness(table: Table, reason: str) -> TableWitness:
    return TableWitness(
        schema=table.schema,
        name=table.name,
        columns=table.columns,
        how=How.NOT_COMPARED,
        size_bytes=table.size_bytes,
        condition=table.condition,
        reason=reason,
        root=dotted(*table.root) if table.root else "",
    )
