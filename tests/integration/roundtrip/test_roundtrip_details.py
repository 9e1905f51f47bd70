"""The page about a backup's details names every key that a backup has, and no other."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.integration.roundtrip.engine import SOURCE
from tests.integration.roundtrip.small import Small

from holdfast.bootstrap import area_of, opened_repository
from holdfast.repository import history as histories

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "postgres-details.md"
ROW = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)


@pytest.mark.parametrize("small", [15, 18], indirect=True, ids=["pg15", "pg18"])
def test_the_page_of_the_details_has_a_row_for_each_key_of_a_backup(small: Small) -> None:
    config = small.engine.application().config
    with opened_repository(config, None) as repository, ThreadPoolExecutor(1) as executor:
        area = area_of(config, repository, SOURCE)
        [record] = histories.live_records(area, histories.read_history(area, executor, None))
    assert sorted(ROW.findall(PAGE.read_text(encoding="utf-8"))) == sorted(record.details)
