"""The stand-alone reader, where this is a checkout: the same backup restored without holdfast."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

from holdfast.demo.programs import run_to_end
from holdfast.demo.vault import REPOSITORY_NAME, SOURCE, Vault

READER = Path("rescue") / "holdfast_rescue.py"
INHERITED = ("PATH", "HOME", "PYTHONPATH")
"""What Python finds its packages by."""


def find_reader() -> Path | None:
    """Find the reader in the checkout that this package runs from; None where it was installed without it."""
    path = Path(__file__).resolve().parents[3] / READER
    return path if path.is_file() else None


def restore_with_reader(reader: Path, vault: Vault, backup: str, target: Path) -> None:
    """Restore a backup of a folder repository into a new folder. Raises ``SourceFailed`` with the reader's words."""
    arguments = [str(vault.folder / REPOSITORY_NAME), SOURCE, backup, str(target)]
    # The environment is the reader's own interface; this passphrase opens nothing that outlives the demo.
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    environment = {**inherited, "HOLDFAST_PASSPHRASE": vault.passphrase.reveal()}

    def start(output: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, str(reader), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    run_to_end(READER.name, start)
