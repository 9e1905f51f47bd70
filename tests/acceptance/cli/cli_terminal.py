"""Runs holdfast at a terminal of its own, and answers what it asks."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.acceptance.cli.cli_program import Program

WAIT_SECONDS_MAX = 60
_BECOME = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """One run. ``said`` is everything that was shown so far, without what only moves the cursor."""

    def __init__(self, program: Program, *words: str | Path) -> None:
        self._ours, theirs = pty.openpty()
        environment = {**program.environment, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
        # The child makes this its controlling terminal: a passphrase is asked for there, whatever standard input is.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BECOME, sys.executable, "-m", "holdfast", *(str(word) for word in words)],
            cwd=program.folder,
            env={name: value for name, value in environment.items() if value},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._raw = b""
        self._seen = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._ours)

    @property
    def said(self) -> str:
        return _ESCAPES.sub("", self._raw.decode("utf-8", "replace")).replace("\r\n", "\n")

    def answer(self, question: str, text: str) -> None:
        """Wait for a question that was not answered yet, and type a line."""
        until = time.monotonic() + WAIT_SECONDS_MAX
        while question not in self.said[self._seen :]:
            assert time.monotonic() < until, f"{question!r} was not asked: {self.said}"
            assert self._read(), f"it ended without asking {question!r}: {self.said}"
        self._seen = len(self.said)
        os.write(self._ours, f"{text}\n".encode())

    def end(self) -> int:
        """Wait for the end and return the exit code."""
        while self._read():
            pass
        return self._process.wait(WAIT_SECONDS_MAX)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._ours], [], [], WAIT_SECONDS_MAX)
        assert ready, f"nothing came for a minute: {self.said}"
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # the other side is closed
            return False
        self._raw += data
        return bool(data)
