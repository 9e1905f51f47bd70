"""One application with its repository in a folder: the configuration as an operator writes it, and its verbs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from holdfast.application.application import Application, Watcher, open_application
from holdfast.application.results import BackupOutcome, RestoreOutcome
from holdfast.model.secrets import Secret
from holdfast.repository.keyring import Passphrase
from holdfast.repository.repository import create_repository
from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.port import Tier
from holdfast.storage.opening import open_store
from holdfast.storage.settings import StoreSettings
from holdfast.storage.settled import SettledStore

APPLICATION = "shop"
SOURCE = "orders"
PASSPHRASE = "correct horse battery staple"


@dataclass(slots=True)
class Engine:
    """``sources`` are addresses by name; ``folder`` holds the configuration, the repository, and what was seen."""

    folder: Path
    sources: dict[str, str] = field(default_factory=dict)

    @classmethod
    def create(cls, folder: Path, sources: Mapping[str, str]) -> Engine:
        """Make the repository."""
        engine = cls(folder, dict(sources))
        store = SettledStore(open_store(StoreSettings(url=engine.repository.as_uri())))
        create_repository(store, Passphrase(Secret(PASSPHRASE)), "first", datetime.now(UTC))
        store.close()
        return engine

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    @property
    def config(self) -> Path:
        return self.folder / "holdfast.yaml"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "HOLDFAST_PASSPHRASE": PASSPHRASE, "HOLDFAST_STATE_DIR": str(self.folder / "state")}

    def application(self, watcher: Watcher | None = None, max_rate: str | None = None) -> Application:
        """Write the configuration and open it."""
        source: dict[str, str] = {"kind": "postgres"} | ({"max_rate": max_rate} if max_rate else {})
        document = {
            "application": APPLICATION,
            "repositories": {"primary": {"url": self.repository.as_uri()}},
            "keys": {"passphrase": {"env": "HOLDFAST_PASSPHRASE"}},
            "sources": {name: {**source, "dsn": dsn} for name, dsn in self.sources.items()},
        }
        self.config.write_text(json.dumps(document), encoding="utf-8")  # what is JSON is YAML too
        return open_application(self.config, self.environment, watcher)

    def backup(
        self,
        tier: Tier = Tier.FULL,
        source: str = SOURCE,
        *,
        max_rate: str | None = None,
        watcher: Watcher | None = None,
    ) -> BackupOutcome:
        """Take one backup of one source; how it went is in the outcome."""
        [outcome] = self.application(watcher, max_rate).backup([source], tier)
        return outcome

    def restore(
        self,
        backup: str,
        into: Path,
        locations: tuple[tuple[str, Path], ...] = (),
        *,
        source: str = SOURCE,
        delta: bool = False,
        watcher: Watcher | None = None,
    ) -> RestoreOutcome:
        """Plan a restore and carry it out."""
        application = self.application(watcher)
        return application.restore(application.plan_restore(source, backup, into, locations, delta))


def backup_id(outcome: BackupOutcome) -> str:
    """Return the id of a backup that was taken; fails the test with the reason where there is none."""
    if outcome.error is not None:
        raise AssertionError(f"{outcome.error.message} ({outcome.error.hint})") from outcome.error
    assert outcome.summary is not None
    return outcome.summary.id


def engine_of(server: ThrowawayPostgres, new_folder: Callable[[str], Path]) -> Engine:
    """Make an application whose only source is one server."""
    return Engine.create(new_folder("engine"), {SOURCE: server.connection_string()})
