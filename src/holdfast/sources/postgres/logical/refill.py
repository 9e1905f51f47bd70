"""Brings a logical backup, or a part of it, into a running server: beside what is there, compared, then given its name.

Nothing that lives there is dropped or written to. What is loaded stands in a database of ours (``marks``) until it is
complete and compared; then it gets its name in one transaction, in place with the old one kept. A run that died leaves
a database that carries our mark, and the next run finishes it, drops it, or names it.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from holdfast.model.errors import ConfigInvalid, IntegrityBroken
from holdfast.sources.port import Content
from holdfast.sources.postgres.connection import Session
from holdfast.sources.postgres.logical import names
from holdfast.sources.postgres.logical.archive import Archive, major_that_reads
from holdfast.sources.postgres.logical.capture import require_direct
from holdfast.sources.postgres.logical.children import ClientAccess
from holdfast.sources.postgres.logical.cluster_roles import RolePlan, RoleRules, plan_roles
from holdfast.sources.postgres.logical.live_run import Run, Step, Work
from holdfast.sources.postgres.logical.live_values import LivePlan, LiveReport, ServerTarget
from holdfast.sources.postgres.logical.loading import Loader
from holdfast.sources.postgres.logical.marks import (
    NAME_BYTES_MAX,
    claim,
    dated,
    left_over,
    open_maintenance,
)
from holdfast.sources.postgres.logical.names import Selection
from holdfast.sources.postgres.logical.parts import Part, choose_part
from holdfast.sources.postgres.logical.preflight import (
    Needs,
    TargetFacts,
    check_target,
    read_target,
    refuse_bound,
    refuse_taken,
    refuse_target,
)
from holdfast.sources.postgres.logical.sql_text import named_things
from holdfast.sources.postgres.logical.swap import read_live
from holdfast.sources.postgres.logical.tools import clients_for
from holdfast.sources.postgres.logical.verdict import expected_of
from holdfast.sources.postgres.logical.witness import (
    DatabaseWitness,
    How,
    Witness,
    from_document,
)

__all__ = ["LivePlan", "LiveReport", "PostgresServerRefill", "ServerTarget", "read_witness"]

WITNESS_BYTES_MAX = 256 << 20


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _new_id() -> str:
    return secrets.token_hex(4)


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
    ) -> Iterator[Work]:
        """Find out everything that is needed, and refuse what cannot be, before anything is written."""
        session.stop_requested = self._stop_requested
        settings, facts = target.settings, self._look(session, witness)
        database = _database_of(witness, plan.source_database)
        # pg_dump may have been newer than its server, and an older pg_restore does not read what it wrote.
        wanted = max(facts.major, _major(witness.server_version), _archive_major(content, plan.source_database))
        programs = clients_for(wanted, named=settings.programs)
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
            yield Work(target, witness, database, session, facts, loader, archive, part, script, roles, options,
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
                run = Run(work, plan, identifier, self._stop_requested)
                try:
                    return run.beside() if plan.into_table is not None else run.database()
                except BaseException as error:
                    run.clean(error)
                    raise


def _archive_major(content: Content, database: str) -> int:
    path = names.database_path(database, names.SCHEMA)
    for index, entry in enumerate(content.entries):
        if entry.entry.path == path:
            return major_that_reads(next(iter(content.open(index)), b""))
    raise IntegrityBroken(f"the backup holds no {path}", hint="Run `holdfast check`.")


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


def _major(version: str) -> int:
    match = re.match(r"\d+", version)
    return int(match[0]) if match else 0
