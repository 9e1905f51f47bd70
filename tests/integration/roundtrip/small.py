"""A small cluster at rest with one tablespace and one backup, for what a restore must refuse or mend."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from tests.integration.postgres_capture.servers import execute, value
from tests.integration.roundtrip.engine import Engine, backup_id, engine_of
from tests.servers import PostgresServers

from holdfast.sandbox import ThrowawayPostgres, server_account
from holdfast.sandbox.folders import make_private_folder
from holdfast.sources.postgres.refill_locations import beside

ROWS = 60_000
DIGEST = "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM kept t"


@dataclass(frozen=True, slots=True)
class Small:
    """The server runs on, as it was when the backup was taken; tests only read it. ``path`` is a table's file."""

    server: ThrowawayPostgres
    engine: Engine
    place: Path
    backup: str
    digest: str
    path: str

    @property
    def major(self) -> int:
        return self.server.programs.major


def make_small(servers: PostgresServers, major: int) -> Small:
    """Start a server, fill it, back it up."""
    server = servers.start_copy(major)
    place = servers.new_folder("tablespace") / "placed"
    make_private_folder(place, server_account())
    execute(
        server,
        f"CREATE TABLESPACE beside LOCATION '{place}'",
        f"CREATE TABLE kept AS SELECT n AS id, repeat(md5(n::text), 10) AS word FROM generate_series(1, {ROWS}) n",
        "ALTER TABLE kept ADD PRIMARY KEY (id)",
        "CREATE TABLE placed TABLESPACE beside AS SELECT * FROM kept WHERE id <= 5000",
        "CREATE UNLOGGED TABLE fleeting AS SELECT 1 AS id",
        "VACUUM",
    )
    engine = engine_of(server, servers.new_folder)
    taken = backup_id(engine.backup())
    return Small(
        server, engine, place, taken, value(server, DIGEST), value(server, "SELECT pg_relation_filepath('kept')")
    )


def start_copy_of(servers: PostgresServers, major: int, folder: Path) -> ThrowawayPostgres:
    """Start a restored folder whose tablespaces lie beside it."""
    open_to_server(folder)
    return servers.start(major, data_folder=folder)


def open_to_server(folder: Path) -> None:
    """Let the servers' account reach the tablespaces that root restored beside a folder."""
    if beside(folder).exists():
        beside(folder).chmod(0o711)


def facts_of_tree(*tops: Path) -> dict[str, tuple[str, int, str]]:
    """Return for everything below the folders its kind, its mode, and a digest of its content or the link's target."""
    found: dict[str, tuple[str, int, str]] = {}
    for top in tops:
        for parent, folders, files in os.walk(top):
            for name in (*folders, *files):
                path = Path(parent, name)
                status = path.lstat()
                if stat.S_ISLNK(status.st_mode):
                    fact = ("link", 0, str(path.readlink()))
                elif stat.S_ISDIR(status.st_mode):
                    fact = ("folder", stat.S_IMODE(status.st_mode), "")
                else:
                    fact = ("file", stat.S_IMODE(status.st_mode), hashlib.blake2b(path.read_bytes()).hexdigest())
                found[str(path)] = fact
    return found
