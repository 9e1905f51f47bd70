"""What a logical capture of the nasty suite stores is loaded by psql and pg_restore alone, and then is equal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.integration.postgres_nasty import harness
from tests.integration.postgres_nasty.conftest import Built, NastyServers
from tests.integration.postgres_nasty.harness import Facts, Pair
from tests.integration.postgres_nasty.kept import KeptSink, paths_that_do_not_fit
from tests.servers import installed

from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.port import Captured, CaptureRequest, Tier
from holdfast.sources.postgres.logical.capture import LogicalSource
from holdfast.sources.postgres.logical.names import Selection, database_path
from holdfast.sources.postgres.settings import PostgresSettings, settings_from_dsn


@dataclass(frozen=True, slots=True)
class Taken:
    """A capture of one database."""

    captured: Captured
    sink: KeptSink


def settings_of(server: ThrowawayPostgres) -> PostgresSettings:
    """How a server is reached, and by the client programs of its own version."""
    return replace(settings_from_dsn(server.connection_string()), programs=installed(server.programs.major).folder)


def take(built: Built, folder: Path) -> Taken:
    sink = KeptSink(folder)
    source = LogicalSource("nasty", settings_of(built.server), Selection(built.database))
    try:
        captured = source.capture(CaptureRequest(Tier.FULL), sink)
    finally:
        sink.abandon()
    return Taken(captured, sink)


def test_every_path_of_a_capture_fits_into_a_folder(nasty_servers: NastyServers, tmp_path: Path) -> None:
    taken = take(nasty_servers.built(Pair(18, 18)), tmp_path / "kept")
    assert paths_that_do_not_fit(taken.sink) == []
    assert len(taken.sink.kept) > 190


def test_what_is_stored_loads_by_postgresqls_own_programs(
    nasty_servers: NastyServers, pair: Pair, tmp_path: Path
) -> None:
    built, expected = nasty_servers.built(pair), nasty_servers.reference(pair)
    taken = take(built, tmp_path / "kept")
    target = nasty_servers.start(pair.target)
    load_by_hand(taken.sink, built.database, target)
    found = harness.facts_of(target, built.database)
    nasty_servers.drop(target)
    assert list(harness.differences(expected, found)) == []


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_text_that_is_not_utf8_is_stored_so_that_it_loads(
    nasty_servers: NastyServers, encoding: str, tmp_path: Path
) -> None:
    source, target = nasty_servers.source(15), nasty_servers.start(18)
    database = f"{encoding} stored"
    harness.build_bytes(source, database, encoding)
    expected = harness.facts_of(source, database)
    taken = take(Built(source, database, expected), tmp_path / "kept")
    load_by_hand(taken.sink, database, target)
    found = harness.facts_of(target, database)
    nasty_servers.drop(target)
    assert list(harness.differences(without_versions(expected), without_versions(found))) == []


def load_by_hand(sink: KeptSink, database: str, target: ThrowawayPostgres) -> None:
    """Load it as somebody without holdfast would: tables between the two halves of the schema, views last."""
    roles = sink.file("globals.sql")
    assert roles
    harness.load_globals(roles.read_bytes(), target)
    schema = sink.file(database_path(database, "schema.dump"))
    assert schema
    harness.restore(target, "postgres", schema, "--create", "--section=pre-data")
    for stored, path in sink.kept:
        if stored.entry.path.startswith(database_path(database, "tables/")):
            harness.psql(target, database, "--quiet", "--file", str(path), pinned=False, encoding="UTF8")
    sequences = sink.file(database_path(database, "sequences.sql"))
    assert sequences
    harness.psql(target, database, "--quiet", "--file", str(sequences), pinned=False)
    large_objects = sink.file(database_path(database, "large_objects.dump"))
    if large_objects:
        harness.restore(target, database, large_objects)
    harness.restore(target, database, schema, "--section=post-data")
    views = sink.file(database_path(database, "views.sql"))
    if views:
        harness.psql(target, database, "--quiet", "--file", str(views), pinned=False)


def without_versions(facts: Facts) -> Facts:
    return replace(facts, schema=harness.without_versions(facts.schema))
