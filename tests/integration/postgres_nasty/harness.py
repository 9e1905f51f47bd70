"""Builds the nasty databases, tells what is in one without using any code of ours, and copies one as PostgreSQL does.

The SQL files in ``sql`` are applied in the order of their names. ``45_x.needs_18.sql`` is applied only where the traits
say 18; ``bytes`` holds the files of a second, small database whose text is not UTF-8.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from itertools import islice
from pathlib import Path

from tests.integration.postgres_nasty.queries import (
    DATABASE_QUERY,
    GLOBAL_QUERIES,
    LARGE_OBJECTS_QUERY,
    SEQUENCES_QUERY,
    TABLES_QUERY,
)
from tests.servers import MAJORS, installed

from holdfast.sandbox import PostgresPrograms, ThrowawayPostgres

HERE = Path(__file__).resolve().parent
DATABASE = 'nasty = ["x"]/y.z%\'\\ :é'
"""A name for the database that hits every quoting; no newline, which pg_dump itself refuses there."""

PROGRAM_SECONDS_MAX = 240
CHANGED_LINES_MAX = 200
CLIENT_PINS: Mapping[str, str] = {
    "search_path": "pg_catalog",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "timezone": "UTC",
    "lc_monetary": "C",
    "xmloption": "content",
    "standard_conforming_strings": "on",
    "default_transaction_isolation": "read\\ committed",
}
"""What a session of the harness has, whatever the database's own settings say."""

NOISE = re.compile(rb"^(\\(un)?restrict .*|-- (Dumped|Started|Completed) .*)\n", re.MULTILINE)
FIELD_END, ROW_END = "<\x1f>", "<\x1e>"
SERVER = "postgres-itself"
EMPTY_OPTIONS = re.compile(rb"^ALTER (?:(?!;\n).)*? SET \(pg_attver=\d+\);\n", re.MULTILINE | re.DOTALL)
OPTION_OF_15_20 = re.compile(rb"pg_attver=\d+, |, pg_attver=\d+(?=\);\n)")
"""15.20 keeps a number of its own among a column's options; its pg_dump leaves it out, older ones of others do not."""
NOT_NULL_NAME = re.compile(r' CONSTRAINT (?:"[^"]*"|\w+) NOT NULL(?= NO INHERIT|,|\n)')
ALL_BEFORE_17 = re.compile("SELECT,INSERT,REFERENCES,DELETE,TRIGGER,TRUNCATE,UPDATE ON")
DEFINITION = re.compile(
    r"^CREATE (?:(?:OR REPLACE|MATERIALIZED|RECURSIVE) )*(?:VIEW|RULE) .*?;\n\n", re.MULTILINE | re.DOTALL
)
QUALIFIER = re.compile(r'(?:"[^"]*"|\w+)\.(?=["\w])')
SHARE_OF_DEBIAN = Path("share/postgresql")


@dataclass(frozen=True, slots=True)
class Facts:
    """What one database holds, in lines that say what differs when they differ."""

    schema: str
    tables: Mapping[str, str]
    rest: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """From which version to which."""

    source: int
    target: int

    def __str__(self) -> str:
        return f"{self.source}-{self.target}"


PAIRS = (Pair(15, 15), Pair(15, 18), Pair(16, 18))


def facts_of(server: ThrowawayPostgres, database: str) -> Facts:
    """Tell everything about a database."""
    return Facts(schema_text(server, database), table_digests(server, database), database_facts(server, database))


# ---- building


def traits_of(server: ThrowawayPostgres) -> frozenset[str]:
    """Tell which of the files that need something this server can take."""
    found = {str(major) for major in MAJORS if server.programs.major >= major}
    if _rows(server, "postgres", "SELECT 1 FROM pg_catalog.pg_collation WHERE collname = 'de-x-icu'"):
        found.add("icu")
    if _rows(server, "postgres", "SELECT 1 FROM pg_catalog.pg_available_extensions WHERE name = 'holdfast_nasty'"):
        found.add("extension")
    return frozenset(found)


def sql_files(traits: frozenset[str], without: Sequence[str] = ()) -> list[Path]:
    """List the files to apply: all that need nothing the traits lack, but those whose name holds a word left out."""
    return [
        path
        for path in sorted((HERE / "sql").glob("*.sql"))
        if _needs(path) <= traits and not any(word in path.name for word in without)
    ]


def build(
    server: ThrowawayPostgres, database: str, traits: frozenset[str], without: Sequence[str] = ()
) -> ThrowawayPostgres:
    """Make the nasty database on a server; ``traits`` are those that every server it will meet has in common."""
    make_database(server, database, "UTF8", "C.UTF-8")
    for path in sql_files(traits, without):
        psql(server, database, "--quiet", "--output=/dev/null", "--file", str(path), pinned=False)
    return server


def build_bytes(server: ThrowawayPostgres, database: str, encoding: str) -> None:
    """Make the small database of an encoding that is not UTF-8: LATIN1 or SQL_ASCII."""
    make_database(server, database, encoding, "C")
    path = HERE / "bytes" / f"{encoding.lower()}.sql"
    psql(server, database, "--quiet", "--output=/dev/null", "--file", str(path), pinned=False, encoding=encoding)


def make_database(server: ThrowawayPostgres, database: str, encoding: str, ctype: str) -> None:
    """Create an empty database."""
    command = "CREATE DATABASE {} TEMPLATE template0 ENCODING '{}' LC_COLLATE 'C' LC_CTYPE '{}'"
    psql(server, "postgres", "--command", command.format(quoted(database), encoding, ctype))


def extended_programs(major: int, folder: Path) -> PostgresPrograms:
    """Make a second installation of a version in the folder: the same files, and the extension of these tests.

    A server looks for its extensions beside its own program, so that program is copied, and all else is linked. It is
    started by a script that also shows it its own libpq, which builds moved to another folder do not find (dblink).
    """
    original = installed(major)
    binaries, share, own_share = _places(original, folder)
    binaries.mkdir(parents=True)
    for path in original.folder.iterdir():
        if path.name == "postgres":
            shutil.copy2(path.resolve(), binaries / SERVER)
        else:
            (binaries / path.name).symlink_to(path.resolve())
    libraries = original.folder.parent / "lib"
    (binaries.parent / "lib").symlink_to(libraries)
    starter = f"#!/bin/sh\nLD_LIBRARY_PATH='{libraries}' exec '{binaries / SERVER}' \"$@\"\n"
    (binaries / "postgres").write_text(starter, encoding="utf-8")
    extensions = own_share / "extension"
    extensions.mkdir(parents=True)
    for path in share.iterdir():
        if path.name != "extension":
            (own_share / path.name).symlink_to(path)
    for path in (*(share / "extension").iterdir(), *(HERE / "extension").iterdir()):
        (extensions / path.name).write_bytes(path.read_bytes())
    _open_to_all(folder)
    return PostgresPrograms(original.major, original.version, binaries)


# ---- telling


def schema_text(server: ThrowawayPostgres, database: str) -> str:
    """Tell the schema as the newest pg_dump writes it, without what differs between two dumps of one database."""
    newest = installed(MAJORS[-1])
    arguments = ("--schema-only", "--encoding", _encoding(server, database), "--dbname")
    text = _run(server, newest, "pg_dump", *arguments, server.connection_string(database))
    for noise in (NOISE, EMPTY_OPTIONS, OPTION_OF_15_20):
        text = noise.sub(b"", text)
    return text.decode("utf-8", "surrogateescape")


def without_versions(schema: str) -> str:
    """Take out of a schema's text what PostgreSQL itself writes otherwise in another version; for two versions only.

    16 stopped qualifying columns of a single table in views, and since then a subscription says as whom it writes; 17
    added a privilege, so that ALL means more; 18 gives names to NOT NULL, and shows those that were cut off.
    """
    schema = schema.replace(", run_as_owner = true", "")
    schema = NOT_NULL_NAME.sub(" NOT NULL", ALL_BEFORE_17.sub("ALL ON", schema))
    return DEFINITION.sub(lambda found: QUALIFIER.sub("", found[0]), schema)


def table_digests(server: ThrowawayPostgres, database: str) -> dict[str, str]:
    """Tell the row count and the MD5 of the sorted COPY lines of every table and filled materialised view.

    Generated columns are in it. Where pg_dump itself loads by the root (hash partitions by an enum: the rows change
    partitions), the root stands for its leaves.
    """
    names = _rows(server, database, TABLES_QUERY)
    script = "".join(f"\\echo '\\\\! {number}'\n{query};\n" for number, (_, query) in enumerate(names))
    told = psql(server, database, "--quiet", stdin=script.encode("utf-8", "surrogateescape"))
    parts = re.split(rb"^\\! \d+\n", told, flags=re.MULTILINE)[1:]  # COPY never writes a line that begins so
    return {name: _digest(part) for (name, _), part in zip(names, parts, strict=True)}


def database_facts(server: ThrowawayPostgres, database: str) -> tuple[str, ...]:
    """Tell what a schema's dump does not say: the database's own properties, sequences' values, large objects."""
    queries = [query for (query,) in _rows(server, database, SEQUENCES_QUERY)]
    lines = [_joined(row) for query in (DATABASE_QUERY, LARGE_OBJECTS_QUERY) for row in _rows(server, database, query)]
    if queries:
        lines += [_joined(row) for row in _rows(server, database, " UNION ALL ".join(queries))]
    return tuple(sorted(lines))


def global_facts(server: ThrowawayPostgres) -> tuple[str, ...]:
    """Tell the roles of a cluster, their settings and memberships, passwords left out."""
    return tuple(_joined(row) for query in GLOBAL_QUERIES for row in _rows(server, "postgres", query))


def differences(expected: Facts, found: Facts) -> Iterator[str]:
    """Name what differs, few lines each."""
    for what, left, right in (
        ("schema", expected.schema.split("\n"), found.schema.split("\n")),
        ("rest", list(expected.rest), list(found.rest)),
    ):
        yield from (f"{what}: {line}" for line in _changed(left, right))
    for name in sorted({*expected.tables, *found.tables}):
        one, other = expected.tables.get(name), found.tables.get(name)
        if one != other:
            yield f"table {name}: expected {one}, found {other}"


def _changed(left: list[str], right: list[str]) -> list[str]:
    return list(islice(unified_diff(left, right, n=2, lineterm=""), CHANGED_LINES_MAX))


# ---- copying


def copy_by_reference(source: ThrowawayPostgres, database: str, target: ThrowawayPostgres) -> None:
    """Copy roles and a database to another server by pg_dumpall, pg_dump and pg_restore of each server's version."""
    copy_globals(source, target)
    archive = target.folder / "reference.dump"
    arguments = ("--format=custom", "--compress=0", "--encoding", _encoding(source, database), f"--file={archive}")
    try:
        dump = installed(source.programs.major)
        _run(source, dump, "pg_dump", *arguments, "--dbname", source.connection_string(database))
        restore(target, "postgres", archive, "--create")
    finally:
        archive.unlink(missing_ok=True)


def copy_globals(source: ThrowawayPostgres, target: ThrowawayPostgres) -> None:
    """Copy the roles."""
    programs = installed(target.programs.major)
    arguments = ("--globals-only", "--dbname", source.connection_string())
    load_globals(_run(source, programs, "pg_dumpall", *arguments), target)


def load_globals(text: bytes, target: ThrowawayPostgres) -> None:
    """Load what pg_dumpall wrote of roles; the superuser is there already."""
    kept = re.sub(rb"^CREATE ROLE postgres;\n", b"", text, flags=re.MULTILINE)
    psql(target, "postgres", "--quiet", "--output=/dev/null", stdin=kept)


def restore(target: ThrowawayPostgres, database: str, archive: Path, *options: str) -> None:
    """Run pg_restore of the target's version into a database, or with --create beside it."""
    programs = installed(target.programs.major)
    arguments = (*options, "--exit-on-error", "--dbname", target.connection_string(database), str(archive))
    _run(target, programs, "pg_restore", *arguments)


# ---- running


def psql(
    server: ThrowawayPostgres,
    database: str,
    *arguments: str,
    stdin: bytes = b"",
    pinned: bool = True,
    encoding: str = "",
) -> bytes:
    """Run psql of the server's version, stop at the first error, and return what it wrote."""
    usual = ("--no-psqlrc", "--set=ON_ERROR_STOP=1", "--tuples-only", "--no-align", "--dbname")
    pins = {"PGOPTIONS": " ".join(f"-c {name}={value}" for name, value in _pins(server).items())} if pinned else {}
    pins["PGCLIENTENCODING"] = encoding or _encoding(server, database)
    programs = installed(server.programs.major)
    return _run(
        server, programs, "psql", *usual, server.connection_string(database), *arguments, stdin=stdin, extra=pins
    )


def _run(
    server: ThrowawayPostgres,
    programs: PostgresPrograms,
    name: str,
    *arguments: str,
    stdin: bytes = b"",
    extra: Mapping[str, str] | None = None,
) -> bytes:
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    done = subprocess.run(
        [str(programs.path(name)), *arguments],
        input=stdin,
        capture_output=True,
        env={**surroundings, "LC_ALL": "C", **(extra or {})},
        timeout=PROGRAM_SECONDS_MAX,
        check=False,
    )
    said = done.stderr.decode("utf-8", "replace")
    assert done.returncode == 0, f"{name} {' '.join(arguments[-2:])} on {server.programs.version}:\n{said[-4000:]}"
    return done.stdout


def _rows(server: ThrowawayPostgres, database: str, query: str) -> list[list[str]]:
    """Run a query; fields must not hold the two separators, which no name in the suite does."""
    separators = (f"--field-separator={FIELD_END}", f"--record-separator={ROW_END}")
    told = psql(server, database, *separators, "--command", query).decode("utf-8", "surrogateescape")
    return [row.split(FIELD_END) for row in told.removesuffix("\n").split(ROW_END) if told.strip("\n")]


def _encoding(server: ThrowawayPostgres, database: str) -> str:
    """Every client speaks the database's own encoding, so that nothing is converted on the way."""
    if database == "postgres":
        return "UTF8"
    found = f"FROM pg_catalog.pg_database WHERE datname = {_literal(database)}"
    query = f"SELECT pg_catalog.pg_encoding_to_char(encoding) {found}"
    return psql(server, "postgres", "--command", query).decode().strip() or "UTF8"


def _pins(server: ThrowawayPostgres) -> dict[str, str]:
    newer = {"transaction_timeout": "0"} if server.programs.major >= 17 else {}
    return {**CLIENT_PINS, **newer}


def _needs(path: Path) -> set[str]:
    return set(re.findall(r"\.needs_([a-z0-9]+)", path.name))


def _places(original: PostgresPrograms, folder: Path) -> tuple[Path, Path, Path]:
    """Tell where an installation's copy has its programs, and where the shared files of both are."""
    prefix = original.folder.parent
    if (prefix / "share").is_dir():
        return folder / "bin", prefix / "share", folder / "share"
    name = str(original.major)  # Debian: /usr/lib/postgresql/15/bin and /usr/share/postgresql/15
    return (
        folder / "lib/postgresql" / name / "bin",
        Path("/usr") / SHARE_OF_DEBIAN / name,
        folder / SHARE_OF_DEBIAN / name,
    )


def _open_to_all(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.name in ("postgres", SERVER) else 0o644)


def _digest(lines: bytes) -> str:
    ordered = sorted(lines.split(b"\n")[:-1])
    digest = hashlib.md5(b"\n".join(ordered), usedforsecurity=False)
    return f"{len(ordered)} rows {digest.hexdigest()}"


def _joined(row: Sequence[str]) -> str:
    return " | ".join(row)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
