"""Loads the parts of a logical backup into a database that was made for it."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from holdfast.model.errors import HoldfastError, IntegrityBroken, Interrupted
from holdfast.sources.port import Content
from holdfast.sources.postgres.connection import Session, open_sql
from holdfast.sources.postgres.logical import names
from holdfast.sources.postgres.logical.archive import Archive
from holdfast.sources.postgres.logical.children import BLOCK_BYTES, ClientAccess, run_child
from holdfast.sources.postgres.logical.names import parse_table_path, quote_identifier, quote_literal
from holdfast.sources.postgres.logical.parts import Name, Part
from holdfast.sources.postgres.logical.snapshot import NO_CONVERSION, client_encoding
from holdfast.sources.postgres.logical.tools import ClientPrograms
from holdfast.sources.postgres.settings import PostgresSettings

SMALL_FILE_BYTES_MAX = 64 << 20
HEADER_BYTES_MAX = 1 << 20
"""What stands before a table's rows: a few settings, and the names of up to 1600 columns."""
LONG_SECONDS_MAX = 24 * 3600.0
"""How long one statement over a whole table may take: a view recomputed, statistics."""
NOT_KNOWN_BEFORE_17 = "SET transaction_timeout = 0;"
"""What pg_restore says since 17 and no older server understands."""

PREAMBLE = (
    b"SET statement_timeout = 0;\nSET lock_timeout = 0;\nSET idle_in_transaction_session_timeout = 0;\n"
    b"SET idle_session_timeout = 0;\nSET client_min_messages = warning;\nSET standard_conforming_strings = on;\n"
    b"SET default_transaction_read_only = off;\nSET synchronous_commit = off;\nSET search_path = '';\n"
)
_COPY = re.compile(rb'\nCOPY ("(?:[^"]|"")*"\."(?:[^"]|"")*") ')
_COPY = re.compile(rb'^COPY (?P<name>"(?:[^"]|"")*"\."(?:[^"]|"")*")[ (].*?FROM stdin', re.MULTILINE | re.DOTALL)
_UNFILLED = """
SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'm' AND NOT c.relispopulated ORDER BY 1, 2"""

# A partitioned table with a foreign partition would ask the foreign server, which may not be there.
_TO_ANALYZE = """
SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND (c.relkind = 'm' OR c.relkind = 'r' OR c.relkind = 'p')
  AND NOT EXISTS (WITH RECURSIVE below(oid) AS (
          SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid
          UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN below b ON i.inhparent = b.oid)
      SELECT 1 FROM below b JOIN pg_catalog.pg_class f ON f.oid = b.oid WHERE f.relkind = 'f')
ORDER BY 1, 2"""
_SEQUENCES_THERE = """
SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'S'"""


class Loader:
    """One database of a backup on its way into one server."""

    def __init__(
        self,
        content: Content,
        database: str,
        settings: PostgresSettings,
        programs: ClientPrograms,
        access: ClientAccess,
        stop_requested: Callable[[], bool],
    ) -> None:
        self._content = content
        self._database = database
        self._settings = settings
        self.programs = programs
        self.access = access
        self._stop_requested = stop_requested
        self._places = {entry.entry.path: index for index, entry in enumerate(content.entries)}

    def read(self, path: str) -> bytes:
        """Return a small file of the backup."""
        index = self._place(path)
        if self._content.entries[index].size_bytes > SMALL_FILE_BYTES_MAX:
            raise IntegrityBroken(f"{path} of the backup is impossibly large", hint="Run `holdfast check`.")
        return b"".join(self._content.open(index))

    def _place(self, path: str) -> int:
        index = self._places.get(path)
        if index is None:
            raise IntegrityBroken(f"the backup holds no {path}", hint="Run `holdfast check`.")
        return index

    def schema(self) -> Archive:
        """Return the schema's archive, in a private file that ends with the access."""
        path = self.access.folder / names.SCHEMA
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            for piece in self._content.open(self._place(names.database_path(self._database, names.SCHEMA))):
                file.write(piece)
        return Archive(path, self.programs, self.access, self._stop_requested)

    def sections(self, archive: Archive, target: str, section: str, options: Sequence[str], server_major: int) -> None:
        """Load one section of the schema; ``post-data`` by several connections. Stops at the first error."""
        doing = f"loading the schema ({section}) into {target}"
        arguments = [f"--section={section}", *options]
        if self.programs.major >= 17 > server_major:
            script = archive.sql(*arguments).replace(f"{NOT_KNOWN_BEFORE_17}\n", "")
            self.psql(target, iter([script.encode("utf-8", "surrogateescape")]), doing)
            return
        arguments += ["--exit-on-error", "--no-password", f"--dbname={self.access.address(target)}"]
        if section == "post-data":
            arguments.append(f"--jobs={self._settings.jobs}")
        program = self.programs.path("pg_restore")
        run_child([program, *arguments, str(archive.path)], self.access, doing, self._stop_requested)

    def tables(self, part: Part | None) -> list[int]:
        """Return where the rows of the part's tables lie, the largest first."""
        wanted = None if part is None else set(part.tables)
        found: list[tuple[int, int]] = []
        for index, stored in enumerate(self._content.entries):
            place = parse_table_path(stored.entry.path)
            if place is None or place.database != self._database:
                continue
            if wanted is None or (place.schema, place.table) in wanted:
                found.append((stored.size_bytes, index))
        return [index for _, index in sorted(found, reverse=True)]

    def script(self, index: int) -> Iterator[bytes]:
        """Yield the script that loads one table's rows."""
        return self._content.open(index)

    def rows(self, target: str, part: Part | None) -> None:
        """Load every table of the part, several at a time and the largest first; each in a transaction of its own."""
        found = self.tables(part)
        left = iter(found)
        failed = threading.Event()
        lock = threading.Lock()

        def stopped() -> bool:
            return failed.is_set() or self._stop_requested()

        def scripts() -> Iterator[bytes]:
            while not stopped():
                with lock:
                    index = next(left, None)
                if index is None:
                    return
                yield b"BEGIN;\n"
                yield from self.script(index)
                yield b"COMMIT;\n"

        def load_some() -> None:
            try:
                self.psql(target, scripts(), f"loading rows into {target}", stopped)
            except BaseException:
                failed.set()
                raise

        with ThreadPoolExecutor(self._settings.jobs, thread_name_prefix="load") as pool:
            futures = [pool.submit(load_some) for _ in range(min(self._settings.jobs, max(1, len(found))))]
        errors = [error for error in (future.exception() for future in futures) if error is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, Interrupted)):
            raise error
        if self._stop_requested():
            raise Interrupted("stopped while loading rows")

    def large_objects(self, target: str, server_major: int) -> None:
        """Load the large objects with their owners and privileges, if there are any."""
        index = self._places.get(names.database_path(self._database, names.LARGE_OBJECTS))
        if index is None:
            return
        doing = f"loading large objects into {target}"
        program, pieces = self.programs.path("pg_restore"), self._content.open(index)
        if self.programs.major >= 17 > server_major:
            script = self.access.folder / "large_objects.sql"
            arguments = [program, "--format=custom", f"--file={script}"]
            run_child(arguments, self.access, doing, self._stop_requested, give=pieces)
            self.psql(target, _lines_known(script), doing)
            return
        arguments = [program, "--format=custom", "--exit-on-error", "--no-password"]
        arguments.append(f"--dbname={self.access.address(target)}")
        run_child(arguments, self.access, doing, self._stop_requested, give=pieces)

    def sequences(self, target: str, part: Part | None) -> None:
        """Set every sequence to where it stood; of a part those that it made."""
        script = self.read(names.database_path(self._database, names.SEQUENCES))
        if part is not None:
            script = self._sequences_there(target, script)
        self.psql(target, iter([script]), f"setting sequences in {target}")

    def _sequences_there(self, target: str, script: bytes) -> bytes:
        with open_sql(self._settings, target) as session:
            rows = session.query(_SEQUENCES_THERE)
        there = {
            quote_literal(f"{quote_identifier(schema or '')}.{quote_identifier(name or '')}").strip()
            for schema, name in rows
        }
        first, *lines = script.decode("utf-8", "surrogateescape").split(";\n")
        kept = [line for line in lines if any(f"setval({name}, " in line.replace("( E", "(E") for name in there)]
        return "".join(f"{line};\n" for line in [first, *kept]).encode("utf-8", "surrogateescape")

    def psql(self, target: str, pieces: Iterator[bytes], doing: str, stopped: Callable[[], bool] | None = None) -> None:
        """Run a script in a database; the first error ends it."""

        def given() -> Iterator[bytes]:
            yield PREAMBLE
            yield from pieces

        arguments = [self.programs.path("psql"), "-XqAt", "--no-password", "-v", "ON_ERROR_STOP=1"]
        arguments += ["-d", self.access.address(target), "-o", os.devnull, "-f", "-"]
        run_child(arguments, self.access, doing, stopped or self._stop_requested, give=given())

    def refresh_views(self, target: str, left_empty: set[Name]) -> None:
        """Recompute every materialised view but those that were never filled, each after what it reads."""
        with self._long_session(target) as session:
            session.query("SET search_path = ''")
            left = [
                (schema or "", name or "")
                for schema, name in session.query(_UNFILLED)
                if (schema or "", name or "") not in left_empty
            ]
            while left:
                left = self._refresh_some(session, left)

    @staticmethod
    def _refresh_some(session: Session, views: list[Name]) -> list[Name]:
        """Refresh what can be; returns what has to wait for others, always fewer than there were."""
        waiting: list[Name] = []
        problem: HoldfastError | None = None
        for schema, name in views:
            try:
                statement = f"REFRESH MATERIALIZED VIEW {quote_identifier(schema)}.{quote_identifier(name)}"
                session.query(statement, seconds_max=LONG_SECONDS_MAX)
            except HoldfastError as error:
                if "(55000)" not in error.message:  # It reads one that is not filled yet.
                    raise
                problem = error
                waiting.append((schema, name))
        if problem is not None and len(waiting) == len(views):
            raise problem
        return waiting

    def analyze(self, target: str, stopped: Callable[[], bool]) -> None:
        """Refresh the planner's statistics."""
        with self._long_session(target) as session:
            session.stop_requested = stopped
            for schema, table in session.query(_TO_ANALYZE):
                name = f"{quote_identifier(schema or '')}.{quote_identifier(table or '')}"
                session.query(f"ANALYZE {name}", seconds_max=LONG_SECONDS_MAX)

    def _long_session(self, target: str) -> Session:
        session = open_sql(self._settings, target)
        session.stop_requested = self._stop_requested
        session.query("SET statement_timeout = 0; SET lock_timeout = 0; SET client_min_messages = error")
        encoding = session.show("server_encoding") or NO_CONVERSION
        session.query(f"SET client_encoding = {quote_literal(client_encoding(encoding))}")
        return session


def redirected(pieces: Iterator[bytes], into: Name) -> Iterator[bytes]:
    """Yield a table's script with the rows going into another table of the same columns."""
    head = b""
    for piece in pieces:
        head += piece
        match = _COPY.search(head)
        if match is not None:
            written = f"{quote_identifier(into[0])}.{quote_identifier(into[1])}".encode("utf-8", "surrogateescape")
            yield head[: match.start("name")] + written + head[match.end("name") :]
            yield from pieces
            return
        if len(head) > HEADER_BYTES_MAX:
            break
    raise IntegrityBroken("the rows of a table do not begin as they should", hint="Run `holdfast check`.")


def _lines_known(script: os.PathLike[str]) -> Iterator[bytes]:
    """Yield a script without the one setting that an older server does not know; it stands in the first lines."""
    with open(script, "rb") as file:  # noqa: PTH123 - a path of our own folder
        head = file.read(BLOCK_BYTES)
        yield head.replace(f"{NOT_KNOWN_BEFORE_17}\n".encode(), b"")
        while block := file.read(BLOCK_BYTES):
            yield block
