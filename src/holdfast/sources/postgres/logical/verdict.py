"""What is expected of a loaded part, what was found, and where the two differ."""

from __future__ import annotations

from dataclasses import replace

from holdfast.sources.postgres.logical.digest import MODULUS_MASK
from holdfast.sources.postgres.logical.parts import Name, Part
from holdfast.sources.postgres.logical.witness import (
    DatabaseWitness,
    Difference,
    Found,
    How,
    TableWitness,
    compare,
)


def expected_of(database: DatabaseWitness, part: Part | None) -> DatabaseWitness:
    """Return what of a witness is about a part; None is all of it."""
    if part is None:
        return database
    wanted = set(part.tables)
    tables = tuple(table for table in database.tables if (table.schema, table.name) in wanted)
    return replace(database, tables=tables, extensions=(), objects=(), large_objects=0)


def differences(expected: DatabaseWitness, found: DatabaseWitness, part: Part | None) -> tuple[Difference, ...]:
    """Return where they differ."""
    if part is not None:
        expected, found = _narrowed(expected, found)
    told = compare(expected, found)
    # The target brings its own versions of extensions: the plan tells them, and nothing is lost by it.
    return tuple(each for each in told if not (each.what == "extension" and each.found is not Found.MISSING))


def _narrowed(expected: DatabaseWitness, found: DatabaseWitness) -> tuple[DatabaseWitness, DatabaseWitness]:
    """Leave out of both what the part only leans on."""
    wanted = {(table.schema, table.name): table for table in expected.tables}
    there = {(each.schema, each.name) for each in found.sequences}
    known = {(each.schema, each.name) for each in expected.sequences}
    return (
        replace(expected, sequences=tuple(each for each in expected.sequences if (each.schema, each.name) in there)),
        replace(
            found,
            tables=tuple(
                table if wanted[name].digest is not None else replace(table, digest=None)
                for table in found.tables
                if (name := (table.schema, table.name)) in wanted
            ),
            sequences=tuple(each for each in found.sequences if (each.schema, each.name) in known),
            extensions=(),
            objects=(),
            large_objects=0,
        ),
    )


def merged_table(name: Name, leaves: list[TableWitness]) -> TableWitness:
    """Return several tables' rows as one table's: the digest is a sum, so that no order and no table matters.

    Where their columns stand in different orders, only the numbers of rows can be added up.
    """
    first = leaves[0]
    together = replace(
        first,
        schema=name[0],
        name=name[1],
        rows=sum(leaf.rows or 0 for leaf in leaves),
        size_bytes=sum(leaf.size_bytes for leaf in leaves),
        how=How.COUNTED,
        digest=None,
        root="",
    )
    if any(leaf.how in (How.NOT_COMPARED, How.RECOMPUTED) for leaf in leaves):
        return replace(together, how=How.NOT_COMPARED, rows=None)
    if all(leaf.how is How.COMPARED and leaf.digest and leaf.columns == first.columns for leaf in leaves):
        total = sum(int(leaf.digest or "0", 16) for leaf in leaves) & MODULUS_MASK
        return replace(together, how=How.COMPARED, digest=f"{total:032x}")
    return together
