"""Real PostgreSQL servers for tests: versions 15 to 18, each test's own, all stopped at the end."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from holdfast.model.errors import NotFound
from holdfast.sandbox import (
    PostgresPrograms,
    PostgresSettings,
    ThrowawayPostgres,
    postgres_programs,
    server_account,
)
from holdfast.sandbox.folders import make_sandbox_folder
from holdfast.sandbox.programs import MAJORS
from holdfast.sandbox.settings import PARAMETERS_NONE

__all__ = ["MAJORS", "PostgresServers", "installed", "processes_below", "quick_settings"]

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "postgres"
QUICK_PARAMETERS: Mapping[str, str] = {"fsync": "off", "shared_buffers": "32MB", "max_wal_senders": "10"}
"""Nothing here has to survive the machine; a server's own crash is survived without fsync."""


@cache
def installed(major: int) -> PostgresPrograms:
    """Find the programs of one version; a test that needs them fails, and is never skipped, without them."""
    try:
        return postgres_programs(major, [(CACHE / str(found) / "bin").resolve() for found in MAJORS])
    except NotFound:
        pytest.fail(f"PostgreSQL {major} is not on this machine: run `make servers`", pytrace=False)


def quick_settings(parameters: Mapping[str, str] = PARAMETERS_NONE) -> PostgresSettings:
    """Compose settings of a small server that does not wait for disks, with further parameters on top."""
    return PostgresSettings(parameters={**QUICK_PARAMETERS, **parameters})


class PostgresServers:
    """Makes servers and folders below one root, and stops and removes them all.

    A server of ``start`` has an identity of its own (initdb). One of ``start_copy`` starts sooner: it is a copy of a
    template, made once for each version, so that all copies have one system identifier; never let two meet.
    """

    def __init__(self) -> None:
        self.root = make_sandbox_folder(server_account(), "holdfast-tests-")
        self._numbers = itertools.count(1)
        self._started: list[ThrowawayPostgres] = []
        self._templates: dict[int, Path] = {}
        self._shared: dict[int, ThrowawayPostgres] = {}

    def new_folder(self, name: str = "folder") -> Path:
        """Make a folder that the servers' account can enter; all are removed at the end of the session."""
        folder = self.root / f"{next(self._numbers):04d}-{name}"
        folder.mkdir()
        folder.chmod(0o711)
        return folder

    def start(
        self, major: int, settings: PostgresSettings | None = None, *, data_folder: Path | None = None
    ) -> ThrowawayPostgres:
        """Start a new server, or the given data folder (a restored cluster)."""
        return self._start(major, self.new_folder(f"postgres-{major}"), settings, data_folder)

    def start_copy(self, major: int, settings: PostgresSettings | None = None) -> ThrowawayPostgres:
        """Start a copy of the version's template."""
        folder = self.new_folder(f"postgres-{major}")
        shutil.copytree(self._template(major), folder / "data", symlinks=True)
        return self._start(major, folder, settings, None)

    def shared(self, major: int) -> ThrowawayPostgres:
        """Offer one running server for tests that only read, or that keep to a database of their own."""
        server = self._shared.get(major)
        if server is None:
            server = self._shared[major] = self.start(major)
        return server

    def drop(self, server: ThrowawayPostgres) -> None:
        """Stop one server and remove its folder. May be repeated."""
        server.close()
        shutil.rmtree(server.folder, ignore_errors=True)
        if server in self._started:
            self._started.remove(server)

    def drop_folder(self, folder: Path) -> None:
        """Stop every server that uses something below the folder, then remove it."""
        for server in list(self._started):
            if folder in (*server.folder.parents, *server.data_folder.parents):
                self.drop(server)
        shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Stop everything and remove the root. The first failure is raised when all was tried."""
        failures: list[Exception] = []
        for server in self._started:
            try:
                server.close()
            except Exception as error:  # noqa: BLE001 the other servers have to be stopped all the same
                failures.append(error)
        shutil.rmtree(self.root, ignore_errors=True)
        if failures:
            raise ExceptionGroup("servers that could not be stopped", failures)

    def _start(
        self, major: int, folder: Path, settings: PostgresSettings | None, data_folder: Path | None
    ) -> ThrowawayPostgres:
        chosen = settings or quick_settings()
        server = ThrowawayPostgres(installed(major), folder, chosen, data_folder=data_folder)
        self._started.append(server)
        server.start()
        return server

    def _template(self, major: int) -> Path:
        if major not in self._templates:
            folder = self.new_folder(f"template-{major}")
            settings = replace(quick_settings(), listen=False)
            with ThrowawayPostgres(installed(major), folder, settings) as server:
                self._templates[major] = server.data_folder
        return self._templates[major]


def processes_below(root: Path) -> list[tuple[int, str]]:
    """List the living processes whose command line names something below the folder: (process id, command line)."""
    return [
        (pid, command) for pid, command in _commands() if str(root) in command and "holdfast-lifeline" not in command
    ]


def _commands() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:  # ended meanwhile
            continue
        yield int(entry.parent.name), b" ".join(words).decode("utf-8", "replace").strip()
