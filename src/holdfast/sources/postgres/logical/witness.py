"""What a database held when it was captured, and the comparison of that with what another one holds.

The document is defined in docs/format.md, section 14.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from holdfast.model.documents import JsonObject, JsonValue, format_time, parse_time
from holdfast.model.errors import IntegrityBroken
from holdfast.sources.postgres.logical.digest import MODULUS_MASK
from holdfast.sources.postgres.logical.names import dotted

VERSION = 1
VIEW = "a materialised view"
NEVER_FILLED = "a materialised view, not filled"
"""What is said of a materialised view, and of one that held nothing yet."""
NAMES_TOLD_MAX = 20
_Item = TypeVar("_Item")


class How(StrEnum):
    """How much of a table is known: every row, or only how many (and a sample), or nothing."""

    COMPARED = "compared"
    SAMPLED = "sampled"
    COUNTED = "counted"
    RECOMPUTED = "recomputed"
    NOT_COMPARED = "not_compared"


@dataclass(frozen=True, slots=True)
class Column:
    """A stored column and its type as ``format_type`` prints it."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class TableWitness:
    """One table with rows of its own. ``digest`` is of every row, or of the sample where ``how`` says so.

    ``condition`` is the part of an extension's configuration table that is data; empty means every row. Tables with
    the same ``root`` are partitions whose rows may lie in another of them after a restore: compared as one.
    """

    schema: str
    name: str
    columns: tuple[Column, ...]
    how: How
    rows: int | None = None
    digest: str | None = None
    size_bytes: int = 0
    condition: str = ""
    reason: str = ""
    root: str = ""

    @property
    def title(self) -> str:
        """The table's name for people."""
        return dotted(self.schema, self.name)


@dataclass(frozen=True, slots=True)
class SequenceWitness:
    """Where a sequence stood."""

    schema: str
    name: str
    last_value: int
    is_called: bool

    @property
    def title(self) -> str:
        """The sequence's name for people."""
        return dotted(self.schema, self.name)


@dataclass(frozen=True, slots=True)
class DatabaseWitness:
    """One database. ``objects`` are the names of everything in it by kind, as ``pg_identify_object`` gives them."""

    name: str
    encoding: str
    owner: str
    tables: tuple[TableWitness, ...] = ()
    sequences: tuple[SequenceWitness, ...] = ()
    extensions: tuple[tuple[str, str], ...] = ()
    settings: tuple[str, ...] = ()
    objects: tuple[tuple[str, tuple[str, ...]], ...] = ()
    large_objects: int = 0


@dataclass(frozen=True, slots=True)
class Witness:
    """A whole capture. ``roles`` are the cluster's, each with its attributes in words."""

    taken_at: datetime
    server_version: str
    roles: tuple[tuple[str, str], ...]
    databases: tuple[DatabaseWitness, ...]

    def database(self, name: str) -> DatabaseWitness | None:
        """Return one database's part."""
        return next((database for database in self.databases if database.name == name), None)


class Found(StrEnum):
    """In which way two databases differ."""

    MISSING = "missing"
    ADDED = "added"
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it was: ``what`` is its kind, ``name`` which one."""

    what: str
    name: str
    found: Found
    detail: str = ""

    def __str__(self) -> str:
        words = {Found.MISSING: "is missing", Found.ADDED: "was not there", Found.DIFFERENT: "differs"}[self.found]
        return f"{self.what} {self.name} {words}" + (f": {self.detail}" if self.detail else "")


def compare(expected: DatabaseWitness, found: DatabaseWitness) -> tuple[Difference, ...]:
    """Return everything in which ``found`` is not ``expected``. What was not looked at is no difference."""
    return (
        *_by_name("table", _united(expected.tables), _united(found.tables), _table),
        *_by_name("sequence", _titled(expected.sequences), _titled(found.sequences), _sequence),
        *_by_name("extension", dict(expected.extensions), dict(found.extensions), _extension),
        *_objects(dict(expected.objects), dict(found.objects)),
        *_plain("encoding", expected.encoding, found.encoding),
        *_plain("large objects", str(expected.large_objects), str(found.large_objects)),
    )


def _titled(items: tuple[_Item, ...]) -> dict[str, _Item]:
    return {item.title: item for item in items}  # type: ignore[attr-defined]


def _united(tables: tuple[TableWitness, ...]) -> dict[str, TableWitness]:
    """Return tables by name, each group with one root as one more: of its members only the names are compared."""
    members: dict[str, list[TableWitness]] = {}
    for table in tables:
        if table.root:
            members.setdefault(table.root, []).append(table)
    return {
        **{table.title: replace(table, how=How.NOT_COMPARED) if table.root else table for table in tables},
        **{f"{root} (all partitions)": _union(group) for root, group in members.items()},
    }


def _union(group: list[TableWitness]) -> TableWitness:
    """Return the rows of several tables as one table's: digests are sums."""
    hows = {table.how for table in group}
    complete = len(hows) == 1 and all(table.rows is not None and table.digest is not None for table in group)
    return replace(
        group[0],
        how=hows.pop() if complete else How.NOT_COMPARED,
        rows=sum(table.rows or 0 for table in group) if complete else None,
        digest=f"{sum(int(table.digest or '0', 16) for table in group) & MODULUS_MASK:032x}" if complete else None,
    )


def _by_name(
    what: str,
    expected: Mapping[str, _Item],
    found: Mapping[str, _Item],
    differ: Callable[[_Item, _Item], str],
) -> Iterator[Difference]:
    for name in sorted(expected.keys() - found.keys()):
        yield Difference(what, name, Found.MISSING)
    for name in sorted(found.keys() - expected.keys()):
        yield Difference(what, name, Found.ADDED)
    for name in sorted(expected.keys() & found.keys()):
        detail = differ(expected[name], found[name])
        if detail:
            yield Difference(what, name, Found.DIFFERENT, detail)


def _table(expected: TableWitness, found: TableWitness) -> str:
    if expected.how in (How.NOT_COMPARED, How.RECOMPUTED) or found.how in (How.NOT_COMPARED, How.RECOMPUTED):
        filled = {expected.reason, found.reason} == {VIEW, NEVER_FILLED}
        before, now = ("filled", "not filled") if expected.reason == VIEW else ("not filled", "filled")
        return "; ".join(part for part in (_columns(expected, found), f"was {before} and is {now}" * filled) if part)
    parts = [_columns(expected, found)]
    if expected.rows != found.rows:
        parts.append(f"{expected.rows} rows became {found.rows}")
    elif expected.how is found.how and expected.digest != found.digest:
        parts.append(f"its {expected.rows} rows are not the same ones")
    return "; ".join(part for part in parts if part)


def _columns(expected: TableWitness, found: TableWitness) -> str:
    before = {column.name: column.type for column in expected.columns}
    now = {column.name: column.type for column in found.columns}
    parts = [f"column {name} is missing" for name in before if name not in now]
    parts += [f"column {name} was not there" for name in now if name not in before]
    parts += [
        f"column {name} was {before[name]} and is {now[name]}"
        for name in before
        if name in now and before[name] != now[name]
    ]
    return ", ".join(parts)


def _sequence(expected: SequenceWitness, found: SequenceWitness) -> str:
    if (expected.last_value, expected.is_called) == (found.last_value, found.is_called):
        return ""
    return f"stood at {_stand(expected)} and stands at {_stand(found)}"


def _stand(sequence: SequenceWitness) -> str:
    return f"{sequence.last_value}" + ("" if sequence.is_called else " (not used yet)")


def _extension(expected: str, found: str) -> str:
    return "" if expected == found else f"version {expected} became {found}"


def _objects(expected: Mapping[str, tuple[str, ...]], found: Mapping[str, tuple[str, ...]]) -> Iterator[Difference]:
    for kind in sorted(expected.keys() | found.keys()):
        before, now = set(expected.get(kind, ())), set(found.get(kind, ()))
        for name in sorted(before - now):
            yield Difference(kind, name, Found.MISSING)
        for name in sorted(now - before):
            yield Difference(kind, name, Found.ADDED)


def _plain(what: str, expected: str, found: str) -> Iterator[Difference]:
    if expected != found:
        yield Difference(what, "of the database", Found.DIFFERENT, f"{expected} became {found}")


# The document


def to_document(witness: Witness) -> JsonObject:
    """Return the witness as JSON."""
    databases: list[JsonValue] = [_database_document(database) for database in witness.databases]
    roles: JsonObject = dict(witness.roles)
    return {
        "version": VERSION,
        "taken_at": format_time(witness.taken_at),
        "server_version": witness.server_version,
        "roles": roles,
        "databases": databases,
    }


def _database_document(database: DatabaseWitness) -> JsonObject:
    tables: list[JsonValue] = [_table_document(table) for table in database.tables]
    sequences: list[JsonValue] = [
        {"schema": each.schema, "name": each.name, "last_value": each.last_value, "is_called": each.is_called}
        for each in database.sequences
    ]
    extensions: JsonObject = dict(database.extensions)
    objects: JsonObject = {kind: list[JsonValue](names) for kind, names in database.objects}
    return {
        "name": database.name,
        "encoding": database.encoding,
        "owner": database.owner,
        "tables": tables,
        "sequences": sequences,
        "extensions": extensions,
        "settings": list[JsonValue](database.settings),
        "objects": objects,
        "large_objects": database.large_objects,
    }


def _table_document(table: TableWitness) -> JsonObject:
    return {
        "schema": table.schema,
        "name": table.name,
        "columns": [{"name": column.name, "type": column.type} for column in table.columns],
        "how": table.how.value,
        "rows": table.rows,
        "digest": table.digest,
        "size_bytes": table.size_bytes,
        "condition": table.condition,
        "reason": table.reason,
        "root": table.root,
    }


def from_document(document: JsonObject) -> Witness:
    """Read a witness; raises ``IntegrityBroken``."""
    try:
        if document["version"] != VERSION:
            raise IntegrityBroken(
                f"the witness has version {document['version']}, and {VERSION} is known",
                hint="Use the holdfast release that made the backup, or a newer one.",
            )
        return Witness(
            taken_at=parse_time(_text(document["taken_at"])),
            server_version=_text(document["server_version"]),
            roles=tuple(sorted((name, _text(value)) for name, value in _object(document["roles"]).items())),
            databases=tuple(_parse_database(_object(each)) for each in _list(document["databases"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityBroken(
            "the witness of the backup cannot be read", hint="Run `holdfast check`; the data may be sound all the same."
        ) from error


def _parse_database(document: JsonObject) -> DatabaseWitness:
    return DatabaseWitness(
        name=_text(document["name"]),
        encoding=_text(document["encoding"]),
        owner=_text(document["owner"]),
        tables=tuple(_parse_table(_object(each)) for each in _list(document["tables"])),
        sequences=tuple(_parse_sequence(_object(each)) for each in _list(document["sequences"])),
        extensions=tuple(sorted((name, _text(value)) for name, value in _object(document["extensions"]).items())),
        settings=tuple(_text(each) for each in _list(document["settings"])),
        objects=tuple(
            (kind, tuple(_text(name) for name in _list(names))) for kind, names in _object(document["objects"]).items()
        ),
        large_objects=_number(document["large_objects"]),
    )


def _parse_table(document: JsonObject) -> TableWitness:
    rows, digest = document["rows"], document["digest"]
    columns = [_object(each) for each in _list(document["columns"])]
    return TableWitness(
        schema=_text(document["schema"]),
        name=_text(document["name"]),
        columns=tuple(Column(_text(each["name"]), _text(each["type"])) for each in columns),
        how=How(_text(document["how"])),
        rows=None if rows is None else _number(rows),
        digest=None if digest is None else _text(digest),
        size_bytes=_number(document["size_bytes"]),
        condition=_text(document["condition"]),
        reason=_text(document["reason"]),
        root=_text(document["root"]),
    )


def _parse_sequence(document: JsonObject) -> SequenceWitness:
    return SequenceWitness(
        _text(document["schema"]),
        _text(document["name"]),
        _number(document["last_value"]),
        bool(document["is_called"]),
    )


def _text(value: JsonValue) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: JsonValue) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value


def _list(value: JsonValue) -> list[JsonValue]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _object(value: JsonValue) -> JsonObject:
    if not isinstance(value, dict):
        raise TypeError
    return value
