"""The nasty suite holds what it promises, and PostgreSQL's own tools carry it from server to server unchanged."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from tests.integration.postgres_nasty import harness
from tests.integration.postgres_nasty.conftest import NastyServers
from tests.integration.postgres_nasty.harness import Facts, Pair

KINDS_MIN = 40
TABLES_MIN = 190
KIND = re.compile(r"^-- (?:Data for )?Name: .*; Type: ([A-Z ]+); Schema: ", re.MULTILINE)

IDENTIFIED_KINDS = """
SELECT DISTINCT i.type FROM (SELECT classid, objid, objsubid FROM pg_depend WHERE objid >= 16384
    UNION SELECT 'pg_class'::regclass, c.oid, 0 FROM pg_class c WHERE c.oid >= 16384
    UNION SELECT 'pg_publication'::regclass, oid, 0 FROM pg_publication
    UNION SELECT 'pg_subscription'::regclass, oid, 0 FROM pg_subscription
    UNION SELECT 'pg_event_trigger'::regclass, oid, 0 FROM pg_event_trigger
    UNION SELECT 'pg_largeobject'::regclass, oid, 0 FROM pg_largeobject_metadata) o,
    LATERAL pg_identify_object(o.classid, o.objid, o.objsubid) i WHERE i.type !~ 'toast'
"""


@pytest.mark.parametrize("major", [15, 16, 18])
def test_the_suite_builds_and_holds_many_kinds_of_object(nasty_servers: NastyServers, major: int) -> None:
    built = nasty_servers.built(Pair(major, major))
    kinds = harness.psql(built.server, built.database, "--command", IDENTIFIED_KINDS).decode().split("\n")[:-1]
    dumped = set(KIND.findall(built.facts.schema))
    assert len(kinds) >= KINDS_MIN, sorted(kinds)
    assert len(dumped) >= KINDS_MIN, sorted(dumped)
    assert len(built.facts.tables) >= TABLES_MIN


def test_the_reference_path_gives_an_equal_database(nasty_servers: NastyServers, pair: Pair) -> None:
    expected, found = nasty_servers.built(pair).facts, nasty_servers.reference(pair)
    if pair.source != pair.target:
        expected, found = _without_versions(expected), _without_versions(found)
    assert list(harness.differences(expected, found)) == []


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_the_reference_path_keeps_text_that_is_not_utf8(nasty_servers: NastyServers, encoding: str) -> None:
    source, target = nasty_servers.source(15), nasty_servers.start(18)
    harness.build_bytes(source, encoding, encoding)
    harness.copy_by_reference(source, encoding, target)
    expected, found = harness.facts_of(source, encoding), harness.facts_of(target, encoding)
    nasty_servers.drop(target)
    assert len(expected.tables) == 3
    assert list(harness.differences(expected, found)) == []


def test_the_reference_path_carries_roles_over(nasty_servers: NastyServers) -> None:
    built, target = nasty_servers.built(Pair(16, 18)), nasty_servers.start(18)
    harness.copy_globals(built.server, target)
    found = harness.global_facts(target)
    nasty_servers.drop(target)
    assert found == harness.global_facts(built.server)
    assert len(found) > 10


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("UPDATE tables.parent SET name = 'other' WHERE id = 4", "table tables.left_home"),
        ("ALTER TABLE tables.child DROP COLUMN own", "own text"),
        ("SELECT setval('tables.seq_set', -9, false)", "sequence tables.seq_set | -9"),
        ("DROP INDEX tables.indexed_brin", "indexed_brin"),
        ("TRUNCATE types.typed", "table types.typed: expected 1 rows"),
        ("ALTER TABLE secure.accounts NO FORCE ROW LEVEL SECURITY", "FORCE ROW LEVEL SECURITY"),
        ("SELECT lo_put(4000000001, 0, 'x')", "large object | 4000000001"),
        ("COMMENT ON TABLE tables.child IS 'another'", "another"),
    ],
)
def test_the_harness_sees_a_small_change(nasty_servers: NastyServers, change: str, word: str) -> None:
    built = nasty_servers.built(Pair(15, 15))
    copy = f"copy {abs(hash(change))}"
    template = built.database.replace('"', '""')
    harness.psql(built.server, "postgres", "--command", f'CREATE DATABASE "{copy}" TEMPLATE "{template}"')
    harness.psql(built.server, copy, "--command", change)
    told = list(harness.differences(built.facts, harness.facts_of(built.server, copy)))
    harness.psql(built.server, "postgres", "--command", f'DROP DATABASE "{copy}"')
    assert any(word in line for line in told), told


def _without_versions(facts: Facts) -> Facts:
    return replace(facts, schema=harness.without_versions(facts.schema))
