"""What the tests of killed and stopped commands share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.acceptance.crash.holdfast_site import Site, fill
from tests.servers import PostgresServers

from holdfast.sandbox import ThrowawayPostgres

SCALE = 2


@pytest.fixture(scope="module")
def filled_server(postgres_servers: PostgresServers) -> Iterator[ThrowawayPostgres]:
    """A server with pgbench's tables."""
    server = postgres_servers.start_copy(18)
    fill(server, SCALE)
    yield server
    postgres_servers.drop(server)


@pytest.fixture
def site(filled_server: ThrowawayPostgres, server_folder: Path) -> Site:
    """The server, and a repository with nothing in it yet."""
    filled_server.start()
    site = Site(server_folder, filled_server)
    site.run("init")
    return site
