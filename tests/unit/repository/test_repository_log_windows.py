"""Windows from a listing, the history and few headers, however long the log is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import Executor
from datetime import timedelta

from tests.unit.repository.log_examples import FIRST, SECOND, at, listed, named, put
from tests.unit.repository.repository_examples import NOW, area_of, entry_like, settled

from holdfast.model.logs import Sample, Stretch
from holdfast.model.windows import Anchor, reach_of
from holdfast.repository import history as histories
from holdfast.repository.area import Area
from holdfast.repository.format import names
from holdfast.repository.format.entry import EntryKind
from holdfast.repository.log.listing import list_log
from holdfast.repository.log.overview import HEADERS_MAX, REMOVED, facts_of
from holdfast.repository.log.reading import StoredLog
from holdfast.storage.faulty import FaultyStore
from holdfast.storage.opening import open_store
from holdfast.storage.port import ObjectInfo
from holdfast.storage.settings import StoreSettings


def anchor(stop: int, ended: float, generation: str = FIRST.id) -> Anchor:
    return Anchor(f"{stop:x}", generation, stop, at(ended))


def growing(area: Area, start: int, end: int, step: int = 100, gap: str | None = None) -> None:
    """Store spans of a log that grows by one position a second."""
    for position in range(start, end, step):
        samples = [Sample(at(position + second), position + second) for second in (1, step)]
        put(area, position, position + step, samples=samples, gap=gap if position == start else None)


def test_windows_come_from_headers_at_the_ends_of_stretches(executor: Executor) -> None:
    store = FaultyStore(open_store(StoreSettings("memory://")))
    area = area_of(settled(store))
    growing(area, 0, 2000)
    growing(area, 2500, 6000, gap="the slot was lost")
    anchors = [anchor(150, 150), anchor(300, 300), anchor(3050, 3050)]
    log = StoredLog(area, executor)
    before = len(store.points)
    reach = reach_of(facts_of(log, anchors), anchors)
    assert [(one.start, one.end) for one in reach.windows] == [(at(150), at(1999)), (at(3050), at(5999))]
    assert [(gap.start, gap.end, gap.reason) for gap in reach.gaps] == [(at(1999), at(3050), "the slot was lost")]
    assert sum(point.startswith("after get") for point in store.points[before:]) < 30


def test_a_span_without_samples_at_the_end_is_looked_behind(executor: Executor) -> None:
    area = area_of()
    growing(area, 0, 500)
    put(area, 500, 600)
    anchors = [anchor(150, 150)]
    reach = reach_of(facts_of(StoredLog(area, executor), anchors), anchors)
    assert [one.end for one in reach.windows] == [at(499)]


def test_a_tail_that_was_removed_is_named_as_the_reason(executor: Executor) -> None:
    area = area_of()
    growing(area, 0, 1000)
    entry = entry_like(EntryKind.HOLD, ["aa" * 16], log_ends=list_log(area).ends())
    history = histories.append(area, histories.History(), lambda _: entry)
    for span in StoredLog(area, executor).spans(FIRST.id)[7:]:
        area.store.delete(names.log_span(area.keys.area, span.name))
    growing(area, 1200, 1500)
    anchors = [anchor(150, 150), anchor(1300, 1300)]
    entry = entry_like(EntryKind.HOLD, ["aa" * 16], log_ends=((FIRST.id, 1000),))
    reach = reach_of(facts_of(StoredLog(area, executor), anchors, history.state), anchors)
    assert [one.end for one in reach.windows] == [at(699), at(1499)]
    # What ends later now hides the removal from the ends alone; the hole is told either way.
    assert reach.gaps[0].stretch == Stretch(700, 1200)
    removed = area_of()
    growing(removed, 0, 700)
    put(removed, 1200, 1300, generation=SECOND)
    late = [anchor(150, 150), anchor(1250, 1250, SECOND.id)]
    told = facts_of(StoredLog(removed, executor), late, history.state)
    assert told.reasons[1200] == REMOVED


class LongLog:
    """A store that lists a year of spans: sixteen minutes each, the last day every five seconds, and few are real."""

    def __init__(self, inner: FaultyStore, area: Area) -> None:
        self._inner = inner
        self._area = area.keys.area
        self.gets = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def get(self, name: str, start: int = 0, end: int | None = None) -> object:
        self.gets += "/log/" in name
        return self._inner.get(name, start, end)

    def list(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        if "/log/" not in prefix:
            yield from self._inner.list(prefix, after)
            return
        made = (
            ObjectInfo(names.log_span(self._area, name), size, put_at)
            for number in range(32_850)
            for name, size, put_at in [named(number * 960, (number + 1) * 960, NOW + timedelta(seconds=number))]
        )
        newest = (
            ObjectInfo(names.log_span(self._area, name), size, put_at)
            for second in range(31_536_000, 31_536_000 + 86_400, 5)
            for name, size, put_at in [named(second, second + 5)]
        )
        for info in itertools.chain(made, newest, self._inner.list(prefix)):
            if info.name > after:
                yield info


def test_a_year_of_spans_takes_few_reads(executor: Executor) -> None:
    inner = FaultyStore(open_store(StoreSettings("memory://")))
    area = area_of(settled(inner))
    end = 31_536_000 + 86_400
    put(area, end, end + 5, samples=[Sample(at(end + 5), end + 5)])
    put(area, end + 900, end + 905, gap="the slot was lost")
    store = LongLog(inner, area)
    log = StoredLog(area_of(settled(store)), executor)  # type: ignore[arg-type]
    assert len(log.spans(FIRST.id)) > 50_000
    anchors = [anchor(day * 86_400 + 500, day * 86_400 + 500) for day in range(365)]
    reach = reach_of(facts_of(log, anchors), anchors)
    assert [(one.start, one.end) for one in reach.windows] == [(at(500), at(end + 4))]
    assert store.gets < 40


def test_headers_are_read_up_to_a_bound(executor: Executor) -> None:
    inner = FaultyStore(open_store(StoreSettings("memory://")))
    area = area_of(settled(inner))
    for number in range(HEADERS_MAX + 60):
        put(area, number * 20, number * 20 + 10, samples=[Sample(at(number * 20 + 10), number * 20 + 10)])
    log = StoredLog(area, executor)
    before = len(inner.points)
    anchors = [anchor(number * 20 + 5, number * 20 + 5) for number in range(HEADERS_MAX + 60)]
    reach = reach_of(facts_of(log, anchors), anchors)
    assert len(reach.windows) == HEADERS_MAX + 60
    assert sum(point.startswith("after get") for point in inner.points[before:]) < 16 * HEADERS_MAX
    assert reach.windows[-1].end > reach.windows[-1].start


def test_a_listing_of_nothing_has_no_window(executor: Executor) -> None:
    area = area_of()
    assert facts_of(StoredLog(area, executor), []).line == ()
    assert listed().ends() == ()
