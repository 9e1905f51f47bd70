"""Running a program to its end, with a bare environment, a bound, and its last words where it fails."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from holdfast.model.errors import SourceFailed
from holdfast.sandbox.account import spawn

PROGRAM_SECONDS_MAX = 1800.0
SAID_CHARACTERS_MAX = 2000


def run_program(program: Path, *arguments: str) -> str:
    """Run a program as ourselves and return the end of what it printed. Raises ``SourceFailed`` when it fails."""
    with tempfile.TemporaryFile() as output:
        process = spawn([str(program), *arguments], None, output=output)
        try:
            code = process.wait(PROGRAM_SECONDS_MAX)
        except subprocess.TimeoutExpired as error:
            raise SourceFailed(f"{program.name} did not end within {PROGRAM_SECONDS_MAX:.0f} s") from error
        finally:
            process.kill()  # after an interrupt too; nothing happens to one that ended
            process.wait()
        output.seek(0)
        said = output.read().decode("utf-8", "replace").strip()[-SAID_CHARACTERS_MAX:]
    if code != 0:
        raise SourceFailed(f"{program.name} ended with {code}:\n{said}", hint="Its last lines tell the cause.")
    return said
