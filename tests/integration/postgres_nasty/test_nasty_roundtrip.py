"""The nasty suite, captured and loaded into another server, is equal to what pg_dump and pg_restore make of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.postgres_nasty import harness
from tests.integration.postgres_nasty.conftest import Built, NastyServers
from tests.integration.postgres_nasty.harness import Pair
from tests.integration.postgres_nasty.kept import KeptContent
from tests.integration.postgres_nasty.test_nasty_files import settings_of, take, without_versions

from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.postgres.logical.refill import LiveReport, PostgresServerRefill, ServerTarget


def load(content: KeptContent, target: ThrowawayPostgres, database: str | None) -> LiveReport:
    where = ServerTarget(settings_of(target), database)
    refill = PostgresServerRefill()
    return refill.run(content, where, refill.plan(content, where))


def test_a_restore_equals_that_of_postgresqls_own_tools(
    nasty_servers: NastyServers, pair: Pair, tmp_path: Path
) -> None:
    built, expected = nasty_servers.built(pair), nasty_servers.reference(pair)
    content = KeptContent(take(built, tmp_path / "kept").sink)
    target = nasty_servers.start(pair.target)
    report = load(content, target, built.database)
    found = harness.facts_of(target, built.database)
    nasty_servers.drop(target)
    assert list(harness.differences(expected, found)) == []
    assert report.differences == ()
    assert report.tables_compared >= 190


@pytest.mark.parametrize("major", [16, 18])
def test_a_restore_without_a_name_lies_beside_and_is_equal(
    nasty_servers: NastyServers, major: int, tmp_path: Path
) -> None:
    built = nasty_servers.built(Pair(major, major))
    content = KeptContent(take(built, tmp_path / "kept").sink)
    report = load(content, built.server, None)
    assert report.database != built.database
    found = harness.facts_of(built.server, report.database)
    assert list(harness.differences(built.facts, found)) == []
    assert report.differences == ()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_text_that_is_not_utf8_comes_back(nasty_servers: NastyServers, encoding: str, tmp_path: Path) -> None:
    source, target = nasty_servers.source(15), nasty_servers.start(18)
    database = f"{encoding} restored"
    harness.build_bytes(source, database, encoding)
    expected = harness.facts_of(source, database)
    content = KeptContent(take(Built(source, database, expected), tmp_path / "kept").sink)
    report = load(content, target, database)
    found = harness.facts_of(target, database)
    nasty_servers.drop(target)
    assert list(harness.differences(without_versions(expected), without_versions(found))) == []
    assert report.differences == ()
