"""The story of each version, told once in a test process; and its two copies."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.integration.roundtrip.small import Small, make_small
from tests.integration.roundtrip.story import Copy, Story, bring_back, tell
from tests.servers import MAJORS, PostgresServers


@pytest.fixture(scope="session", params=MAJORS, ids=lambda major: f"pg{major}")
def story(request: pytest.FixtureRequest, postgres_servers: PostgresServers) -> Iterator[Story]:
    """A cluster that was backed up twice while it was written to. Tests only read the server and its repository."""
    told = tell(postgres_servers, int(request.param))
    yield told
    postgres_servers.drop(told.server)


@pytest.fixture(scope="session", params=["first", "later"])
def copy(request: pytest.FixtureRequest, story: Story, postgres_servers: PostgresServers) -> Iterator[Copy]:
    """Each of the two backups, restored and started when both had been taken."""
    backup = story.full if request.param == "first" else story.incremental
    brought = bring_back(story, postgres_servers, backup)
    yield brought
    postgres_servers.drop(brought.server)


@pytest.fixture(scope="session", params=MAJORS, ids=lambda major: f"pg{major}")
def small(request: pytest.FixtureRequest, postgres_servers: PostgresServers) -> Iterator[Small]:
    """A small cluster with one backup. Some versions only: parametrise this one, indirectly."""
    made = make_small(postgres_servers, int(request.param))
    yield made
    postgres_servers.drop(made.server)
