"""What a restore into a running server is asked for, what it will do, and what it did."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.sources.postgres.logical.names import Selection
from holdfast.sources.postgres.logical.witness import Difference
from holdfast.sources.postgres.settings import PostgresSettings


@dataclass(frozen=True, slots=True)
class ServerTarget:
    """Where a restore goes: a server, and the name of the database there; None is a dated name beside the others.

    ``in_place`` swaps it for the live one of that name. ``into_table`` takes the rows of the selected table into a new
    table of that name in the live ``database`` (None: that of the backup's name), in the schema of the old one.
    """

    settings: PostgresSettings
    database: str | None = None
    selection: Selection | None = None
    in_place: bool = False
    into_table: str | None = None
    with_passwords: bool = False


@dataclass(frozen=True, slots=True)
class LivePlan:
    """What will be done. ``loaded_as`` is the database that is made, ``live`` the one it replaces in the end.

    With ``into_table`` no database is made that stays: the table is, in ``loaded_as``.
    """

    source_database: str
    loaded_as: str
    live: str | None
    kept_as: str | None
    selection: Selection | None
    tables: int
    size_bytes: int
    notes: tuple[str, ...] = ()
    into_table: str | None = None


@dataclass(frozen=True, slots=True)
class LiveReport:
    """What was done and what the comparison with the witness said. ``seconds`` is per step."""

    database: str
    kept_as: str | None
    tables_compared: int
    rows_compared: int
    tables_counted: int
    tables_not_compared: int
    differences: tuple[Difference, ...]
    seconds: tuple[tuple[str, float], ...]
    notes: tuple[str, ...]
    into_table: str | None = None
