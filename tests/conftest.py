"""What every test may ask for: PostgreSQL servers, folders they can reach, and the promise that none stays behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.sandbox import PostgresSettings, ThrowawayPostgres
from tests.servers import MAJORS, PostgresServers, processes_below

StartPostgres = Callable[..., ThrowawayPostgres]


@pytest.fixture(scope="session")
def postgres_servers() -> Iterator[PostgresServers]:
    """All servers of this test process. At the end all are stopped; one that is still alive fails the run."""
    servers = PostgresServers()
    try:
        yield servers
    finally:
        servers.close()
        left = processes_below(servers.root)
        for pid, _ in left:
            os.kill(pid, signal.SIGKILL)
    assert not left, f"still running at the end of the tests, killed now: {left}"


@pytest.fixture(params=MAJORS, ids=lambda major: f"pg{major}")
def postgres_major(request: pytest.FixtureRequest) -> int:
    """Every supported version in turn; a test that needs some only parametrises this one, indirectly."""
    return int(request.param)


@pytest.fixture
def server_folder(postgres_servers: PostgresServers) -> Iterator[Path]:
    """A folder that the servers' account can enter (unlike tmp_path): for restored clusters and tablespaces."""
    folder = postgres_servers.new_folder()
    yield folder
    postgres_servers.drop_folder(folder)


@pytest.fixture
def postgres_server(postgres_servers: PostgresServers, postgres_major: int) -> Iterator[ThrowawayPostgres]:
    """A running server of the test's own. All of one version have one system identifier: for two, new_postgres."""
    server = postgres_servers.start_copy(postgres_major)
    yield server
    postgres_servers.drop(server)


@pytest.fixture
def shared_postgres(postgres_servers: PostgresServers, postgres_major: int) -> ThrowawayPostgres:
    """A running server that other tests use too: only read, or keep to a database of your own."""
    return postgres_servers.shared(postgres_major)


@pytest.fixture
def new_postgres(postgres_servers: PostgresServers) -> Iterator[StartPostgres]:
    """Starts servers with identities of their own, or data folders: new_postgres(18, settings, data_folder=...)."""
    started: list[ThrowawayPostgres] = []

    def start(
        major: int, settings: PostgresSettings | None = None, *, data_folder: Path | None = None
    ) -> ThrowawayPostgres:
        server = postgres_servers.start(major, settings, data_folder=data_folder)
        started.append(server)
        return server

    yield start
    for server in started:
        postgres_servers.drop(server)
