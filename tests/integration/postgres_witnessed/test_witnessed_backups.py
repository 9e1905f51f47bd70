"""The witness of a physical backup equals what a restore to its position shows, under load and at rest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.integration.postgres_capture.servers import execute, settings_of
from tests.integration.postgres_logical.busy_database import SCENE, change, load, transfer
from tests.integration.postgres_points.scene import WATCHED, Kept, MemorySink, Scene
from tests.servers import PostgresServers, installed, quick_settings

from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.port import CaptureRequest, Tier
from holdfast.sources.postgres.capture import PostgresSource
from holdfast.sources.postgres.connection import open_sql
from holdfast.sources.postgres.details import BackupDetails, parse_lsn
from holdfast.sources.postgres.locate import Ask, Base, Point
from holdfast.sources.postgres.logical.children import ClientAccess
from holdfast.sources.postgres.logical.inspect import Inspection, inspect_database
from holdfast.sources.postgres.logical.names import WITNESS
from holdfast.sources.postgres.logical.tools import clients_for
from holdfast.sources.postgres.logical.witness import How, compare, from_document
from holdfast.sources.postgres.witnessed.taking import without_objects


@pytest.fixture(params=[15, 18], ids=lambda major: f"pg{major}")
def scene(request: pytest.FixtureRequest, postgres_servers: PostgresServers) -> Iterator[Scene]:
    server = postgres_servers.start(request.param, quick_settings(WATCHED))
    yield Scene(postgres_servers, server)
    postgres_servers.drop(server)


def take(scene: Scene, **changes: Any) -> dict[str, Any]:
    """Take a backup with time enough for its witness, and return that."""
    sink = MemorySink()
    settings = settings_of(scene.server, **{"witness_share": 20.0, **changes})
    captured = PostgresSource("shop", settings).capture(CaptureRequest(Tier.FULL), sink)
    details = BackupDetails.from_document(captured.details)
    base = Base(
        f"{next(scene.numbers):032x}",
        details.system_identifier,
        details.stop_timeline,
        parse_lsn(details.start_lsn),
        parse_lsn(details.stop_lsn),
        captured.ended_at,
    )
    scene.bases.append(base)
    scene.kept[base.id] = Kept(sink, captured.details)
    place = next(number for number, entry in enumerate(sink.entries) if entry.path == WITNESS)
    witness: dict[str, Any] = json.loads(bytes(sink.contents[place]))
    return witness


def require_equal(scene: Scene, server: ThrowawayPostgres, document: dict[str, Any]) -> int:
    """Compare what a restored server holds; return how many tables that were."""
    settings = settings_of(server)
    programs = clients_for(server.programs.major, named=installed(server.programs.major).folder)
    compared = 0
    for witness in from_document(document).databases:
        if not witness.tables:
            continue
        with open_sql(settings) as session, ClientAccess(session) as access:
            found = inspect_database(Inspection(settings, programs, access), witness.name, witness)
        assert compare(witness, without_objects(witness, found)) == ()
        compared += sum(table.how is How.COMPARED for table in witness.tables)
    return compared


def test_a_restore_to_the_position_of_the_witness_equals_it_under_load(scene: Scene) -> None:
    execute(scene.server, "CREATE DATABASE busy", "CREATE DATABASE other")
    execute(scene.server, *SCENE, database="busy")
    execute(scene.server, "CREATE TABLE quiet AS SELECT n FROM generate_series(1, 500) n", database="other")
    with load(scene.server, "busy", transfer, transfer, change) as done:
        taken = [take(scene) for _ in range(3)]
        assert done[0] > 0
    scene.log.look(scene.server)
    assert all(document["position"] is not None for document in taken)
    for document in taken:
        lsn = parse_lsn(document["position"])
        target = scene.locate(Point(Ask.LSN, lsn=lsn))
        server = scene.start(target)
        try:
            assert require_equal(scene, server, document) >= 4
        finally:
            scene.servers.drop_folder(server.data_folder.parent)


def test_a_backup_of_an_idle_server_restored_alone_equals_its_witness(scene: Scene) -> None:
    execute(scene.server, "CREATE TABLE quiet AS SELECT n FROM generate_series(1, 5000) n")
    execute(
        scene.server, "CREATE UNLOGGED TABLE passing AS SELECT 1 AS a", "CREATE DATABASE closed ALLOW_CONNECTIONS false"
    )
    document = take(scene)
    assert document["commits_since_end"] == 0
    [quiet] = [table for each in document["databases"] for table in each["tables"] if table["name"] == "quiet"]
    assert (quiet["how"], quiet["rows"]) == ("compared", 5000)
    [passing] = [table for each in document["databases"] for table in each["tables"] if table["name"] == "passing"]
    assert "empty after a restore" in passing["reason"]
    names = {each["name"]: each["size_bytes"] for each in document["cluster"]["databases"]}
    assert names.keys() == {"postgres", "template0", "template1", "closed"}
    assert names["postgres"] > names["template1"] > 1_000_000
    assert document["cluster"]["files"] > 500


def test_time_spent_is_bounded_and_what_was_not_compared_says_why(scene: Scene) -> None:
    execute(scene.server, "CREATE TABLE large AS SELECT n, repeat('x', 200) AS x FROM generate_series(1, 200000) n")
    execute(scene.server, "CREATE TABLE small AS SELECT 1 AS a")
    document = take(scene, witness_share=0.0)
    tables = [table for each in document["databases"] for table in each["tables"]]
    assert {table["reason"] for table in tables} == {"no time left in the budget of the witness"}
    assert {table["how"] for table in tables} == {"not_compared"}


def test_a_role_that_only_replicates_gets_the_exact_facts(scene: Scene) -> None:
    execute(scene.server, "CREATE ROLE copier LOGIN REPLICATION", "CREATE TABLE hidden (a int)")
    document = take(scene, dsn=f"{scene.server.connection_string()} user=copier")
    assert document["position"] is None
    assert "pg_read_all_data" in document["reason"]
    assert document["cluster"]["size_bytes"] > 10_000_000
    assert {each["name"] for each in document["databases"]} == {"postgres", "template0", "template1"}


def test_a_table_truncated_behind_the_snapshot_is_not_told_as_empty(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holdfast.sources.postgres.witnessed import taking

    execute(scene.server, "CREATE TABLE filled AS SELECT n FROM generate_series(1, 500) n")
    sized = taking._sized

    def late(reader: Any) -> Any:
        found = sized(reader)
        reader.query("ROLLBACK TO SAVEPOINT sizes")
        execute(scene.server, "TRUNCATE filled")
        return found

    monkeypatch.setattr(taking, "_sized", late)
    document = take(scene)
    [filled] = [table for each in document["databases"] for table in each["tables"] if table["name"] == "filled"]
    assert filled["how"] == "not_compared"
    assert "truncated" in filled["reason"]
