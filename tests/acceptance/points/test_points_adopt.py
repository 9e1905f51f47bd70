"""A source whose server becomes another one: refused until it is adopted, and both are restorable then."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.acceptance.cli.cli_program import Program
from tests.integration.postgres_capture.servers import execute, value
from tests.servers import PostgresServers, quick_settings

MAJOR = 17


@pytest.fixture
def program(postgres_servers: PostgresServers) -> Iterator[Program]:
    folder = postgres_servers.new_folder("adopt")
    yield Program(folder)
    postgres_servers.drop_folder(folder)


def test_w3_another_server_is_refused_until_it_is_adopted(program: Program, postgres_servers: PostgresServers) -> None:
    old = postgres_servers.start(MAJOR)
    execute(old, "CREATE TABLE ledger AS SELECT 1 AS id")
    program.init(source=f"orders=postgresql://postgres@127.0.0.1:{old.port}/postgres")
    first = program.done("backup", "--json").events[-1]["id"]
    new = postgres_servers.start(MAJOR)
    execute(new, "CREATE TABLE ledger AS SELECT 2 AS id")
    config = program.folder / "holdfast.yaml"
    config.write_text(config.read_text().replace(str(old.port), str(new.port)))
    postgres_servers.drop(old)

    refused = program.run("backup", "--json")
    assert refused.code == 1
    assert "adopt orders" in refused.err
    asked = program.run("adopt", "orders", "--json")
    assert asked.code == 2
    assert program.run("backup").code == 1
    adopted = program.done("adopt", "orders", "--yes", "--json").events[-1]
    assert adopted["adopted"] is True
    assert adopted["before"]["system_identifier"] != adopted["identity"]["system_identifier"]
    assert program.done("adopt", "orders", "--yes", "--json").events[-1]["adopted"] is False
    second = program.done("backup", "--json").events[-1]["id"]
    assert program.done("check", "--json").events[-1]["sound"] is True

    for backup, expected in ((first, 1), (second, 2)):
        folder = program.folder / f"restored-{expected}"
        program.done("restore", "--backup", backup, "--into", folder)
        server = postgres_servers.start(MAJOR, quick_settings(), data_folder=folder)
        assert value(server, "SELECT id FROM ledger") == expected
        postgres_servers.drop(server)
    rows = program.done("windows", "orders", "--json").document
    assert len(rows[0]["windows"]) == 2
    assert [gap["reason"] for gap in rows[0]["gaps"]]
    postgres_servers.drop(new)
