"""Chooses from a schema archive's list what one schema or one table needs, and nothing else. Pure.

PostgreSQL's dump knows what leans on what; a part is what was asked for, all it leans on, and what belongs to it (its
indexes, constraints, triggers, privileges, comments) unless that leans on a table outside the part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from holdfast.model.errors import ConfigInvalid
from holdfast.sources.postgres.logical.archive import Item
from holdfast.sources.postgres.logical.names import Selection

TOLD_MAX = 5
RELATIONS = frozenset(("TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE"))
ATTACHED = frozenset(
    (
        *("DEFAULT", "CONSTRAINT", "CHECK CONSTRAINT", "FK CONSTRAINT", "INDEX", "INDEX ATTACH", "TRIGGER", "RULE"),
        *("POLICY", "ROW SECURITY", "STATISTICS", "SEQUENCE", "SEQUENCE OWNED BY", "TABLE ATTACH", "COMMENT", "ACL"),
        "SECURITY LABEL",
    )
)
_ALWAYS = frozenset(("ENCODING", "STDSTRINGS", "SEARCHPATH"))
_NEVER = frozenset(("PUBLICATION TABLE", "PUBLICATION TABLES IN SCHEMA", "SUBSCRIPTION TABLE", "DATABASE"))
_SYSTEM_ROLE = re.compile(r"pg_\w+")
Name = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Part:
    """What is taken: lines of the list in their order, tables whose rows come along, and what had to be left out."""

    items: tuple[Item, ...]
    tables: tuple[Name, ...]
    left_out: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What to tell of it."""
        if not self.left_out:
            return ()
        some = ", ".join(self.left_out[:TOLD_MAX]) + (", ..." if len(self.left_out) > TOLD_MAX else "")
        return (f"{len(self.left_out)} objects lean on tables outside the part and were left out: {some}",)


def choose_part(items: Sequence[Item], selection: Selection, tables: Iterable[Name], owners: Iterable[str]) -> Part:
    """Return the part that ``selection`` names; ``tables`` are those with rows, ``owners`` every role there was.

    Raises ``ConfigInvalid`` where the list has no such schema or table.
    """
    return _Choice(items, tables, owners).choose(selection)


class _Choice:
    def __init__(self, items: Sequence[Item], tables: Iterable[Name], owners: Iterable[str]) -> None:
        self._items = [item for item in items if item.kind not in _NEVER]
        self._by_number = {item.number: item for item in self._items}
        self._owners = {_line(owner) for owner in owners}
        self._tables = {(_line(schema), _line(name)): (schema, name) for schema, name in tables}
        self._schemas = sorted(
            {name for item in items if item.kind == "SCHEMA" for name in self._without_owner(item.rest[2:])}
            | {schema for schema, _ in self._tables} | {"public"},
            key=len,
            reverse=True,
        )  # fmt: skip
        self._needs: dict[int, frozenset[int]] = {}

    def choose(self, selection: Selection) -> Part:
        assert selection.schema is not None
        if selection.table is None:
            seeds, candidates = self._schema(_line(selection.schema))
        else:
            seeds, candidates = self._table(_line(selection.schema), _line(selection.table)), []
        if not seeds:
            what = f"no schema {selection}" if selection.table is None else f"no table in {selection}"
            raise ConfigInvalid(
                f"the backup holds {what}",
                hint="`holdfast ls` lists what it holds: databases/DATABASE/tables/SCHEMA/TABLE.sql.",
            )
        part_relations = {item.number for item in [*seeds, *candidates] if item.kind in RELATIONS}
        chosen: set[int] = set()
        for seed in seeds:
            chosen |= self._need(seed.number)
        owning = {item.number for item in seeds}
        left_out = self._attach(chosen, owning, part_relations | self._relations(chosen), candidates)
        kept = tuple(item for item in self._items if item.number in chosen or item.kind in _ALWAYS)
        rows = tuple(sorted({name for seed in seeds for name in self._names(seed)}))
        return Part(kept, rows, tuple(left_out))

    def _schema(self, schema: str) -> tuple[list[Item], list[Item]]:
        inside = [item for item in self._items if self._schema_of(item) == schema]
        itself = [
            item for item in self._items if item.kind == "SCHEMA" and schema in self._without_owner(item.rest[2:])
        ]
        seeds = itself + [item for item in inside if item.kind in ("TABLE", "FOREIGN TABLE")]
        numbers = {item.number for item in seeds}
        return seeds if seeds or inside else [], [item for item in inside if item.number not in numbers]

    def _table(self, schema: str, table: str) -> list[Item]:
        head = f"{schema} {table}"
        seeds = [item for item in self._items if item.kind in RELATIONS and head in self._without_owner(item.rest)]
        # A partitioned table is its partitions, at every level.
        numbers = {item.number for item in seeds}
        attached = [item for item in self._items if item.kind == "TABLE ATTACH"]
        grown = True
        while grown:
            grown = False
            for item in attached:
                new = set(item.depends) - numbers
                # It leans on the partition and on its parent, in this order.
                if new and len(item.depends) >= 2 and item.depends[1] in numbers:
                    numbers.add(item.depends[0])
                    grown = item.depends[0] in new or grown
        return [item for item in self._items if item.number in numbers]

    def _attach(self, chosen: set[int], owning: set[int], allowed: set[int], candidates: Sequence[Item]) -> list[str]:
        """Add to ``chosen`` what belongs to the part; return what does and cannot."""
        wanted = {item.number for item in candidates}
        left_out: dict[int, str] = {}
        grown = True
        while grown:
            grown = False
            for item in self._items:
                if item.number in chosen or not self._belongs(item, owning, chosen, wanted):
                    continue
                need = self._need(item.number)
                if not self._relations(need) <= allowed:
                    left_out[item.number] = f"{item.kind.lower()} {item.rest}"
                    continue
                owning |= {number for number in need - chosen if self._by_number[number].kind in ATTACHED}
                owning.add(item.number)
                chosen |= need
                grown = True
        return list(left_out.values())

    def _belongs(self, item: Item, owning: set[int], chosen: set[int], wanted: set[int]) -> bool:
        if item.number in wanted:
            return True
        if item.kind in ("COMMENT", "ACL", "SECURITY LABEL"):
            return bool(item.depends) and set(item.depends) <= chosen
        if item.kind == "FK CONSTRAINT":  # It leans on both tables; it is that one's which it names first.
            return any(item.rest.startswith(f"{head} ") for number in owning for head in self._heads(number))
        return item.kind in ATTACHED and any(number in owning for number in item.depends)

    def _heads(self, number: int) -> list[str]:
        item = self._by_number[number]
        return self._without_owner(item.rest) if item.kind == "TABLE" else []

    def _relations(self, numbers: Iterable[int]) -> set[int]:
        return {number for number in numbers if self._by_number[number].kind in RELATIONS}

    def _need(self, number: int) -> frozenset[int]:
        """Return an item and all it leans on."""
        known = self._needs.get(number)
        if known is None:
            seen: set[int] = set()
            left = [number]
            while left:
                one = left.pop()
                if one not in seen and one in self._by_number:
                    seen.add(one)
                    left.extend(self._by_number[one].depends)
            known = self._needs[number] = frozenset(seen)
        return known

    def _schema_of(self, item: Item) -> str | None:
        for schema in self._schemas:
            if item.rest.startswith(f"{schema} ") and self._without_owner(item.rest[len(schema) + 1 :]):
                return schema
        return None

    def _names(self, item: Item) -> list[Name]:
        """Return which table with rows an item makes."""
        found = []
        for schema in self._schemas:
            if item.kind == "TABLE" and item.rest.startswith(f"{schema} "):
                for name in self._without_owner(item.rest[len(schema) + 1 :]):
                    if (schema, name) in self._tables:
                        found.append(self._tables[schema, name])
        return found

    def _without_owner(self, rest: str) -> list[str]:
        """Return what may stand before the owner; names may hold blanks, so that there can be several readings."""
        words = rest.split(" ")
        ends = ((" ".join(words[:cut]), " ".join(words[cut:])) for cut in range(1, len(words)))
        return [name for name, owner in ends if owner in self._owners or _SYSTEM_ROLE.fullmatch(owner)]


def _line(name: str) -> str:
    """Return a name as a list prints it."""
    return re.sub(r"[\r\n]", " ", name)
