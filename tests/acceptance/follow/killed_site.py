"""A followed server and a store that fails, both in reach of kill -9, and what must hold whatever was killed."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.acceptance.cli.cli_program import Program
from tests.acceptance.follow.ledger_writers import LedgerWriters, rows_of
from tests.faults.storage.scripted_http import FORWARD, Action, Reply, Script, failing_at_random
from tests.servers import PostgresServers

from holdfast import bootstrap
from holdfast.config.loading import load_config
from holdfast.model.logs import Stretch
from holdfast.repository.log.reading import StoredLog
from holdfast.sandbox import ThrowawayPostgres

MAJOR = 18
SOURCE = "orders"
WAIT_SECONDS_MAX = 120.0
STOP_SECONDS_MAX = 30.0
RESTORE_SECONDS_MAX = 600.0
POLL_SECONDS = 0.05
SERVICE_SECONDS = 0.5
"""How long a service manager waits before it starts again what ended by itself."""
SLOW_DOWN = Reply(503, b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>busy</Message></Error>')
READ_THREADS = 4
SEGMENT_BYTES = 16 << 20


class Weather:
    """A share of all requests to the store fails; now and then, for a while, each one is answered with 503."""

    def __init__(self, upstream: str, share: float, seed: int) -> None:
        self.failed = 0
        self._away_until = 0.0
        self._lock = threading.Lock()
        self._at_random = failing_at_random(upstream, share, seed).decide
        self.script = Script(self._decide, upstream)

    def send_away(self, seconds: float) -> None:
        self._away_until = time.monotonic() + seconds

    def wait_until_back(self) -> None:
        time.sleep(max(0.0, self._away_until - time.monotonic()))

    def _decide(self, method: str, path: str) -> Action:
        action = SLOW_DOWN if time.monotonic() < self._away_until else self._at_random(method, path)
        with self._lock:
            self.failed += action != FORWARD
        return action


class Service:
    """``holdfast follow`` as a service manager runs it: one that ends by itself is started again."""

    def __init__(self, program: Program) -> None:
        self.ends: list[tuple[int, str]] = []
        self._program = program
        self._output = program.folder / "follow.out"
        self._errors = program.folder / "follow.err"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._output.open("ab") as out, self._errors.open("wb") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "holdfast", "follow", "--wait", "--json"],
                cwd=self._program.folder,
                env=self._program.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def stop(self) -> int:
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(STOP_SECONDS_MAX)

    def tend(self) -> None:
        """Start it again where it ended by itself, and keep what it said."""
        if self._process is None or self._process.poll() is None:
            return
        self.ends.append((self._process.returncode, self.said()))
        time.sleep(SERVICE_SECONDS)
        self.start()

    def said(self) -> str:
        return self._errors.read_text()


@dataclass
class KilledSite:
    """The server, the follower and the writers, and what was found so far."""

    program: Program
    server: ThrowawayPostgres
    servers: PostgresServers
    weather: Weather
    writers: LedgerWriters
    service: Service
    compared: int = 0
    restores: list[tuple[int, int]] = field(default_factory=list)

    def until(self, fact: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while not fact():
            assert time.monotonic() < deadline, f"not in time: {what}; the follower said: {self.service.said()}"
            self.service.tend()
            time.sleep(POLL_SECONDS)

    def until_commits(self, more: int = 1) -> None:
        """Wait until further commits were acknowledged: follower, server and store are at work."""
        wanted = len(self.writers.acknowledged) + more
        self.until(lambda: len(self.writers.acknowledged) >= wanted, "commits are acknowledged")

    def kill(self, victims: str, chance: random.Random) -> None:
        """Kill who is named and start them again, in any order, with any time between."""
        steps = [self.server.kill] if victims != "follower" else []
        steps += [self.service.kill] if victims != "server" else []
        again = [self.server.start] if victims != "follower" else []
        again += [self.service.start] if victims != "server" else []
        for step in chance.sample(steps, len(steps)):
            step()
            time.sleep(chance.uniform(0, 0.2))
        for step in chance.sample(again, len(again)):
            step()
            time.sleep(chance.uniform(0, 0.5))

    def require_nothing_missing(self) -> None:
        """Kill the follower, leave it dead, and require of the repository all that was ever acknowledged.

        What is acknowledged meanwhile counts too: the ledger is looked at after the restore.
        """
        self.service.kill()
        self.weather.wait_until_back()
        self.require_log()
        folder = self.servers.new_folder("restored")
        with self.program.start("restore", SOURCE, "--latest", "--into", folder / "data", "--quiet") as restore:
            _, said = restore.communicate(timeout=RESTORE_SECONDS_MAX)
        assert restore.returncode == 0, said
        restored = self.servers.start(MAJOR, data_folder=folder / "data")
        found = rows_of(restored)
        self.servers.drop_folder(folder)
        acknowledged = list(self.writers.acknowledged)
        assert acknowledged[-1] in found
        assert set(acknowledged) - found == set()
        assert found <= self.writers.begun
        assert self.writers.warnings == []
        self.restores.append((len(acknowledged), len(found)))

    def require_log(self, *, whole: bool = False) -> None:
        """Require the stored log byte for byte as the server has it, and of each hole that ``windows`` tells it."""
        config = load_config(self.program.folder / "holdfast.yaml", self.program.environment)
        with (
            bootstrap.opened_repository(config, None) as repository,
            ThreadPoolExecutor(READ_THREADS) as threads,
        ):
            log = StoredLog(bootstrap.area_of(config, repository, SOURCE), threads)
            [generation] = log.generations()
            stretches = log.stretches(generation.id)
            assert len(stretches) == 1 or not whole
            self.require_told(stretches)
            assert stretches[0].end >= self.writers.position, "bytes that were acknowledged are not stored"
            for part in segments_of(Stretch(max(self.compared, stretches[0].start), stretches[0].end)):
                stored = b"".join(log.read(generation.id, part))
                assert stored == self.written(part), f"{part.start:x} to {part.end:x}"
            self.compared = stretches[0].end

    def require_told(self, stretches: Sequence[Stretch]) -> None:
        holes = [Stretch(before.end, after.start) for before, after in itertools.pairwise(stretches)]
        window = self.program.done("windows", SOURCE, "--json").document[0]
        told = [(gap["start_position"], gap["end_position"]) for gap in window["gaps"]]
        assert [(hole.start, hole.end) for hole in holes] == told, json.dumps(window)

    def written(self, part: Stretch) -> bytes:
        """Read from the server's own files; it removes none of them."""
        number = part.start // SEGMENT_BYTES
        high, low = divmod(number, (1 << 32) // SEGMENT_BYTES)
        path = self.server.data_folder / "pg_wal" / f"{1:08X}{high:08X}{low:08X}"
        with path.open("rb") as file:
            file.seek(part.start % SEGMENT_BYTES)
            return file.read(part.size_bytes)


def segments_of(stretch: Stretch) -> list[Stretch]:
    """Cut a stretch at the borders of the server's files."""
    cuts = range((stretch.start // SEGMENT_BYTES + 1) * SEGMENT_BYTES, stretch.end, SEGMENT_BYTES)
    return [Stretch(start, end) for start, end in itertools.pairwise([stretch.start, *cuts, stretch.end])]
