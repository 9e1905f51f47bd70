"""What every test of the command line may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.acceptance.cli.cli_program import Program


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """holdfast in an empty folder."""
    return Program(tmp_path)
