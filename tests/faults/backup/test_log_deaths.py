"""Logs written, merged and cleaned up by processes that die anywhere, on stores that fail in between."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from tests.unit.repository.log_examples import FIRST, at, log_bytes, put
from tests.unit.repository.repository_examples import NOW, RUN, area_of, memory, settled

from holdfast.backup.following import LogSettings, LogSurroundings, RepositoryLog, open_log
from holdfast.model.errors import HoldfastError
from holdfast.model.logs import Sample, Stretch
from holdfast.repository import history as histories
from holdfast.repository.area import Area
from holdfast.repository.checking import check_area
from holdfast.repository.leases import this_process
from holdfast.repository.log.merging import Author, condemn_merged, delete_condemned, merge_log
from holdfast.repository.log.reading import StoredLog
from holdfast.storage.faulty import Died, Fault, FaultKind, FaultyStore
from holdfast.storage.port import Store

LATER = NOW + timedelta(days=400)
AUTHOR = Author(RUN, "here", NOW)
SESSIONS = 50


@pytest.fixture
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def follow(store: Store, executor: Executor, chance: random.Random, server_end: int, told: dict[int, int]) -> int:
    """Follow like a follower does that may die: from the stored end, in odd pieces; return what it acknowledged."""
    around = LogSurroundings(executor, RUN, lambda: datetime.now(UTC), lambda _: None)
    around = replace(around, holder_of=lambda run: replace(this_process(run), born="1"))
    settings = LogSettings(0.002, span_bytes=900, held_bytes_max=5000, in_flight_max=3, retry_seconds_first=0.001)
    settings = replace(settings, retry_seconds_max=0.002, lease_period_seconds=3600.0)
    logs: list[RepositoryLog] = []
    with suppress(Died, HoldfastError), open_log([area_of(settled(store))], around, settings) as log:
        end = log.stored()
        log.begin(FIRST)
        logs.append(log)
        position = end.position if end else 0
        log.hurry(chance.random() < 0.3)
        while position < server_end:
            stop = min(server_end, position + chance.randint(1, 400))
            log.append(position, log_bytes(position, stop))
            log.sample(Sample(at(stop), stop))
            told[stop] = stop
            position = stop
            if not log.has_room and not log.flush(20):
                break
        log.flush(20)
    return logs[0].durable if logs else 0


def test_of_fifty_followers_that_died_no_acknowledged_byte_is_missing_and_no_gap_stays(executor: Executor) -> None:
    chance = random.Random(11)
    kept = memory()
    acknowledged = server_end = 0
    told: dict[int, int] = {}
    for session in range(SESSIONS):
        server_end += chance.randint(0, 4000)
        faults = (
            Fault(FaultKind.DIE, point=chance.randint(0, 90)),
            Fault(FaultKind.ERROR_503, probability=0.1),
            Fault(FaultKind.LOST_ANSWER, operation="create", probability=0.1),
            Fault(FaultKind.EXISTS_LIE, operation="create", probability=0.05),
        )
        acknowledged = max(
            acknowledged, follow(FaultyStore(kept, faults, seed=session), executor, chance, server_end, told)
        )
        log = StoredLog(area_of(kept), executor)
        if acknowledged:
            assert log.stretches(FIRST.id)[0].start == 0
            assert log.stretches(FIRST.id)[0].end >= acknowledged
    assert 0 < acknowledged <= server_end
    assert follow(FaultyStore(kept), executor, chance, server_end, told) == server_end
    log = StoredLog(area_of(kept), executor)
    assert log.stretches(FIRST.id) == [Stretch(0, server_end)]
    assert b"".join(log.read(FIRST.id, Stretch(0, server_end))) == log_bytes(0, server_end)
    for sample in log.samples(FIRST.id, Stretch(0, server_end)):
        assert sample == Sample(at(told[sample.position]), sample.position)


def small_log() -> Store:
    store = memory()
    for start in range(0, 400, 50):
        put(area_of(store), start, start + 60, samples=[Sample(at(start), start)])
    area_of(store).catalog("postgres", NOW)
    return store


def copy_of(store: Store) -> Store:
    made = memory()
    for info in store.list(""):
        data = store.get(info.name)
        made.put(info.name, data) if info.name.startswith("volatile/") else made.create(info.name, data)
    return made


def tidy(area: Area, executor: Executor) -> None:
    merge_log(area, executor, LATER)
    history = condemn_merged(area, histories.read_history(area, executor, None), AUTHOR)
    delete_condemned(area, history, LATER)


def steps(executor: Executor, work: Callable[[Area, Executor], None]) -> int:
    whole = FaultyStore(small_log())
    work(area_of(settled(whole)), executor)
    return len(whole.points)


def test_a_tidying_that_dies_anywhere_loses_nothing_and_is_finished_by_the_next(executor: Executor) -> None:
    origin = small_log()
    for point in range(steps(executor, tidy)):
        kept = copy_of(origin)
        dying = FaultyStore(kept, (Fault(FaultKind.DIE, point=point),))
        with suppress(Died):
            tidy(area_of(settled(dying)), executor)
        area = area_of(kept)
        assert b"".join(StoredLog(area, executor).read(FIRST.id, Stretch(0, 410))) == log_bytes(0, 410)
        tidy(area, executor)
        log = StoredLog(area, executor)
        assert [(span.name.start, span.name.end) for span in log.spans(FIRST.id)] == [(0, 410)]
        assert b"".join(log.read(FIRST.id, Stretch(0, 410))) == log_bytes(0, 410)
        assert check_area(area, executor, None, lambda _: None, 100.0).findings == ()


def test_two_that_tidy_at_once_lose_nothing(executor: Executor) -> None:
    for turn in range(10):
        kept = memory()
        for start in range(0, 400, 50):
            put(area_of(kept), start, start + 60)
        with ThreadPoolExecutor(2) as both:

            def one(_: int, store: Store = kept) -> None:
                with ThreadPoolExecutor(2) as own:
                    tidy(area_of(store), own)

            list(both.map(one, range(2)))
        log = StoredLog(area_of(kept), executor)
        assert b"".join(log.read(FIRST.id, Stretch(0, 410))) == log_bytes(0, 410), turn
