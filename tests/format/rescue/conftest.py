"""Runs the stand-alone reader as a process, the way an operator does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from miniature_writer import Run, Writer

PROGRAM = Path(__file__).parents[3] / "rescue" / "holdfast_rescue.py"


@pytest.fixture
def rescue(tmp_path: Path) -> Run:
    def run(*arguments: object, passphrase: str = "secret", **environment: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-I", "-W", "error", PROGRAM, tmp_path / "repository", *arguments]
        variables = {"PATH": os.environ["PATH"], "HOLDFAST_PASSPHRASE": passphrase, **environment}
        return subprocess.run([*map(str, command)], env=variables, capture_output=True, check=False, timeout=120)

    return run


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(tmp_path / "repository").init()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"
