"""Brings a logical backup, or a part of it, into a running server: beside what is there, compared, then given its name.

Nothing that lives there is dropped or written to. What is loaded stands in a database of ours (``marks``) until it is
complete and compared; then it gets its name in one transaction, in place with the old one kept. A run that died leaves
a database that carries our mark, and the next run finishes it, drops it, or names it.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256

from holdfast.model.documents import format_time
from holdfast.model.errors import ConfigInvalid, Conflict, HoldfastError, IntegrityBroken, NotFound, SourceFailed
from holdfast.sources.port import Content
from holdfast.sources.postgres.connection import Session, open_sql
from holdfast.sources.postgres.logical import names
from holdfast.sources.postgres.logical.archive import Archive
from holdfast.sources.postgres.logical.beside import copy_definition, expected_beside, load_beside
from holdfast.sources.postgres.logical.capture import require_direct
from holdfast.sources.postgres.logical.children import ClientAccess
from holdfast.sources.postgres.logical.cluster_roles import RolePlan, RoleRules, make_roles, plan_roles
from holdfast.sources.postgres.logical.inspect import Inspection, inspect_database
from holdfast.sources.postgres.logical.loading import Loader
from holdfast.sources.postgres.logical.marks import (
    NAME_BYTES_MAX,
    Mark,
    Stage,
    claim,
    clear,
    dated,
    drop_marked,
    left_over,
    loading_name,
    open_maintenance,
    set_mark,
)
from holdfast.sources.postgres.logical.names import Selection, quote_identifier, quote_literal
from holdfast.sources.postgres.logical.parts import Name, Part, choose_part
from holdfast.sources.postgres.logical.preflight import (
    Needs,
    TargetFacts,
    check_target,
    read_target,
    refuse_bound,
    refuse_taken,
    refuse_target,
)
from holdfast.sources.postgres.logical.sql_text import DatabaseScript, named_things, without_tablespace
from holdfast.sources.postgres.logical.swap import Exchange, exchange, give, read_live
from holdfast.sources.postgres.logical.tools import clients_for
from holdfast.sources.postgres.logical.verdict import differences, expected_of
from holdfast.sources.postgres.logical.witness import (
    NEVER_FILLED,
    DatabaseWitness,
    Difference,
    How,
    Witness,
    from_document,
)
from holdfast.sources.postgres.settings import PostgresSettings

WITNESS_BYTES_MAX = 256 << 20
CREATE_SECONDS_MAX = 600.0
Step = Callable[[str], None]


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _new_id() -> str:
    return secrets.token_hex(4)


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


@dataclass(slots=True)
class _Work:
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


class PostgresServerRefill:
    """Restores logical backups into running servers.

    ``at_step`` is told the name of each step as it begins; ``now`` gives the dates in names, ``new_id`` eight
    hexadecimal digits for each run.
    """

    def __init__(
        self,
        now: Callable[[], datetime] = _utc_now,
        stop_requested: Callable[[], bool] = lambda: False,
        at_step: Step = lambda step: None,
        new_id: Callable[[], str] = _new_id,
    ) -> None:
        self._now = now
        self._stop_requested = stop_requested
        self._at_step = at_step
        self._new_id = new_id

    def plan(self, content: Content, target: ServerTarget) -> LivePlan:
        """Decide what a restore will do, and look whether it can; nothing is written.

        Raises ``ConfigInvalid`` for what cannot be meant, and whatever would stop the restore: ``Conflict``,
        ``Denied``, ``NotFound`` (an extension, a locale, programs), ``Unavailable``.
        """
        witness = read_witness(content)
        database = _chosen_database(witness, target)
        with open_maintenance(target.settings, target.database) as session:
            facts = self._look(session, witness)
            plan, notes = self._named(session, facts, database, target), []
            for each in left_over(session):
                alive = "is being loaded by another restore" if each.is_alive else "was left by a restore that died"
                notes.append(f"database {each.database} {alive}")
            with self._prepare(content, target, plan, witness, session) as work:
                tables = expected_of(database, work.part).tables
                return replace(
                    plan,
                    tables=len(tables),
                    size_bytes=sum(table.size_bytes for table in tables),
                    notes=(*notes, *plan.notes, *work.notes, *_role_notes(work.roles)),
                )

    def _look(self, session: Session, witness: Witness) -> TargetFacts:
        require_direct(session)
        facts = read_target(session)
        refuse_target(facts, _major(witness.server_version))
        return facts

    def _named(self, session: Session, facts: TargetFacts, database: DatabaseWitness, target: ServerTarget) -> LivePlan:
        """Choose every name and refuse those that cannot be."""
        _refuse_contradictions(target)
        stamp = self._now().strftime("%Y%m%dt%H%M%S")
        wanted, chosen = target.database, target.selection
        if target.into_table is not None:
            live = wanted or database.name
            _require_there(facts, live)
            return LivePlan(database.name, live, None, None, chosen, 0, 0, into_table=target.into_table)
        if not target.in_place:
            loaded = wanted or dated(database.name, "restored", stamp)
            refuse_taken(facts, (loaded,))
            return LivePlan(database.name, loaded, None, None, chosen, 0, 0)
        live = wanted or database.name
        _require_there(facts, live)
        loaded, kept = dated(live, "restored", stamp), dated(live, "before", stamp)
        refuse_taken(facts, (loaded, kept))
        notes = refuse_bound(session, live)
        return LivePlan(database.name, loaded, live, kept, chosen, 0, 0, tuple(notes))

    @contextmanager
    def _prepare(
        self, content: Content, target: ServerTarget, plan: LivePlan, witness: Witness, session: Session
    ) -> Iterator[_Work]:
        """Find out everything that is needed, and refuse what cannot be, before anything is written."""
        session.stop_requested = self._stop_requested
        settings, facts = target.settings, self._look(session, witness)
        database = _database_of(witness, plan.source_database)
        programs = clients_for(max(facts.major, _major(witness.server_version)), named=settings.programs)
        password = settings.password.reveal() if settings.password is not None else None
        with ClientAccess(session, password) as access:
            loader = Loader(content, plan.source_database, settings, programs, access, self._stop_requested)
            archive = loader.schema()
            part = _part(archive, plan.selection, witness, database)
            options = (archive.use_list("part", part.items),) if part else ()
            script = archive.database_script(plan.source_database, plan.loaded_as)
            named = named_things(archive.sql(*options, *(() if part else ("--create",))))
            if not named.tablespaces <= facts.tablespaces:
                options = (*options, "--no-tablespaces")
            globals_script = loader.read(names.GLOBALS).decode("utf-8", "surrogateescape")
            rules = RoleRules(target.with_passwords, facts.is_superuser)
            known = {name for name, _ in witness.roles}
            roles = plan_roles(globals_script, named.roles & known, facts.roles, rules)
            needs = Needs(facts.major, database, named, script.create, _extensions(database, part), settings.jobs)
            if plan.live is not None:
                # What fails here would fail again when all is loaded, just before the swap.
                read_live(archive, plan.live, plan.loaded_as)
            notes = [*check_target(session, facts, needs), *(part.notes if part and plan.into_table is None else ())]
            if part is not None and database.large_objects and plan.into_table is None:
                notes.append("large objects belong to no table: a part is restored without them")
            yield _Work(target, witness, database, session, facts, loader, archive, part, script, roles, options,
                        notes, self._at_step)  # fmt: skip

    def run(self, content: Content, target: ServerTarget, plan: LivePlan) -> LiveReport:
        """Carry a plan out. On any failure what was loaded is dropped again, or named where that fails too.

        Where the comparison finds differences nothing is swapped: the loaded database stays beside for a look.
        """
        witness = read_witness(content)
        identifier = self._new_id()
        with open_maintenance(target.settings, plan.live or plan.loaded_as) as session:
            claim(session, identifier)
            self._at_step("look")
            _refuse_changes(read_target(session), plan)
            with self._prepare(content, target, plan, witness, session) as work:
                run = _Run(work, plan, identifier, self._stop_requested)
                try:
                    return run.beside() if plan.into_table is not None else run.database()
                except BaseException as error:
                    run.clean(error)
                    raise


class _Run:
    """The writing part of one restore."""

    def __init__(self, work: _Work, plan: LivePlan, identifier: str, stop_requested: Callable[[], bool]) -> None:
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
    return _database_of(witness, wanted)


def _database_of(witness: Witness, wanted: str | None) -> DatabaseWitness:
    found = witness.database(wanted) if wanted is not None else None
    if found is None:
        have = ", ".join(database.name for database in witness.databases) or "none"
        problem = f"the backup has no database {wanted}" if wanted else "which database of the backup?"
        raise ConfigInvalid(problem, hint=f"It has {have}: name one with --only.")
    return found


def _refuse_contradictions(target: ServerTarget) -> None:
    chosen = target.selection
    for name in (target.database, target.into_table):
        if name is not None and len(name.encode("utf-8", "surrogateescape")) > NAME_BYTES_MAX:
            raise ConfigInvalid(
                f"the name {name} is longer than {NAME_BYTES_MAX} bytes",
                hint="PostgreSQL would cut it without a word; give a shorter one.",
            )
    if target.in_place and chosen is not None and chosen.schema is not None:
        raise ConfigInvalid(
            "a part of a database cannot replace the whole of it",
            hint="Restore the part beside, and copy from there what you need.",
        )
    if target.into_table is not None and (chosen is None or chosen.table is None):
        raise ConfigInvalid("rows go into a table only from one table", hint="Name it: --only database.schema.table.")
    if target.into_table is not None and target.in_place:
        raise ConfigInvalid("a table beside replaces nothing", hint="Leave --in-place out.")


def _require_there(facts: TargetFacts, database: str) -> None:
    if database not in facts.databases:
        raise ConfigInvalid(
            f"the server has no database {database}",
            hint="Without --in-place and without a table's name it is made under the name you give.",
        )


def _refuse_changes(facts: TargetFacts, plan: LivePlan) -> None:
    """Look again at what may have changed since the plan was made."""
    if plan.into_table is not None:
        _require_there(facts, plan.loaded_as)
        return
    refuse_taken(facts, (plan.loaded_as, plan.kept_as))
    if plan.live is not None:
        _require_there(facts, plan.live)


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


def _part(archive: Archive, selection: Selection | None, witness: Witness, database: DatabaseWitness) -> Part | None:
    if selection is None or selection.schema is None:
        return None
    tables = [(table.schema, table.name) for table in database.tables if table.how is not How.RECOMPUTED]
    return choose_part(archive.items(), selection, tables, [name for name, _ in witness.roles])


def _extensions(database: DatabaseWitness, part: Part | None) -> tuple[tuple[str, str], ...]:
    """Return the extensions that are made: of a part those in its list."""
    if part is None:
        return database.extensions
    made = {item.rest.removeprefix("- ").strip() for item in part.items if item.kind == "EXTENSION"}
    return tuple((name, version) for name, version in database.extensions if name in made)


def _role_notes(plan: RolePlan) -> tuple[str, ...]:
    if not plan.names:
        return plan.notes
    return (f"{len(plan.names)} roles will be made: {', '.join(plan.names)}", *plan.notes)


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


def _major(version: str) -> int:
    match = re.match(r"\d+", version)
    return int(match[0]) if match else 0
