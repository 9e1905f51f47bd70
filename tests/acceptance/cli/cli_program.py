"""Runs holdfast as a process, the way a shell does, in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PASSPHRASE = "four plain random words"
SECONDS_MAX = 120
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "TMPDIR")


@dataclass(frozen=True)
class Ended:
    """A process that ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What was printed, as one JSON document."""
        return json.loads(self.out)

    @property
    def events(self) -> list[Any]:
        """What was printed, as JSON Lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> Any:
        """The error that was printed with --json."""
        return json.loads(self.err.splitlines()[-1])["error"]


@dataclass(frozen=True)
class Program:
    """holdfast in a folder, with a home, a state and variables that are the test's alone."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        own = {"HOME": str(self.folder), "HOLDFAST_STATE_DIR": str(self.folder / "state")}
        return {**kept, **own, "HOLDFAST_PASSPHRASE": PASSPHRASE, **self.variables}

    def start(
        self, *arguments: str | Path, variables: Mapping[str, str | None] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process; None takes a variable away."""
        changed = {**self.environment, **(variables or {})}
        return subprocess.Popen(
            [sys.executable, "-m", "holdfast", *(str(word) for word in arguments)],
            cwd=self.folder,
            env={name: value for name, value in changed.items() if value is not None},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: str | Path, variables: Mapping[str, str | None] | None = None) -> Ended:
        """Run to the end; no command may show a traceback or the passphrase."""
        with self.start(*arguments, variables=variables) as process:
            out, err = (data.decode() for data in process.communicate(timeout=SECONDS_MAX))
        assert "Traceback" not in out + err, err
        assert PASSPHRASE not in out + err
        return Ended(process.returncode, out, err)

    def done(self, *arguments: str | Path) -> Ended:
        """Run to the end, which must be a good one."""
        ended = self.run(*arguments)
        assert ended.code == 0, f"{arguments} ended with {ended.code}: {ended.out}{ended.err}"
        return ended

    def init(self, *arguments: str | Path, source: str = "orders=postgresql://backup@127.0.0.1:1/shop") -> Ended:
        """Set up an application in this folder."""
        own = ("--application", "shop", "--repository", self.folder / "repository", "--source", source)
        return self.done("init", *own, *arguments)
