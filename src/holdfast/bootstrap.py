"""The only place where concrete things are chosen and joined: stores, keys, areas, sources."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.config.places import state_path
from holdfast.config.settings import Config
from holdfast.model.documents import JsonObject
from holdfast.model.errors import ConfigInvalid
from holdfast.model.secrets import Secret
from holdfast.repository.area import Area
from holdfast.repository.keyring import KeyFile, Passphrase, Unlock
from holdfast.repository.remembered import Remembered
from holdfast.repository.repository import Repository, open_repository
from holdfast.sources.kinds import CAPTURED_KINDS, LOGICAL, PHYSICAL
from holdfast.sources.port import FolderRefill, FolderTarget, Source
from holdfast.storage.opening import open_store
from holdfast.storage.settled import Retry, RetryPolicy, SettledStore, ignore_retry

if TYPE_CHECKING:
    from holdfast.sources.postgres.capture import PostgresSource
    from holdfast.sources.postgres.extensions import ExtensionsUsed
    from holdfast.sources.postgres.locate import Target
    from holdfast.sources.postgres.logical.refill import PostgresServerRefill, ServerTarget

THREADS_MAX = 8
KEY_FILE_BYTES_MAX = 4096
OnRetry = Callable[[Retry], None]


def state_folder(environment: Mapping[str, str]) -> Path:
    """Return where this host keeps what it has seen: HOLDFAST_STATE_DIR, systemd's, the user's, in that order."""
    return Path(state_path(environment))


def store_of(
    config: Config, name: str | None, on_retry: OnRetry = ignore_retry, policy: RetryPolicy | None = None
) -> SettledStore:
    """Return the store of a repository of the configuration; the caller closes it."""
    return SettledStore(open_store(config.store_settings(name), config.environment), policy, on_retry)


def unlocks_of(config: Config) -> list[Unlock]:
    """Return every secret that the configuration names to open key slots with."""
    unlocks: list[Unlock] = []
    passphrase = config.passphrase()
    if passphrase is not None:
        unlocks.append(Passphrase(passphrase))
    path = config.key_file()
    if path is not None:
        unlocks.append(KeyFile(read_key_file(path)))
    return unlocks


def read_key_file(path: Path) -> Secret:
    """Read a key file; raises ``ConfigInvalid``."""
    try:
        with path.open("rb") as file:
            return Secret(file.read(KEY_FILE_BYTES_MAX).decode("ascii", "replace"))
    except OSError as error:
        raise ConfigInvalid(
            f"the key file {path} cannot be read: {error.strerror}",
            hint="Check keys.file in the configuration, and that this user may read the file.",
        ) from error


@contextmanager
def opened_repository(
    config: Config, name: str | None, on_retry: OnRetry = ignore_retry, policy: RetryPolicy | None = None
) -> Iterator[Repository]:
    """Open a repository of the configuration and close its store afterwards."""
    store = store_of(config, name, on_retry, policy)
    try:
        yield open_repository(store, unlocks_of(config))
    finally:
        store.close()


def area_of(config: Config, repository: Repository, source: str) -> Area:
    """Return where the backups of a source lie."""
    config.source(source)
    keys = repository.keys.area_of(config.application, source)
    return Area(repository.store, repository.store_id, keys, config.application, source)


def source_of(config: Config, name: str, form: str = PHYSICAL.form) -> Source:
    """Return a source ready to be probed or captured in a form; raises ``ConfigInvalid`` for a kind of later."""
    settings = config.source_settings(name)
    if form == LOGICAL.form:
        from holdfast.sources.postgres.logical.capture import LogicalSource

        return LogicalSource(name, settings)
    from holdfast.sources.postgres.capture import PostgresSource

    return PostgresSource(name, settings)


def followed_source(config: Config, name: str) -> PostgresSource:
    """Return a source whose log can be followed; raises ``ConfigInvalid`` for a kind that has none."""
    from holdfast.sources.postgres.capture import PostgresSource

    return PostgresSource(name, config.source_settings(name))


def refill_of(kind: str, target: Target | None = None) -> FolderRefill:
    """Return how backups of a kind become a folder, brought further to a target of the log where there is one."""
    if kind not in CAPTURED_KINDS:
        raise ConfigInvalid(
            f"this release cannot restore backups of kind {kind}", hint="Use the holdfast release that made the backup."
        )
    from holdfast.sources.postgres.refill import PostgresFolderRefill

    return PostgresFolderRefill(target)


def server_refill(stop_requested: Callable[[], bool], on_step: Callable[[str], None]) -> PostgresServerRefill:
    """Return what loads logical backups into running servers."""
    from holdfast.sources.postgres.logical.refill import PostgresServerRefill

    return PostgresServerRefill(stop_requested=stop_requested, at_step=on_step)


def extensions_of(config: Config, source: str) -> ExtensionsUsed:
    """Return which extensions the databases of a PostgreSQL source use. Raises as connecting does."""
    from holdfast.sources.postgres.extensions import read_extensions

    return read_extensions(config.source_settings(source))


def server_target(config: Config, source: str, into: str | None, selection: str | None) -> tuple[ServerTarget, str]:
    """Return where a restore into a server goes, and its address without secrets.

    ``into`` None is the source's own server. An address of it takes what it leaves open (password, TLS) from the
    source's settings. Raises ``ConfigInvalid``.
    """
    from holdfast.sources.postgres.logical.names import Selection
    from holdfast.sources.postgres.logical.refill import ServerTarget
    from holdfast.sources.postgres.settings import elsewhere, for_maintenance, parse_dsn

    settings = config.source_settings(source)
    database = parse_dsn(settings.dsn).get("dbname") if into is None and selection is None else None
    if into is not None:
        settings, database = elsewhere(settings, into)
    chosen = Selection.parse(selection) if selection is not None else None
    settings = for_maintenance(settings, database or (chosen.database if chosen is not None else None))
    params = parse_dsn(settings.dsn)
    address = f"{params.get('host', 'localhost')}:{params.get('port', '5432')}"
    return ServerTarget(settings, database, chosen), address


def places_of(kind: str, target: FolderTarget, details: JsonObject) -> tuple[tuple[str, Path], ...]:
    """Return what of a backup goes outside the target's folder: from where it was to where it will be.

    Raises ``ConfigInvalid`` for a mapping that the backup does not allow.
    """
    if kind not in CAPTURED_KINDS:
        return ()
    from holdfast.sources.postgres.details import BackupDetails
    from holdfast.sources.postgres.refill_locations import place_tablespaces

    placed = place_tablespaces(target, BackupDetails.from_document(details).tablespaces)
    return tuple((space.old, space.new) for space in placed)


@dataclass(frozen=True, slots=True)
class Tools:
    """What is made once for a command: threads and memory of what was seen."""

    executor: ThreadPoolExecutor
    remembered: Remembered


@contextmanager
def tools(environment: Mapping[str, str], on_notice: Callable[[str], None]) -> Iterator[Tools]:
    """Make the threads of a command; they end with it. ``on_notice`` is told what goes wrong beside the work."""
    threads = min(THREADS_MAX, max(2, os.cpu_count() or 2) + 2)
    with ThreadPoolExecutor(threads, thread_name_prefix="holdfast") as executor:
        yield Tools(executor, Remembered(state_folder(environment), on_notice))
