"""The servers of the nasty suite: one source for each version, and as many new targets as tests want."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.integration.postgres_nasty import harness
from tests.integration.postgres_nasty.harness import Facts, Pair
from tests.servers import PostgresServers, quick_settings

from holdfast.sandbox import PostgresPrograms, ThrowawayPostgres


@dataclass(frozen=True, slots=True)
class Built:
    """A nasty database on its source, and what is in it."""

    server: ThrowawayPostgres
    database: str
    facts: Facts


class NastyServers:
    """Starts servers that know the suite's own extension, builds each database once, stops all."""

    def __init__(self, servers: PostgresServers) -> None:
        self._servers = servers
        self._programs: dict[int, PostgresPrograms] = {}
        self._sources: dict[int, ThrowawayPostgres] = {}
        self._started: list[ThrowawayPostgres] = []
        self._built: dict[str, Built] = {}
        self._references: dict[str, Facts] = {}

    def start(self, major: int) -> ThrowawayPostgres:
        """Start a new and empty server."""
        if major not in self._programs:
            folder = self._servers.new_folder(f"programs-{major}")
            self._programs[major] = harness.extended_programs(major, folder)
        server = ThrowawayPostgres(self._programs[major], self._servers.new_folder(f"nasty-{major}"), quick_settings())
        self._started.append(server)
        server.start()
        return server

    def source(self, major: int) -> ThrowawayPostgres:
        """Offer the version's source; tests change nothing in it but databases of their own."""
        if major not in self._sources:
            self._sources[major] = self.start(major)
        return self._sources[major]

    def built(self, pair: Pair) -> Built:
        """Build the database that can go from one version to the other."""
        if str(pair) not in self._built:
            server = self.source(pair.source)
            traits = harness.traits_of(server) & harness.traits_of(self.source(pair.target))
            database = f"{harness.DATABASE} {pair}"
            harness.build(server, database, traits)
            self._built[str(pair)] = Built(server, database, harness.facts_of(server, database))
        return self._built[str(pair)]

    def reference(self, pair: Pair) -> Facts:
        """Tell what PostgreSQL's own tools make of the pair's database on a server of the target's version."""
        if str(pair) not in self._references:
            built, target = self.built(pair), self.start(pair.target)
            harness.copy_by_reference(built.server, built.database, target)
            self._references[str(pair)] = harness.facts_of(target, built.database)
            self.drop(target)
        return self._references[str(pair)]

    def drop(self, server: ThrowawayPostgres) -> None:
        """Stop one server."""
        server.close()
        self._started.remove(server)

    def close(self) -> None:
        """Stop every server; their folders go with those of the other tests."""
        for server in list(self._started):
            self.drop(server)


@pytest.fixture(scope="module")
def nasty_servers(postgres_servers: PostgresServers) -> Iterator[NastyServers]:
    servers = NastyServers(postgres_servers)
    yield servers
    servers.close()


@pytest.fixture(params=harness.PAIRS, ids=str)
def pair(request: pytest.FixtureRequest) -> Pair:
    """Each way from one version to another in turn."""
    assert isinstance(request.param, Pair)
    return request.param
