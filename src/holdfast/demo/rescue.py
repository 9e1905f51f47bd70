"""The stand-alone reader, where this is a checkout: the same backup restored without holdfast."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from holdfast.demo.programs import PROGRAM_SECONDS_MAX, SAID_CHARACTERS_MAX
from holdfast.demo.vault import REPOSITORY_NAME, SOURCE, Vault
from holdfast.model.errors import SourceFailed

READER = Path("rescue") / "holdfast_rescue.py"


def find_reader() -> Path | None:
    """Find the reader in the checkout that this package runs from; None where it was installed without it."""
    path = Path(__file__).resolve().parents[3] / READER
    return path if path.is_file() else None


def restore_with_reader(reader: Path, vault: Vault, backup: str, target: Path) -> None:
    """Restore a backup of a folder repository into a new folder. Raises ``SourceFailed`` with the reader's words.

    The passphrase goes by the environment, which is the reader's interface; this one is worth nothing to anybody.
    """
    arguments = [str(vault.folder / REPOSITORY_NAME), SOURCE, backup, str(target)]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-I", str(reader), *arguments],
            env={"PATH": os.defpath, "HOLDFAST_PASSPHRASE": vault.passphrase.reveal()},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(PROGRAM_SECONDS_MAX)
        except subprocess.TimeoutExpired as error:
            raise SourceFailed(f"{READER.name} did not end within {PROGRAM_SECONDS_MAX:.0f} s") from error
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        said = output.read().decode("utf-8", "replace").strip()[-SAID_CHARACTERS_MAX:]
    if code != 0:
        raise SourceFailed(f"{READER.name} ended with {code}:\n{said}", hint="Its last lines tell the cause.")
