"""The servers of the tests of restores into a live server, and backups of the shop they share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.integration.postgres_capture.servers import execute, value
from tests.integration.postgres_live import shop
from tests.integration.postgres_live.kept_folder import FolderContent, keep
from tests.servers import PostgresServers, quick_settings

from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.postgres.logical.names import Selection, quote_identifier
from holdfast.sources.postgres.logical.refill import LiveReport, PostgresServerRefill, ServerTarget

MAJOR = 15
PARAMETERS = {"max_prepared_transactions": "5", "wal_level": "logical"}


@dataclass(frozen=True, slots=True)
class Live:
    """A server with the shop in it, and a backup of that."""

    server: ThrowawayPostgres
    folder: Path

    @property
    def content(self) -> FolderContent:
        return FolderContent(self.folder)

    def target(
        self, database: str | None = None, *, in_place: bool = False, only: str = "shop", role: str = "postgres"
    ) -> ServerTarget:
        return ServerTarget(shop.settings_of(self.server, role), database, Selection.parse(only), in_place=in_place)

    def restore(self, target: ServerTarget, refill: PostgresServerRefill | None = None) -> LiveReport:
        chosen, content = refill or PostgresServerRefill(), self.content
        return chosen.run(content, target, chosen.plan(content, target))

    def tidy(self) -> None:
        """Drop everything but the shop; nobody restores any more."""
        for name in shop.databases(self.server) - {"shop"}:
            execute(self.server, f"DROP DATABASE {quote_identifier(name)} WITH (FORCE)")

    def value(self, query: str, database: str = "shop") -> object:
        return value(self.server, query, database)


@pytest.fixture(scope="module")
def shop_server(postgres_servers: PostgresServers) -> Iterator[Live]:
    """A server of the module's own."""
    server = postgres_servers.start(MAJOR, quick_settings(PARAMETERS))
    shop.build(server)
    folder = postgres_servers.new_folder("backup")
    yield Live(server, keep(shop.settings_of(server), folder / "kept"))
    postgres_servers.drop(server)


@pytest.fixture
def live(shop_server: Live) -> Iterator[Live]:
    """The shop as it was; what a test leaves beside it is dropped."""
    yield shop_server
    shop_server.tidy()
