"""Loads the parts of a logical backup into a database that was made for it."""

from __future__ import annotations

import itertools
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from holdfast.model.errors import Denied, IntegrityBroken, Interrupted, SourceFailed
from holdfast.sources.port import Content
from holdfast.sources.postgres.connection import Session, open_sql
from holdfast.sources.postgres.logical import names
from holdfast.sources.postgres.logical.archive import Archive, Item, role_statements
from holdfast.sources.postgres.logical.children import ClientAccess, run_child
from holdfast.sources.postgres.logical.names import Selection, parse_table_path, quote_identifier
from holdfast.sources.postgres.logical.tools import ClientPrograms
from holdfast.sources.postgres.logical.witness import Witness
from holdfast.sources.postgres.settings import PostgresSettings

BATCH_BYTES = 8 << 20
"""Small tables are loaded together until this much: a process for each would take longer than its rows."""
SMALL_FILE_BYTES_MAX = 64 << 20
ANALYZE_SECONDS_MAX = 6 * 3600.0
TOLD_MAX = 5

_STORED = ("TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE", "SEQUENCE", "SEQUENCE OWNED BY", "DEFAULT")
_PREAMBLE = b"SET statement_timeout = 0;\nSET lock_timeout = 0;\nSET synchronous_commit = off;\n"


class Loader:
    """One backup on its way into one server. ``selection`` keeps to a part; None is the whole database."""

    def __init__(
        self,
        content: Content,
        settings: PostgresSettings,
        programs: ClientPrograms,
        access: ClientAccess,
        stop_requested: Callable[[], bool],
        selection: Selection | None,
    ) -> None:
        self._content = content
        self._settings = settings
        self.programs = programs
        self.access = access
        self._stop_requested = stop_requested
        self._selection = selection if selection is not None and selection.schema is not None else None
        self._places = {entry.entry.path: index for index, entry in enumerate(content.entries)}

    def _read(self, path: str) -> bytes:
        index = self._places.get(path)
        if index is None:
            raise IntegrityBroken(f"the backup holds no {path}", hint="Run `holdfast check`.")
        if self._content.entries[index].size_bytes > SMALL_FILE_BYTES_MAX:
            raise IntegrityBroken(f"{path} of the backup is impossibly large", hint="Run `holdfast check`.")
        return b"".join(self._content.open(index))

    def schema(self, database: str) -> Archive:
        """Return the schema's archive, in a private file that ends with the access."""
        path = self.access.folder / names.SCHEMA
        index = self._places.get(names.database_path(database, names.SCHEMA))
        if index is None:
            raise IntegrityBroken(f"the backup holds no schema of {database}", hint="Run `holdfast check`.")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            for piece in self._content.open(index):
                file.write(piece)
        return Archive(path, self.programs, self.access, self._stop_requested)

    def make_roles(self, session: Session, archive: Archive, witness: Witness) -> list[str]:
        """Make roles that the schema names and the server lacks, without passwords; those it has are not touched."""
        there = {row[0] for row in session.query("SELECT rolname FROM pg_catalog.pg_roles")}
        sql = archive.sql("--create")
        missing = [name for name, _ in witness.roles if name not in there and _mentions(sql, name)]
        if not missing:
            return []
        script = self._read(names.GLOBALS).decode("utf-8", "surrogateescape")
        made = ", ".join(missing[:TOLD_MAX])
        for statement in role_statements(script, missing):
            try:
                session.query(statement)
            except Denied as error:
                raise Denied(
                    f"the target lacks roles that the backup needs ({made}), and this role may not make them",
                    hint="Make them first, or restore with a role that has CREATEROLE (SUPERUSER for superusers).",
                ) from error
            except SourceFailed:
                if statement.startswith("GRANT"):
                    continue  # A membership in a role that is not here: the database does not need it.
                raise
        return [f"{len(missing)} roles were made, without passwords: {made}"]

    def pre_data(self, archive: Archive, database: str) -> list[str]:
        """Load types, functions, tables: all that rows need."""
        return self._sections(archive, database, "pre-data", [item for item in archive.items() if self._before(item)])

    def post_data(self, archive: Archive, database: str) -> list[str]:
        """Load indexes, constraints, triggers, and recompute materialised views."""
        return self._sections(archive, database, "post-data", [item for item in archive.items() if self._after(item)])

    def _sections(self, archive: Archive, database: str, section: str, items: list[Item]) -> list[str]:
        arguments = [self.programs.path("pg_restore"), "--no-password", f"--section={section}"]
        arguments += [f"--dbname={self.access.address(database)}"]
        if section == "post-data":
            arguments.append(f"--jobs={self._settings.jobs}")
        if self._selection is None:
            arguments.append("--exit-on-error")
        else:
            listed = archive.path.with_suffix(f".{section}")
            text = "\n".join(item.line for item in items) + "\n"
            listed.write_text(text, encoding="utf-8", errors="surrogateescape")
            arguments.append(f"--use-list={listed}")
        doing = f"loading the schema ({section}) into {database}"
        try:
            run_child([*arguments, str(archive.path)], self.access, doing, self._stop_requested)
        except SourceFailed as error:
            # Of a part, what cannot be made because it leans on what is not there is no failure: the comparison tells.
            if self._selection is None or "errors ignored on restore" not in error.message:
                raise
            return [f"{section}: some of what leans on other parts was left out ({_count_ignored(error.message)})"]
        return []

    def _before(self, item: Item) -> bool:
        return item.kind not in _STORED or self._is_of_part(item)

    def _after(self, item: Item) -> bool:
        return self._is_of_part(item)

    def _is_of_part(self, item: Item) -> bool:
        """Whether an item of the list is the selection's: pg_restore writes schema, then name, unquoted."""
        chosen = self._selection
        if chosen is None or chosen.schema is None:
            return True
        if not item.rest.startswith(f"{chosen.schema} "):
            return False
        if chosen.table is None:
            return True
        rest = item.rest[len(chosen.schema) + 1 :]
        return rest.startswith((f"{chosen.table} ", f"{chosen.table}_")) or f" {chosen.table} " in f" {rest} "

    def rows(self, source_database: str, database: str) -> None:
        """Load every table, several at a time and the largest first, then large objects and sequences."""
        batches = iter(list(self._batches(source_database)))
        failed: list[BaseException] = []
        lock = threading.Lock()

        def stopped() -> bool:
            return bool(failed) or self._stop_requested()

        def next_batch() -> list[int] | None:
            with lock:
                return next(batches, None)

        def load_some() -> None:
            try:
                while not stopped() and (batch := next_batch()) is not None:
                    self._psql(database, self._scripts(batch), "loading rows", stopped)
            except BaseException as error:  # noqa: BLE001 - raised again below, the first one
                failed.append(error)

        with ThreadPoolExecutor(self._settings.jobs, thread_name_prefix="load") as pool:
            for future in [pool.submit(load_some) for _ in range(self._settings.jobs)]:
                future.result()
        for error in sorted(failed, key=lambda each: isinstance(each, Interrupted)):
            raise error
        if self._stop_requested():
            raise Interrupted("stopped while loading rows", hint="What was loaded is dropped again.")
        self._rest(source_database, database)

    def _rest(self, source_database: str, database: str) -> None:
        large = self._places.get(names.database_path(source_database, names.LARGE_OBJECTS))
        if large is not None and self._selection is None:
            arguments = [self.programs.path("pg_restore"), "--no-password", "--exit-on-error"]
            arguments.append(f"--dbname={self.access.address(database)}")
            doing = f"loading large objects into {database}"
            run_child(arguments, self.access, doing, self._stop_requested, give=self._content.open(large))
        sequences = self._read(names.database_path(source_database, names.SEQUENCES))
        if self._selection is not None:
            sequences = self._sequences_there(database, sequences)
        self._psql(database, iter([sequences]), "setting sequences", self._stop_requested)

    def _sequences_there(self, database: str, script: bytes) -> bytes:
        """Keep those lines of a script of sequences whose sequence exists in a part."""
        with open_sql(self._settings, database) as session:
            rows = session.query(
                "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n "
                "ON n.oid = c.relnamespace WHERE c.relkind = 'S'"
            )
        there = {f"{quote_identifier(schema or '')}.{quote_identifier(name or '')}" for schema, name in rows}
        first, *lines = script.decode("utf-8", "surrogateescape").splitlines(keepends=True)
        kept = [line for line in lines if any(names.quote_literal(name) in line for name in there)]
        return "".join([first, *kept]).encode("utf-8", "surrogateescape")

    def _psql(self, database: str, pieces: Iterator[bytes], doing: str, stopped: Callable[[], bool]) -> None:
        arguments = [self.programs.path("psql"), "-XqAt", "--no-password", "-v", "ON_ERROR_STOP=1"]
        arguments += ["-d", self.access.address(database), "-o", os.devnull, "-f", "-"]
        given = itertools.chain([_PREAMBLE], pieces)
        run_child(arguments, self.access, f"{doing} into {database}", stopped, give=given)

    def _scripts(self, batch: Sequence[int]) -> Iterator[bytes]:
        for index in batch:
            yield from self._content.open(index)

    def _batches(self, source_database: str) -> Iterator[list[int]]:
        found: list[tuple[int, int]] = []
        for index, entry in enumerate(self._content.entries):
            place = parse_table_path(entry.entry.path)
            if place is None or place.database != source_database:
                continue
            chosen = self._selection
            if chosen and (chosen.schema != place.schema or chosen.table not in (None, place.table)):
                continue
            found.append((entry.size_bytes, index))
        batch: list[int] = []
        size = 0
        for bytes_of_table, index in sorted(found, reverse=True):
            if batch and size + bytes_of_table > BATCH_BYTES:
                yield batch
                batch, size = [], 0
            batch.append(index)
            size += bytes_of_table
        if batch:
            yield batch

    def analyze(self, database: str) -> None:
        """Refresh the planner's statistics."""
        with open_sql(self._settings, database) as session:
            session.stop_requested = self._stop_requested
            session.query("SET statement_timeout = 0")
            session.query("ANALYZE", seconds_max=ANALYZE_SECONDS_MAX)


def _mentions(sql: str, role: str) -> bool:
    quoted = re.escape(quote_identifier(role))
    plain = rf"|\b{re.escape(role)}\b" if re.fullmatch(r"[a-z_][a-z0-9_$]*", role) else ""
    return re.search(f"{quoted}{plain}", sql) is not None


def _count_ignored(message: str) -> str:
    match = re.search(r"errors ignored on restore: (\d+)", message)
    return f"{match[1]} statements" if match else "some statements"
