"""What the tests of killed and stopped commands share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.acceptance.crash.holdfast_site import Site, fill
from tests.servers import PostgresServers

SCALE = 2


@pytest.fixture
def site(postgres_servers: PostgresServers, server_folder: Path) -> Iterator[Site]:
    """A server with pgbench's tables, and a repository with nothing in it yet."""
    server = postgres_servers.start_copy(18)
    fill(server, SCALE)
    site = Site(server_folder, server)
    site.run("init")
    yield site
    postgres_servers.drop(server)
