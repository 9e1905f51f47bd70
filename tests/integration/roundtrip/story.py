"""One cluster's story, told once for each version: written to, backed up twice meanwhile, and both brought back."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

from tests.integration.postgres_capture.servers import execute
from tests.integration.roundtrip.cluster import Load, archiving_settings, digests, fill, transfers, verify_backup
from tests.integration.roundtrip.engine import Engine, backup_id, engine_of
from tests.servers import PostgresServers

from holdfast.application.results import BackupOutcome, RestoreOutcome
from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.port import Tier
from holdfast.sources.postgres.refill_locations import beside

MAX_RATE = "48MiB/s"
"""Slow enough that a capture takes some seconds, in which the load changes what is being read."""

SLOT = "follower"


@dataclass(frozen=True, slots=True)
class Story:
    """What was true before, and what was taken. The server runs on; nobody writes to it any more.

    ``counted`` tells for each tier how many transfers of pgbench were there before and after its backup, ``rounds``
    how often the load defined tables anew meanwhile.
    """

    server: ThrowawayPostgres
    engine: Engine
    quiet: dict[str, str]
    places: tuple[Path, Path]
    archive: Path
    full: BackupOutcome
    incremental: BackupOutcome
    counted: dict[str, tuple[int, int]]
    rounds: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Copy:
    """A restored folder as it was before its first start, and the server that runs on it since."""

    restored: RestoreOutcome
    verified: CompletedProcess[str]
    manifest: bytes
    stored_manifest: bytes
    odd_content: dict[bytes, bytes]
    slots: list[str]
    server: ThrowawayPostgres


def tell(servers: PostgresServers, major: int) -> Story:
    """Let the story happen; everything lies in folders of the servers."""
    archive = servers.new_folder("archive") / "wal"
    server = servers.start_copy(major, archiving_settings(archive))
    tablespaces = servers.new_folder("tablespaces")
    places = (tablespaces / "first =[1] #", tablespaces / "second")
    fill(server, *places)
    execute(server, f"SELECT pg_create_physical_replication_slot('{SLOT}', true)")
    quiet = digests(server)
    engine = engine_of(server, servers.new_folder)
    backups: list[BackupOutcome] = []
    counted: dict[str, tuple[int, int]] = {}
    rounds: list[int] = []
    for tier in (Tier.FULL, Tier.INCREMENTAL):
        before = transfers(server)
        with Load(server) as load:
            backups.append(engine.backup(tier, max_rate=MAX_RATE))
            rounds.append(load.rounds)
        counted[tier] = (before, transfers(server))
        backup_id(backups[-1])
    return Story(server, engine, quiet, places, archive, backups[0], backups[1], counted, (rounds[0], rounds[1]))


def bring_back(story: Story, servers: PostgresServers, backup: BackupOutcome) -> Copy:
    """Restore a backup beside, the second tablespace mapped; look at the folder, then start it."""
    folder = servers.new_folder("copy")
    target, mapped = folder / "data", folder / "mapped"
    restored = story.engine.restore(backup_id(backup), target, ((str(story.places[1]), mapped),))
    verified = verify_backup(story.server, target)
    manifest = (target / "backup_manifest").read_bytes()
    stored = b"".join(story.engine.application().cat(backup_id(backup), "backup_manifest"))
    odd = {os.fsencode(path.name): path.read_bytes() for path in target.iterdir() if path.name.startswith("odd ")}
    slots = [path.name for path in (target / "pg_replslot").iterdir()]
    beside(target).chmod(0o711)  # root restored it; the server has to reach its tablespace in it
    server = servers.start(story.server.programs.major, data_folder=target)
    return Copy(restored, verified, manifest, stored, odd, slots, server)
