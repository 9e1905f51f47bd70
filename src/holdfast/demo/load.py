"""The application that writes while the backups run: pgbench, at a bounded rate, surely stopped."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.demo.database import DATABASE
from holdfast.demo.programs import SAID_CHARACTERS_MAX
from holdfast.model.errors import SourceFailed
from holdfast.sandbox import ThrowawayPostgres
from holdfast.sandbox.account import spawn

CLIENTS = 2
TRANSACTIONS_PER_SECOND_MAX = 150
SECONDS_MAX = 3600
STOP_SECONDS_MAX = 10.0


class WriteLoad:
    """A running pgbench."""

    def __init__(self, process: subprocess.Popen[bytes], log_path: Path) -> None:
        self._process = process
        self._log_path = log_path

    def require_running(self) -> None:
        """Raise ``SourceFailed`` when it ended by itself: then nothing was written during the backup."""
        code = self._process.poll()
        if code is not None:
            said = self._log_path.read_text(errors="replace").strip()[-SAID_CHARACTERS_MAX:]
            raise SourceFailed(f"pgbench ended with {code} while it should write:\n{said}")

    def stop(self) -> None:
        """Stop it; may be repeated."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_SECONDS_MAX)


@contextmanager
def write_load(server: ThrowawayPostgres, log_path: Path) -> Iterator[WriteLoad]:
    """Write to the server until the context ends. It ends by itself when the server does, should we die."""
    arguments = (
        f"--client={CLIENTS}",
        "--jobs=1",
        f"--rate={TRANSACTIONS_PER_SECOND_MAX}",
        f"--time={SECONDS_MAX}",
        "--no-vacuum",
        server.connection_string(DATABASE),
    )
    with log_path.open("wb") as log:
        process = spawn([str(server.programs.path("pgbench")), *arguments], None, output=log)
    load = WriteLoad(process, log_path)
    try:
        yield load
    finally:
        load.stop()
