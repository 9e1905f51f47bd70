"""The demo's repository: made, configured as an operator would, copied, and removed where it lies elsewhere."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from holdfast import bootstrap
from holdfast.application.application import Application, Watcher
from holdfast.config.loading import load_config
from holdfast.config.secret_references import SecretReference
from holdfast.config.template import Answers, RepositoryAnswer, SourceAnswer, render_config
from holdfast.demo.database import DATABASE, ROLE
from holdfast.demo.order import DemoOrder
from holdfast.model.secrets import Secret
from holdfast.repository.keyring import Passphrase
from holdfast.repository.repository import create_repository
from holdfast.sandbox import ThrowawayPostgres
from holdfast.sandbox.ports import LOCAL_ADDRESS
from holdfast.storage.folder import FolderStore
from holdfast.storage.port import VOLATILE_PREFIX
from holdfast.storage.settled import SettledStore

APPLICATION = "demo"
SOURCE = "shop"
CONFIG_NAME = "holdfast.yaml"
REPOSITORY_NAME = "repository"
PASSPHRASE_NAME = "passphrase"  # noqa: S105 the file's name
PASSWORD_NAME = "password"  # noqa: S105 the file's name


@dataclass(frozen=True, slots=True)
class Vault:
    """A repository with the configuration that opens it."""

    folder: Path
    config_path: Path
    repository: RepositoryAnswer
    passphrase: Secret
    environment: Mapping[str, str] = field(repr=False)
    watcher: Watcher = field(repr=False)

    @property
    def is_remote(self) -> bool:
        """Whether it lies outside the demo's folder."""
        return not self.repository.url.startswith("file:")

    def application(self) -> Application:
        """Return the verbs on it."""
        state = {"HOLDFAST_STATE_DIR": str(self.folder / "state")}
        return Application(load_config(self.config_path, {**self.environment, **state}), self.watcher)

    def open_store(self) -> SettledStore:
        """Return its store; the caller closes it."""
        return bootstrap.store_of(self.application().config, None, self.watcher.on_retry)


def make_vault(order: DemoOrder, folder: Path, server: ThrowawayPostgres, password: str, watcher: Watcher) -> Vault:
    """Write secrets and configuration into the folder and create the repository, encrypted by a new passphrase."""
    passphrase = secrets.token_urlsafe(24)
    _write_private(folder / PASSPHRASE_NAME, passphrase)
    _write_private(folder / PASSWORD_NAME, password)
    repository = _repository(order, folder)
    vault = Vault(folder, folder / CONFIG_NAME, repository, Secret(passphrase), order.environment, watcher)
    _write_config(vault, server)
    store = vault.open_store()
    try:
        create_repository(store, Passphrase(vault.passphrase), "demo", datetime.now(UTC))
    finally:
        store.close()
    return vault


def copy_vault(vault: Vault, server: ThrowawayPostgres, folder: Path) -> Vault:
    """Copy the repository, object by object, into a folder repository of its own; what can be remade stays behind."""
    folder.mkdir(mode=0o700)
    for name in (PASSPHRASE_NAME, PASSWORD_NAME):
        _write_private(folder / name, (vault.folder / name).read_text().strip())
    here = RepositoryAnswer("primary", (folder / REPOSITORY_NAME).as_uri())
    copy = replace(vault, folder=folder, config_path=folder / CONFIG_NAME, repository=here)
    _write_config(copy, server)
    origin = vault.open_store()
    target = FolderStore(folder / REPOSITORY_NAME)
    try:
        for info in origin.list(""):
            if not info.name.startswith(VOLATILE_PREFIX):
                target.create(info.name, origin.get(info.name))
    finally:
        target.close()
        origin.close()
    return copy


def remove_remote(vault: Vault) -> None:
    """Delete every object below the address that was made for this demo alone; a folder goes with the demo's own."""
    if not vault.is_remote:
        return
    store = vault.open_store()
    try:
        for info in list(store.list("")):
            store.delete(info.name)
    finally:
        store.close()


def _repository(order: DemoOrder, folder: Path) -> RepositoryAnswer:
    """Below an address that was given a new name is made up: what lies there already is never touched."""
    if order.repository is None:
        return RepositoryAnswer("primary", (folder / REPOSITORY_NAME).as_uri())
    url = f"{order.repository.url.rstrip('/')}/holdfast-demo-{secrets.token_hex(6)}"
    return replace(order.repository, name="primary", url=url)


def _write_config(vault: Vault, server: ThrowawayPostgres) -> None:
    address = f"host={LOCAL_ADDRESS} port={server.port} user={ROLE} dbname={DATABASE} sslmode=disable"
    source = SourceAnswer(SOURCE, "postgres", address, SecretReference(file=PASSWORD_NAME))
    answers = Answers(APPLICATION, (vault.repository,), (source,), SecretReference(file=PASSPHRASE_NAME))
    vault.config_path.write_text(render_config(answers), encoding="utf-8")


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text + "\n", encoding="utf-8")
