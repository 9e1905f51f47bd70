"""Brings a logical backup, or a part of it, into a running server: beside what is there, compared, then swapped in.

Nothing that lives there is dropped or written to. What is loaded stands in a database of its own that carries our mark
until it is compared; a run that died leaves it, and the next one finds it by the mark.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from holdfast.model.errors import ConfigInvalid, Conflict, HoldfastError, IntegrityBroken, SourceFailed
from holdfast.sources.port import Content
from holdfast.sources.postgres.connection import Session, open_sql
from holdfast.sources.postgres.logical import names
from holdfast.sources.postgres.logical.capture import read_logical_server, require_direct
from holdfast.sources.postgres.logical.children import ClientAccess
from holdfast.sources.postgres.logical.inspect import Inspection, inspect_database
from holdfast.sources.postgres.logical.loading import Loader
from holdfast.sources.postgres.logical.names import Selection, quote_identifier, quote_literal
from holdfast.sources.postgres.logical.swap import Swap, refuse_bound
from holdfast.sources.postgres.logical.tools import clients_for
from holdfast.sources.postgres.logical.witness import (
    DatabaseWitness,
    Difference,
    Found,
    How,
    Witness,
    compare,
    from_document,
)
from holdfast.sources.postgres.settings import PostgresSettings

MARK = "holdfast: loading "
NAME_BYTES_MAX = 63
WITNESS_BYTES_MAX = 256 << 20
Step = Callable[[str], None]


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class ServerTarget:
    """Where a restore goes: a server, and the name of the database there; None is a dated name beside the others.

    ``in_place`` swaps it for the live one of that name.
    """

    settings: PostgresSettings
    database: str | None = None
    selection: Selection | None = None
    in_place: bool = False


@dataclass(frozen=True, slots=True)
class LivePlan:
    """What will be done. ``loaded_as`` is the database that is made, ``live`` the one it replaces in the end."""

    source_database: str
    loaded_as: str
    live: str | None
    kept_as: str | None
    selection: Selection | None
    tables: int
    size_bytes: int
    notes: tuple[str, ...] = ()


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


@dataclass(slots=True)
class _Run:
    """One restore while it goes on."""

    plan: LivePlan
    target: ServerTarget
    witness: Witness
    database: DatabaseWitness
    seconds: list[tuple[str, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def step(self, name: str, at: Step) -> Iterator[None]:
        begun = time.monotonic()
        at(name)
        yield
        self.seconds.append((name, time.monotonic() - begun))


class PostgresServerRefill:
    """Restores logical backups into running servers.

    ``at_step`` is told the name of each step as it begins; ``now`` gives the dates in names.
    """

    def __init__(
        self,
        now: Callable[[], datetime] = _utc_now,
        stop_requested: Callable[[], bool] = lambda: False,
        at_step: Step = lambda step: None,
    ) -> None:
        self._now = now
        self._stop_requested = stop_requested
        self._at_step = at_step

    def plan(self, content: Content, target: ServerTarget) -> LivePlan:
        """Decide what a restore will do; nothing is written. Raises ``ConfigInvalid`` or ``Conflict``."""
        witness = read_witness(content)
        database = _chosen_database(witness, target)
        with open_sql(target.settings) as session:
            require_direct(session)
            there = _databases(session)
            notes = tuple(_left_over(session))
            _refuse_older(session, witness)
            _refuse_missing_extensions(session, database)
            stamp = self._now().strftime("%Y%m%dt%H%M%S")
            wanted = target.database
            if target.in_place:
                live = wanted or database.name
                if live not in there:
                    raise ConfigInvalid(
                        f"the server has no database {live} to replace",
                        hint="Leave --in-place out: the database is then made under the name you give.",
                    )
                if target.selection is not None and target.selection.schema is not None:
                    raise ConfigInvalid(
                        "a part of a database cannot replace the whole of it",
                        hint="Restore the part beside, and copy from there what you need.",
                    )
                refuse_bound(session, live)
                loaded, kept = _dated(live, "new", stamp), _dated(live, "before", stamp)
            else:
                live, kept = None, None
                loaded = wanted or _dated(database.name, "restored", stamp)
            for name in (loaded, kept):
                if name in there:
                    raise ConfigInvalid(
                        f"the server has a database {name} already",
                        hint="Name another one that does not exist yet, or add --in-place to replace it.",
                    )
        tables = [table for table in database.tables if _in_part(target.selection, table.schema, table.name)]
        if target.selection is not None and not tables:
            raise ConfigInvalid(
                f"the backup holds no table in {target.selection}",
                hint="`holdfast ls` lists what it holds: databases/DATABASE/tables/SCHEMA/TABLE.sql.",
            )
        size = sum(table.size_bytes for table in tables)
        return LivePlan(database.name, loaded, live, kept, target.selection, len(tables), size, notes)

    def run(self, content: Content, target: ServerTarget, plan: LivePlan) -> LiveReport:
        """Carry a plan out. On any failure what was loaded is dropped again, or named where that fails too.

        Where the comparison finds differences nothing is swapped: the loaded database stays beside for a look.
        """
        witness = read_witness(content)
        database = _chosen_database(witness, replace(target, selection=Selection(plan.source_database)))
        run = _Run(plan, target, witness, database, notes=list(plan.notes))
        with open_sql(target.settings) as session:
            server = read_logical_server(session)
            programs = clients_for(max(server.major, _tools_major(witness)), named=target.settings.programs)
            identifier = f"{self._now():%Y%m%dt%H%M%S}-{session.query('SELECT pg_catalog.pg_backend_pid()')[0][0]}"
            password = target.settings.password.reveal() if target.settings.password is not None else None
            with ClientAccess(session, password) as access:
                loader = Loader(content, target.settings, programs, access, self._stop_requested, plan.selection)
                try:
                    return self._load(run, session, loader, identifier)
                except BaseException as error:
                    self._drop_ours(target, plan.loaded_as, identifier, error)
                    raise

    def _load(self, run: _Run, session: Session, loader: Loader, identifier: str) -> LiveReport:
        plan = run.plan
        archive = loader.schema(plan.source_database)
        statements = archive.database_statements(plan.source_database, plan.loaded_as)
        with run.step("roles", self._at_step):
            run.notes += loader.make_roles(session, archive, run.witness)
        with run.step("create", self._at_step):
            _create(session, statements, plan.loaded_as, f"{MARK}{identifier}")
        with run.step("schema", self._at_step):
            run.notes += loader.pre_data(archive, plan.loaded_as)
        with run.step("rows", self._at_step):
            loader.rows(plan.source_database, plan.loaded_as)
        with run.step("indexes and constraints", self._at_step):
            run.notes += loader.post_data(archive, plan.loaded_as)
        with run.step("statistics", self._at_step):
            loader.analyze(plan.loaded_as)
        with run.step("compare", self._at_step):
            found = self._inspect(run, loader)
        expected = _part_of(run.database, plan.selection)
        differences = _differences(expected, _part_of(found, plan.selection), plan.selection)
        database, kept = plan.loaded_as, None
        if plan.live is None:
            with run.step("settings", self._at_step):
                run.notes += _finish(session, statements, plan.loaded_as)
        elif differences:
            run.notes.append(f"{plan.live} was not replaced: what was loaded differs and stays as {plan.loaded_as}")
        else:
            swap = Swap(run.target.settings, loader.programs, loader.access, self._stop_requested)
            with run.step("swap", self._at_step):
                run.notes += swap.run(session, plan.live, plan.loaded_as, str(plan.kept_as), self._at_step)
            database, kept = plan.live, plan.kept_as
        return _report(run, expected, database, kept, differences)

    def _inspect(self, run: _Run, loader: Loader) -> DatabaseWitness:
        chosen = run.plan.selection
        inspection = Inspection(
            run.target.settings,
            loader.programs,
            loader.access,
            self._stop_requested,
            chosen.schema if chosen else None,
            chosen.table if chosen else None,
        )
        return inspect_database(inspection, run.plan.loaded_as, run.database)

    def _drop_ours(self, target: ServerTarget, database: str, identifier: str, error: BaseException) -> None:
        """Drop what this run made, if it carries this run's mark; what stays is named in the error."""
        try:
            with open_sql(target.settings) as session:
                marked = dict(_marked(session))
                if marked.get(database) == f"{MARK}{identifier}":
                    session.query(f"DROP DATABASE {quote_identifier(database)} WITH (FORCE)")
        except HoldfastError as second:
            if isinstance(error, HoldfastError):
                error.hint = (
                    f"{error.hint} Half loaded and left behind: database {database} ({second.message}); drop it when "
                    "the server answers again."
                ).strip()


def read_witness(content: Content) -> Witness:
    """Return the witness of a logical backup; raises ``IntegrityBroken`` or ``ConfigInvalid``."""
    for index, entry in enumerate(content.entries):
        if entry.entry.path == names.WITNESS:
            if entry.size_bytes > WITNESS_BYTES_MAX:
                raise IntegrityBroken("the witness of the backup is impossibly large", hint="Run `holdfast check`.")
            try:
                return from_document(json.loads(b"".join(content.open(index))))
            except ValueError as error:
                raise IntegrityBroken(
                    "the witness of the backup cannot be read", hint="Run `holdfast check`."
                ) from error
    raise ConfigInvalid(
        "this backup is no logical one: it cannot be loaded into a running server",
        hint="Choose one whose form is logical (`holdfast backups`), or restore it into a folder.",
    )


def _chosen_database(witness: Witness, target: ServerTarget) -> DatabaseWitness:
    wanted = target.selection.database if target.selection else None
    if wanted is None and len(witness.databases) == 1:
        return witness.databases[0]
    if wanted is None and target.database is not None and witness.database(target.database) is not None:
        wanted = target.database
    found = witness.database(wanted) if wanted is not None else None
    if found is None:
        have = ", ".join(database.name for database in witness.databases) or "none"
        problem = f"the backup has no database {wanted}" if wanted else "which database of the backup?"
        raise ConfigInvalid(problem, hint=f"It has {have}: name one with --only.")
    return found


def _tools_major(witness: Witness) -> int:
    match = re.match(r"\d+", witness.server_version)
    return int(match[0]) if match else 0


def _databases(session: Session) -> set[str]:
    return {row[0] or "" for row in session.query("SELECT datname FROM pg_catalog.pg_database")}


def _marked(session: Session) -> list[tuple[str, str]]:
    rows = session.query(
        "SELECT datname, pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database "
        f"WHERE pg_catalog.shobj_description(oid, 'pg_database') LIKE {quote_literal(MARK + '%')} ORDER BY 1"
    )
    return [(name or "", mark or "") for name, mark in rows]


def _left_over(session: Session) -> Iterator[str]:
    for name, mark in _marked(session):
        pid = mark.rpartition("-")[2]
        alive = session.query(
            "SELECT 1 FROM pg_catalog.pg_stat_activity WHERE pid = $1::int AND application_name = 'holdfast'", (pid,)
        ) if pid.isdigit() else []  # fmt: skip
        if alive:
            yield f"database {name} is being loaded by another restore right now"
        else:
            yield (
                f"database {name} was left half loaded by a restore that died; nothing uses it: "
                f"DROP DATABASE {quote_identifier(name)};"
            )


def _refuse_older(session: Session, witness: Witness) -> None:
    here, there = session.server_version // 10000, _tools_major(witness)
    if here < there:
        raise Conflict(
            f"the backup is of PostgreSQL {there} and the target is PostgreSQL {here}",
            hint=f"Restore into a server of version {there} or newer.",
        )


def _refuse_missing_extensions(session: Session, database: DatabaseWitness) -> None:
    rows = session.query("SELECT name FROM pg_catalog.pg_available_extensions")
    available = {name for (name,) in rows}
    missing = [name for name, _ in database.extensions if name not in available]
    if missing:
        raise Conflict(
            f"the target lacks extensions that {database.name} uses: {', '.join(missing)}",
            hint="Install their packages on the target's host, and run this again; nothing was written.",
        )


def _dated(name: str, word: str, stamp: str) -> str:
    """Return ``name_word_stamp``, shortened at the name where PostgreSQL would cut the stamp."""
    tail = f"_{word}_{stamp}"
    room = NAME_BYTES_MAX - len(tail)
    return name.encode("utf-8", "surrogateescape")[:room].decode("utf-8", "ignore") + tail


def _create(session: Session, statements: list[str], name: str, mark: str) -> None:
    creating = [statement for statement in statements if statement.startswith("CREATE DATABASE ")]
    if len(creating) != 1:
        raise SourceFailed(f"the archive does not tell how {name} is made", hint="Run `holdfast check`.")
    session.query(creating[0], seconds_max=CREATE_SECONDS_MAX)
    session.query(f"COMMENT ON DATABASE {quote_identifier(name)} IS {quote_literal(mark)}")


CREATE_SECONDS_MAX = 600.0


def _finish(session: Session, statements: list[str], name: str) -> list[str]:
    """Give the database what belongs to it by name; last of all its comment, which takes our mark away."""
    notes = []
    comment = f"COMMENT ON DATABASE {quote_identifier(name)} IS NULL;"
    for statement in statements:
        if statement.startswith("CREATE DATABASE "):
            continue
        if statement.startswith("COMMENT ON DATABASE "):
            comment = statement
            continue
        try:
            session.query(statement)
        except HoldfastError as error:
            notes.append(f"not set: {' '.join(statement.split())[:120]} ({error.message})")
    session.query(comment)
    return notes


def _in_part(selection: Selection | None, schema: str, table: str) -> bool:
    if selection is None:
        return True
    return selection.schema in (None, schema) and selection.table in (None, table)


def _part_of(database: DatabaseWitness, selection: Selection | None) -> DatabaseWitness:
    """Return what of a witness a selection is about."""
    if selection is None or selection.schema is None:
        return database
    tables = tuple(table for table in database.tables if _in_part(selection, table.schema, table.name))
    return replace(database, tables=tables, sequences=(), objects=(), extensions=(), large_objects=0)


def _differences(
    expected: DatabaseWitness, found: DatabaseWitness, selection: Selection | None
) -> tuple[Difference, ...]:
    differences = compare(expected, found)
    # A newer server brings newer extensions; that is no loss.
    return tuple(each for each in differences if not (each.what == "extension" and each.found is not Found.MISSING))


def _report(
    run: _Run,
    expected: DatabaseWitness,
    database: str,
    kept: str | None,
    differences: tuple[Difference, ...],
) -> LiveReport:
    compared = [table for table in expected.tables if table.how is How.COMPARED]
    counted = [table for table in expected.tables if table.how in (How.COUNTED, How.SAMPLED)]
    return LiveReport(
        database=database,
        kept_as=kept,
        tables_compared=len(compared),
        rows_compared=sum(table.rows or 0 for table in compared),
        tables_counted=len(counted),
        tables_not_compared=len(expected.tables) - len(compared) - len(counted),
        differences=differences,
        seconds=tuple(run.seconds),
        notes=tuple(run.notes),
    )
