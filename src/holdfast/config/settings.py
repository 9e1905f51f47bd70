"""The configuration once it is checked: what commands ask it for, and the settings of every room, assembled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar
from zoneinfo import ZoneInfo

from holdfast.config.file_models import FileSection, LogicalSection, PostgresSection
from holdfast.config.problems import did_you_mean
from holdfast.config.secret_references import SecretReference, fetch_secret, secret_path
from holdfast.model.errors import ConfigInvalid
from holdfast.model.policy import Policy
from holdfast.model.secrets import Secret
from holdfast.sources.postgres.settings import Checkpoint, PostgresSettings
from holdfast.storage.settings import StoreSettings

_Known = TypeVar("_Known")


@dataclass(frozen=True, slots=True)
class RepositoryConfig:
    """One repository, but for how its store is reached. ``compression`` is a zstd level."""

    name: str
    url: str
    medium: str
    offsite: bool
    object_lock: timedelta | None
    compression: int


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One source, but for how it is reached. ``captures`` is empty for kinds that leave no choice."""

    name: str
    kind: str
    policy: Policy
    captures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KubernetesQuiesce:
    """Deployments that are stopped while a live system is replaced."""

    namespace: str
    deployments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Config:
    """One application. Secrets are fetched by the methods that return them, never before.

    The first repository is the one that is backed up to. ``zone`` is None where the file names none. Methods that
    take a name raise ``ConfigInvalid`` for one that is not in the file.
    """

    path: Path
    application: str
    zone: ZoneInfo | None
    policy: Policy
    repositories: tuple[RepositoryConfig, ...]
    sources: tuple[SourceConfig, ...]
    quiesce: KubernetesQuiesce | None
    sections: FileSection = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)

    def repository(self, name: str | None = None) -> RepositoryConfig:
        """Return the repository of that name, or the first one."""
        if name is None:
            return self.repositories[0]
        return _named("repository", name, {repository.name: repository for repository in self.repositories})

    def source(self, name: str) -> SourceConfig:
        """Return the source of that name."""
        return _named("source", name, {source.name: source for source in self.sources})

    def store_settings(self, name: str | None = None) -> StoreSettings:
        """Return how the store of a repository is reached; fetches its keys, if the file holds any."""
        repository = self.repository(name)
        section = self.sections.repositories[repository.name]
        of_whom = f"of repository {repository.name}"
        return StoreSettings(
            url=repository.url,
            endpoint=section.endpoint,
            region=section.region,
            profile=section.profile,
            path_style=section.path_style,
            access_key=self._rotating(section.access_key, f"the access key {of_whom}"),
            secret_key=self._rotating(section.secret_key, f"the secret key {of_whom}"),
        )

    def source_settings(self, name: str) -> PostgresSettings:
        """Return how a source is reached and captured; fetches its password, if the file names one.

        Raises ``ConfigInvalid`` for a kind that this release cannot capture yet.
        """
        source = self.source(name)
        section = self.sections.sources[name]
        if not isinstance(section, PostgresSection):
            raise ConfigInvalid(
                f"source {name} is of kind {source.kind}, which this release cannot back up yet",
                hint="Name the sources to work on, or wait for a release that knows this kind; the file is fine.",
            )
        tls, logical = section.tls, section.logical or LogicalSection()
        return PostgresSettings(
            dsn=section.dsn,
            password=self._secret(section.password, f"the password of source {name}"),
            checkpoint=Checkpoint(section.checkpoint),
            max_rate_kib=None if section.max_rate is None else section.max_rate // 1024,
            tls_root_certificate=self._path(tls.ca) if tls else None,
            tls_certificate=self._path(tls.cert) if tls else None,
            tls_key=self._path(tls.key) if tls else None,
            databases=tuple(logical.databases or ()),
            jobs=logical.jobs,
            programs=self._path(logical.programs),
            witness_bytes_max=logical.digest_max,
        )

    def passphrase(self) -> Secret | None:
        """Fetch the passphrase; None where the file names none."""
        return self._secret(self.sections.keys.passphrase, "the passphrase of the repositories")

    def key_file(self) -> Path | None:
        """Return the path of the key file; None where the file names none. It need not exist yet."""
        return self._path(self.sections.keys.file)

    def notice_urls(self) -> tuple[Secret, ...]:
        """Fetch the addresses that notices go to."""
        targets = enumerate(self.sections.notify)
        return tuple(self._fetch(target, f"address {number + 1} of notify") for number, target in targets)

    def _secret(self, reference: SecretReference | None, purpose: str) -> Secret | None:
        return None if reference is None else self._fetch(reference, purpose)

    def _rotating(self, reference: SecretReference | None, purpose: str) -> Secret | None:
        """Return a secret that is fetched again each time; once now, so that a missing one is told before the work."""
        if reference is None:
            return None
        self._fetch(reference, purpose)
        return Secret(lambda: self._fetch(reference, purpose).reveal())

    def _fetch(self, reference: SecretReference, purpose: str) -> Secret:
        return fetch_secret(reference, purpose, self.environment, self.path.parent)

    def _path(self, text: str | None) -> Path | None:
        return None if text is None else secret_path(text, self.environment, self.path.parent)


def _named(what: str, name: str, known: Mapping[str, _Known]) -> _Known:
    if name not in known:
        raise ConfigInvalid(
            f"there is no {what} {name} in the configuration",
            hint=did_you_mean(name, list(known)),
        )
    return known[name]
