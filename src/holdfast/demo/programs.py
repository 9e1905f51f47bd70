"""Running a program to its end: a bound on its time, and its last words where it fails."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from holdfast.model.errors import SourceFailed
from holdfast.sandbox.account import spawn

PROGRAM_SECONDS_MAX = 1800.0
SAID_CHARACTERS_MAX = 2000

Start = Callable[[IO[bytes]], subprocess.Popen[bytes]]
"""Starts a process whose output goes to the file given."""


def run_program(program: Path, *arguments: str) -> None:
    """Run a program as ourselves with a bare environment. Raises ``SourceFailed`` when it fails."""
    run_to_end(program.name, lambda output: spawn([str(program), *arguments], None, output=output))


def run_to_end(name: str, start: Start) -> None:
    """Start a process and wait for it; it never outlives the call. Raises ``SourceFailed`` with what it said."""
    with tempfile.TemporaryFile() as output:
        process = start(output)
        try:
            code = process.wait(PROGRAM_SECONDS_MAX)
        except subprocess.TimeoutExpired as error:
            raise SourceFailed(f"{name} did not end within {PROGRAM_SECONDS_MAX:.0f} s") from error
        finally:
            process.kill()  # after an interrupt too; nothing happens to one that ended
            process.wait()
        output.seek(0)
        said = output.read().decode("utf-8", "replace").strip()[-SAID_CHARACTERS_MAX:]
    if code != 0:
        raise SourceFailed(f"{name} ended with {code}:\n{said}", hint="Its last lines tell the cause.")
