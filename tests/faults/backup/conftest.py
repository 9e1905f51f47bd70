"""What the tests of whole backups share."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.faults.backup.whole_backups import World

from holdfast.backup import packer

SMALL_PACK_BYTES = 256 << 10


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world whose packs are small, so that a small backup puts several."""
    monkeypatch.setattr(packer, "PACK_BYTES", SMALL_PACK_BYTES)
    with ThreadPoolExecutor(4) as executor:
        yield World(executor, tmp_path)
