"""Carries out one restore into a running server: loads, compares, gives the name, and cleans up after a failure."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256

from holdfast.model.documents import format_time
from holdfast.model.errors import Conflict, HoldfastError, NotFound, SourceFailed
from holdfast.sources.postgres.connection import Session, open_sql
from holdfast.sources.postgres.logical.archive import Archive
from holdfast.sources.postgres.logical.beside import copy_definition, expected_beside, load_beside
from holdfast.sources.postgres.logical.cluster_roles import RolePlan, make_roles
from holdfast.sources.postgres.logical.inspect import Inspection, inspect_database
from holdfast.sources.postgres.logical.live_values import LivePlan, LiveReport, ServerTarget
from holdfast.sources.postgres.logical.loading import Loader
from holdfast.sources.postgres.logical.marks import (
    Mark,
    Stage,
    clear,
    drop_marked,
    loading_name,
    open_maintenance,
    set_mark,
)
from holdfast.sources.postgres.logical.names import quote_identifier, quote_literal
from holdfast.sources.postgres.logical.parts import Name, Part
from holdfast.sources.postgres.logical.preflight import (
    TargetFacts,
    refuse_bound,
)
from holdfast.sources.postgres.logical.sql_text import DatabaseScript, without_tablespace
from holdfast.sources.postgres.logical.swap import Exchange, exchange, give, read_live
from holdfast.sources.postgres.logical.verdict import differences, expected_of
from holdfast.sources.postgres.logical.witness import (
    NEVER_FILLED,
    DatabaseWitness,
    Difference,
    How,
    Witness,
)
from holdfast.sources.postgres.settings import PostgresSettings

CREATE_SECONDS_MAX = 600.0
Step = Callable[[str], None]


@dataclass(slots=True)
class Work:
    """One restore while it goes on, with all that was found out before anything was written."""

    target: ServerTarget
    witness: Witness
    database: DatabaseWitness
    session: Session
    facts: TargetFacts
    loader: Loader
    archive: Archive
    part: Part | None
    script: DatabaseScript
    roles: RolePlan
    options: tuple[str, ...]
    notes: list[str]
    at_step: Step
    seconds: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        begun = time.monotonic()
        self.at_step(name)
        yield
        self.seconds.append((name, time.monotonic() - begun))


class Run:
    """The writing part of one restore."""

    def __init__(self, work: Work, plan: LivePlan, identifier: str, stop_requested: Callable[[], bool]) -> None:
        self._work = work
        self._plan = plan
        self._id = identifier
        self._stop_requested = stop_requested
        self._loading = loading_name(identifier)
        self._is_ready = False
        self._roles_made: tuple[str, ...] = ()
        # Of a database, not of a backup: what is ready of one is never taken for another. No blanks: see Mark.
        content = sha256(repr(work.database).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        backup = f"{format_time(work.witness.taken_at)}/{content}"
        self._mark = Mark(Stage.LOADING, identifier, backup, plan.live or plan.loaded_as)

    @property
    def _settings(self) -> PostgresSettings:
        return self._work.target.settings

    def database(self) -> LiveReport:
        """Load a database, compare it, and give it its name."""
        work, plan = self._work, self._plan
        found, notes = clear(self._settings, work.session, self._id, self._may_resume)
        work.notes += notes
        if found is not None:
            self._loading = found.database
            set_mark(work.session, self._loading, replace(self._mark, stage=Stage.READY))
            self._is_ready = True
        else:
            self._create()
            self._load()
        expected = expected_of(work.database, work.part)
        told = self._compare(self._loading, expected)
        script = work.script
        if plan.live is not None:
            script = read_live(work.archive, plan.live, plan.loaded_as)
        with work.step("properties"):
            work.session.query(f"ALTER DATABASE {quote_identifier(self._loading)} RESET ALL")
            work.notes += give(work.session, _about(script, plan.loaded_as, self._loading))
        if plan.live is not None and not told:
            return self._swap(plan.live, script, expected)
        with work.step("name"):
            wish = Exchange(self._loading, plan.loaded_as, None, script.comment, script.strings)
            exchange(self._settings, work.session, wish, self._stop_requested)
        if plan.live is not None:
            work.notes.append(f"{plan.live} was not replaced: what was loaded differs and stays as {plan.loaded_as}")
        return self._report(expected, plan.loaded_as, None, told)

    def _swap(self, live: str, script: DatabaseScript, expected: DatabaseWitness) -> LiveReport:
        work, plan = self._work, self._plan
        with work.step("ready"):
            set_mark(work.session, self._loading, replace(self._mark, stage=Stage.READY))
            self._is_ready = True
        with work.step("swap"):
            refuse_bound(work.session, live)
            wish = Exchange(self._loading, live, plan.kept_as, script.comment, script.strings)
            exchange(self._settings, work.session, wish, self._stop_requested)
        self._is_ready = False
        work.at_step("swapped")
        work.notes.append(
            f"the database before is kept as {plan.kept_as}; when all is well: "
            f"DROP DATABASE {quote_identifier(plan.kept_as or '')};"
        )
        return self._report(expected, live, plan.kept_as, ())

    def beside(self) -> LiveReport:
        """Load the rows of a table into a new table of the live database."""
        work, plan = self._work, self._plan
        assert work.part is not None
        assert plan.selection is not None
        assert plan.selection.schema is not None
        table = (plan.selection.schema, plan.selection.table or "")
        into = (plan.selection.schema, plan.into_table or "")
        _refuse_table(self._settings, plan.loaded_as, into)
        _, notes = clear(self._settings, work.session, self._id, lambda mark: False)
        work.notes += notes
        self._create()
        with work.step("schema"):
            work.loader.sections(work.archive, self._loading, "pre-data", work.options, work.facts.major)
            copy_definition(self._settings, self._loading, table, into)
        with work.step("rows"):
            load_beside(work.loader, self._loading, plan.loaded_as, into, work.part)
        with work.step("scratch"):
            drop_marked(work.session, self._loading, self._id)
        expected = expected_beside(work.database, work.part, into)
        told = self._compare(plan.loaded_as, expected, into)
        return self._report(expected, plan.loaded_as, None, told)

    def _may_resume(self, mark: Mark) -> bool:
        return self._plan.live == mark.name and self._plan.live is not None and mark.backup == self._mark.backup

    def _create(self) -> None:
        work = self._work
        create = without_tablespace(work.script.create, set(work.facts.tablespaces))
        if not create:
            raise SourceFailed("the archive does not tell how the database is made", hint="Run `holdfast check`.")
        with work.step("create"):
            work.session.query(f"SET standard_conforming_strings = {work.script.strings}; SET statement_timeout = 0")
            statement = _about_one(create, self._plan.loaded_as, self._loading)
            work.session.query(statement, seconds_max=CREATE_SECONDS_MAX)
            work.session.query("SET standard_conforming_strings = on")
        with work.step("mark"):
            set_mark(work.session, self._loading, self._mark)
        if self._plan.into_table is None:
            with work.step("roles"):
                work.notes += make_roles(work.session, work.roles)
                self._roles_made = work.roles.names
        else:
            work.options = (*work.options, "--no-owner", "--no-privileges")

    def _load(self) -> None:
        work, target, loader = self._work, self._loading, self._work.loader
        give(work.session, _about(replace(work.script, late=()), self._plan.loaded_as, target))
        with work.step("schema"):
            loader.sections(work.archive, target, "pre-data", work.options, work.facts.major)
        with work.step("rows"):
            loader.rows(target, work.part)
        if work.part is None:
            with work.step("large objects"):
                loader.large_objects(target, work.facts.major)
        with work.step("sequences"):
            loader.sequences(target, work.part)
        with work.step("indexes and constraints"):
            loader.sections(work.archive, target, "post-data", work.options, work.facts.major)
        with work.step("materialised views"):
            empty = {
                (table.schema, table.name)
                for table in work.database.tables
                if table.how is How.RECOMPUTED and table.reason == NEVER_FILLED
            }
            loader.refresh_views(target, empty)

    def _compare(self, database: str, expected: DatabaseWitness, table: Name | None = None) -> tuple[Difference, ...]:
        """Compare with the witness; statistics are made meanwhile where the database is all ours."""
        work, ended = self._work, threading.Event()
        schema, name = table or (None, None)
        inspection = Inspection(
            self._settings, work.loader.programs, work.loader.access, self._stop_requested, schema, name
        )
        with work.step("compare"), ThreadPoolExecutor(1, thread_name_prefix="analyze") as pool:
            statistics = None
            if table is None:
                statistics = pool.submit(
                    work.loader.analyze, database, lambda: ended.is_set() or self._stop_requested()
                )
            try:
                found = inspect_database(inspection, database, expected)
            except BaseException:
                ended.set()
                raise
            if statistics is not None:
                statistics.result()
        part = work.part if table is None else replace(work.part, tables=(table,)) if work.part else None
        return differences(expected, found, part)

    def _report(
        self, expected: DatabaseWitness, database: str, kept: str | None, told: tuple[Difference, ...]
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
            differences=told,
            seconds=tuple(self._work.seconds),
            notes=tuple(self._work.notes),
            into_table=self._plan.into_table,
        )

    def clean(self, error: BaseException) -> None:
        """Drop what this run made, if it carries this run's mark; what stays is named in the error."""
        told = ""
        try:
            with open_maintenance(self._settings, self._plan.live or self._plan.loaded_as) as session:
                if self._is_ready:
                    rows = session.query(
                        f"SELECT 1 FROM pg_catalog.pg_database WHERE datname = {quote_literal(self._loading)}"
                    )
                    if rows:
                        told = (
                            f"What was loaded is complete and waits as database {self._loading}: run this again to "
                            f"finish, or DROP DATABASE {quote_identifier(self._loading)};"
                        )
                else:
                    drop_marked(session, self._loading, self._id)
        except HoldfastError as second:
            told = (
                f"Half loaded and left behind: database {self._loading} ({second.message}); the next restore drops it, "
                f"or DROP DATABASE {quote_identifier(self._loading)};"
            )
        roles = f"Roles that were made stay: {', '.join(self._roles_made)}." if self._roles_made else ""
        if isinstance(error, HoldfastError):
            error.hint = " ".join(part for part in (error.hint, told, roles) if part)


def _refuse_table(settings: PostgresSettings, database: str, table: Name) -> None:
    with open_sql(settings, database) as session:
        schema = quote_literal(table[0])
        if not session.query(f"SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = {schema}"):
            raise NotFound(
                f"database {database} has no schema {table[0]}", hint="Make it, or restore into a new database."
            )
        taken = session.query(
            "SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
            f"WHERE n.nspname = {schema} AND c.relname = {quote_literal(table[1])}"
        )
    if taken:
        raise Conflict(f"{table[0]}.{table[1]} is there already in {database}", hint="Choose another name for it.")


def _about(script: DatabaseScript, old: str, new: str) -> DatabaseScript:
    """Return the same statements about the database while it has another name."""
    return replace(
        script,
        early=tuple(_about_one(statement, old, new) for statement in script.early),
        late=tuple(_about_one(statement, old, new) for statement in script.late),
    )


def _about_one(statement: str, old: str, new: str) -> str:
    head, name, rest = statement.partition(f" DATABASE {quote_identifier(old)}")
    return f"{head} DATABASE {quote_identifier(new)}{rest}" if name else statement
