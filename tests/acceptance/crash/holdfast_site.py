"""One application protected by real ``holdfast`` processes: a server under load, a repository, a configuration."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from holdfast.sandbox import ThrowawayPostgres

PROGRAM = [sys.executable, "-c", "from holdfast.interfaces.cli.main import run; run()"]
PASSPHRASE = "correct horse battery staple"
COMMAND_SECONDS_MAX = 60.0
"""The bound within which every command of these tests ends, whatever happened before it."""
SLOTS_SECONDS_MAX = 15.0


@dataclass
class Site:
    """Runs commands against one configuration."""

    folder: Path
    server: ThrowawayPostgres
    repository: Path = field(init=False)

    def __post_init__(self) -> None:
        self.repository = self.folder / "repository"
        self.configure()

    @property
    def config(self) -> Path:
        return self.folder / "holdfast.yaml"

    def configure(self, *, max_rate: str | None = None, port: int | None = None, more: str = "") -> None:
        """Write the configuration; ``port`` leads to the server another way."""
        rate = f", max_rate: {max_rate}" if max_rate else ""
        dsn = f"host=127.0.0.1 port={port or self.server.port} user=postgres dbname=postgres"
        self.config.write_text(
            "application: shop\n"
            f'repositories:\n  primary: {{url: "file://{self.repository}"}}\n'
            "keys: {passphrase: {env: HOLDFAST_PASSPHRASE}}\n"
            f'sources:\n  orders: {{kind: postgres, dsn: "{dsn}"{rate}}}\n{more}'
        )

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        source = Path(__file__).resolve().parents[3] / "src"
        return {
            **kept,
            "HOME": str(self.folder),
            "PYTHONPATH": str(source),
            "HOLDFAST_PASSPHRASE": PASSPHRASE,
            "HOLDFAST_STATE_DIR": str(self.folder / "state"),
            "HOLDFAST_CONFIG": str(self.config),
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin a command and leave it running; the caller ends it."""
        return subprocess.Popen(
            [*PROGRAM, *arguments],
            env=self.environment,
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: str, expect: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, which has to come in time and with the exit code expected."""
        done = subprocess.run(
            [*PROGRAM, *arguments],
            env={**self.environment, **environment},
            cwd=self.folder,
            text=True,
            capture_output=True,
            timeout=COMMAND_SECONDS_MAX,
            check=False,
        )
        assert done.returncode == expect, f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)

    def backups(self) -> list[str]:
        """Return the ids of all backups listed, oldest first."""
        return [backup["id"] for backup in self.json("backups")]

    def checked(self, *, expect: int = 0) -> dict[str, Any]:
        """Check every byte, and return the report."""
        lines = self.run("check", "--read-data", "--json", expect=expect).stdout.splitlines()
        report: dict[str, Any] = next(line for line in map(json.loads, lines) if line.get("event") == "check")
        return report

    def require_no_slots(self) -> None:
        """Require that the server is left with no slot and no WAL sender of ours."""
        until = time.monotonic() + SLOTS_SECONDS_MAX
        query = b"SELECT (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_stat_replication)"
        with psycopg.connect(self.server.connection_string(), autocommit=True) as connection:
            while connection.execute(query).fetchone() != (0,):
                assert time.monotonic() < until, "a slot or a WAL sender is left on the server"
                time.sleep(0.05)


def error_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the last error that a command told with --json."""
    errors = [json.loads(line) for line in done.stderr.splitlines() if line.startswith('{"error"')]
    found: dict[str, Any] = errors[-1]["error"]
    return found


def read_until(process: subprocess.Popen[str], done_bytes: int) -> None:
    """Read a command's JSON Lines until it told that so many bytes are done."""
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line).get("done_bytes", 0) >= done_bytes:
            return
    stderr = process.stderr.read() if process.stderr else ""
    raise AssertionError(f"the command ended with {process.wait()} before {done_bytes} bytes were done:\n{stderr}")


def finish(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait for the end of a command, within the bound, and return what it told."""
    try:
        stdout, stderr = process.communicate(timeout=COMMAND_SECONDS_MAX)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def fill(server: ThrowawayPostgres, scale: int) -> None:
    """Make pgbench's tables; some 16 MB for each step of the scale."""
    pgbench = str(server.programs.path("pgbench"))
    command = [pgbench, "-i", "-q", "-s", str(scale), "-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres"]
    subprocess.run([*command, "postgres"], check=True, capture_output=True, timeout=COMMAND_SECONDS_MAX)


@contextlib.contextmanager
def load(server: ThrowawayPostgres) -> Iterator[None]:
    """Let pgbench write, gently, for as long as the context lasts."""
    pgbench = str(server.programs.path("pgbench"))
    command = [pgbench, "-n", "-c", "2", "-T", "3600", "-R", "60", "-h", "127.0.0.1", "-p", str(server.port)]
    process = subprocess.Popen(
        [*command, "-U", "postgres", "postgres"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=COMMAND_SECONDS_MAX)
