"""What a push sees of a stored log: the spans near its segment, and that they hold the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.unit.repository.log_examples import FIRST, SECOND, header, log_bytes, put
from tests.unit.repository.repository_examples import area_of, in_folder, memory

from holdfast.application.wal_near import NearLog
from holdfast.model.errors import Conflict, IntegrityBroken
from holdfast.model.logs import Stretch
from holdfast.repository.area import Area
from holdfast.repository.format import names
from holdfast.repository.format.log import SPAN_BYTES_MAX
from holdfast.repository.log.spans import put_span, seal_span

MIB = 1 << 20


@pytest.fixture
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


@pytest.fixture(params=["memory", "folder"])
def area(request: pytest.FixtureRequest, tmp_path: Path) -> Area:
    return area_of(memory() if request.param == "memory" else in_folder(tmp_path))


def test_spans_that_touch_a_stretch_are_listed_and_no_others(area: Area, executor: Executor) -> None:
    put(area, 0, 1000)
    inside = [put(area, 900, 1500), put(area, 1500, 1600), put(area, 1999, 2500)]
    put(area, 2000, 2600)
    put(area, 1500, 1600, generation=SECOND)
    found = NearLog(area, executor).spans(FIRST.id, Stretch(1000, 2000))
    assert [span.name for span in found] == inside


def test_the_longest_span_there_may_be_is_seen_from_its_last_byte(area: Area, executor: Executor) -> None:
    start = 5 * MIB
    sealed = seal_span(area, FIRST.id, start, bytes(SPAN_BYTES_MAX), header())
    put_span(area, sealed)
    last = Stretch(start + SPAN_BYTES_MAX - 1, start + SPAN_BYTES_MAX + MIB)
    assert [span.name for span in NearLog(area, executor).spans(FIRST.id, last)] == [sealed.name]


def test_generations_are_known_until_they_are_looked_at_anew(area: Area, executor: Executor) -> None:
    near = NearLog(area, executor)
    assert near.generations() == []
    put(area, 0, 10)
    near.refresh()
    assert near.generations() == [FIRST]


def test_w2_one_byte_that_differs_anywhere_is_refused(area: Area, executor: Executor) -> None:
    put(area, 0, 6 * MIB)
    near, stretch = NearLog(area, executor), Stretch(MIB, 6 * MIB)
    content = log_bytes(stretch.start, stretch.end)
    assert len(near.compared(FIRST.id, stretch, content)) == 1
    for place in (0, 4 * MIB - 1, 4 * MIB, len(content) - 1):
        other = bytearray(content)
        other[place] ^= 1
        with pytest.raises(Conflict, match="other content"):
            near.compared(FIRST.id, stretch, bytes(other))


def test_w3_what_another_pushed_meanwhile_is_compared_and_ones_own_is_not(area: Area, executor: Executor) -> None:
    own = put(area, 0, 1000)
    near, stretch = NearLog(area, executor), Stretch(0, 1000)
    assert near.compared(FIRST.id, stretch, log_bytes(0, 1000), {own.digest})
    put(area, 0, 1000, flavour=b"other")
    with pytest.raises(Conflict):
        near.compared(FIRST.id, stretch, log_bytes(0, 1000), {own.digest})


def test_a_stored_span_that_is_broken_is_not_taken_for_durable(tmp_path: Path, executor: Executor) -> None:
    area = area_of(in_folder(tmp_path))
    name = put(area, 0, 1000)
    path = tmp_path / names.log_span(area.keys.area, name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    with pytest.raises(IntegrityBroken):
        NearLog(area, executor).compared(FIRST.id, Stretch(0, 1000), log_bytes(0, 1000))
