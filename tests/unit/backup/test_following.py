"""Following into repositories: what is durable, what is carried, and what a store that fails or dies can do to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.unit.repository.log_examples import FIRST, SECOND, at, log_bytes, put
from tests.unit.repository.repository_examples import RUN, area_of, in_folder, memory, settled

from holdfast.backup.following import Acknowledge, LogSettings, LogSurroundings, RepositoryLog, open_log
from holdfast.model.errors import Conflict, Denied, HoldfastError, IntegrityBroken, LeaseHeld, Unavailable
from holdfast.model.logs import Sample, Stretch
from holdfast.repository.area import Area
from holdfast.repository.format import names
from holdfast.repository.leases import Holder, Lease, this_process
from holdfast.repository.log.reading import StoredLog
from holdfast.storage.faulty import Died, Fault, FaultKind, FaultyStore
from holdfast.storage.opening import open_store
from holdfast.storage.port import Store
from holdfast.storage.settings import StoreSettings

SETTINGS = LogSettings(
    flush_seconds=0.05,
    span_bytes=1000,
    held_bytes_max=10_000,
    lag_bytes_max=2000,
    retry_seconds_first=0.005,
    retry_seconds_max=0.01,
    lease_period_seconds=0.2,
)
NEVER = replace(SETTINGS, flush_seconds=3600.0)


def around(executor: Executor, told: list[str] | None = None) -> LogSurroundings:
    notices = told if told is not None else []
    return LogSurroundings(executor, RUN, lambda: datetime.now(UTC), notices.append)


def until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 20
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


class Gate:
    """A store whose puts of spans wait until they are let through, one by one or all."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self._lock = threading.Condition()
        self._allowed: set[int] = set()
        self._open = False
        self.waiting: list[int] = []
        self.creates: list[str] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def create(self, name: str, data: bytes) -> None:
        part = name.rsplit("/", 1)[1]
        if "/log/" in name and part != "generation":
            start = int(part.split("-")[0], 16)
            with self._lock:
                self.waiting.append(start)
                self._lock.wait_for(lambda: self._open or start in self._allowed, 20)
                self.waiting.remove(start)
        self._inner.create(name, data)
        self.creates.append(name)

    def let(self, *starts: int) -> None:
        with self._lock:
            self._allowed |= set(starts)
            self._lock.notify_all()

    def let_all(self) -> None:
        with self._lock:
            self._open = True
            self._lock.notify_all()


@contextmanager
def gated(
    executor: Executor, settings: LogSettings = NEVER, stored_end: int = 0
) -> Iterator[tuple[RepositoryLog, Gate, Area]]:
    gate = Gate(memory())
    area = area_of(settled(gate))  # type: ignore[arg-type]
    if stored_end:
        put(area_of(gate._inner), 0, stored_end)
    with open_log([area], around(executor), settings) as log:
        log.begin(FIRST)
        try:
            yield log, gate, area
        finally:
            gate.let_all()


def append(log: RepositoryLog, start: int, end: int) -> None:
    log.append(start, log_bytes(start, end))


def stored(area: Area, executor: Executor) -> list[Stretch]:
    return list(StoredLog(area, executor).stretches(FIRST.id))


# What is durable


def test_what_was_flushed_is_stored_and_durable(executor: Executor, tmp_path: Path) -> None:
    area = area_of(in_folder(tmp_path))
    with open_log([area], around(executor), NEVER) as log:
        assert log.stored() is None
        log.begin(FIRST)
        assert log.durable == 0
        append(log, 500, 3700)
        assert log.flush(20)
        assert log.durable == 3700
    assert stored(area, executor) == [Stretch(500, 3700)]
    read = b"".join(StoredLog(area, executor).read(FIRST.id, Stretch(500, 3700)))
    assert read == log_bytes(500, 3700)


def test_old_bytes_are_stored_without_being_asked_to(executor: Executor) -> None:
    area = area_of()
    with open_log([area], around(executor), SETTINGS) as log:
        log.begin(FIRST)
        append(log, 0, 10)
        assert until(lambda: log.durable == 10)
        append(log, 10, 20)
        assert until(lambda: log.durable == 20)


def test_only_the_unbroken_run_of_stored_spans_is_durable(executor: Executor) -> None:
    with gated(executor, stored_end=1000) as (log, gate, area):
        append(log, 1000, 5000)
        assert until(lambda: sorted(gate.waiting) == [1000, 2000, 3000, 4000])  # several in flight
        gate.let(2000, 4000)
        assert until(lambda: stored(area, executor) == [Stretch(0, 1000), Stretch(2000, 3000), Stretch(4000, 5000)])
        assert log.durable == 1000
        gate.let(1000)
        assert until(lambda: log.durable == 3000)
        gate.let(3000)
        assert until(lambda: log.durable == 5000)


def test_the_first_span_of_a_generation_is_stored_before_any_other(executor: Executor) -> None:
    """Else one that dies may leave a log that seems to begin later than following did."""
    with gated(executor) as (log, gate, _):
        append(log, 0, 4000)
        assert until(lambda: gate.waiting == [0])
        assert not log.flush(0.05)
        assert gate.waiting == [0]
        gate.let(0)
        assert until(lambda: sorted(gate.waiting) == [1000, 2000, 3000])


def test_whoever_waits_is_woken_each_time_more_is_durable(executor: Executor) -> None:
    with gated(executor) as (log, gate, _):
        woken: list[int] = []
        log.when_durable(lambda: woken.append(log.durable))
        append(log, 0, 2000)
        gate.let(0)
        assert until(lambda: woken == [1000])
        gate.let(1000)
        assert until(lambda: woken == [1000, 2000])


def test_an_untold_hole_stops_what_is_durable_until_begin(executor: Executor) -> None:
    area = area_of()
    with open_log([area], around(executor), NEVER) as log:
        log.begin(FIRST)
        append(log, 0, 100)
        append(log, 200, 300)
        assert log.flush(20)
        assert log.durable == 100
        append(log, 300, 350)
        assert log.flush(20)
        assert log.durable == 100
        log.begin(FIRST)
        append(log, 100, 400)  # the server still had it
        assert log.flush(20)
        assert log.durable == 400
    assert stored(area, executor) == [Stretch(0, 400)]


def test_a_gap_that_was_told_is_passed_over_and_its_reason_kept(executor: Executor) -> None:
    area = area_of()
    with open_log([area], around(executor), NEVER) as log:
        log.begin(FIRST)
        append(log, 0, 100)
        log.tell_gap("the slot was lost")
        append(log, 200, 300)
        assert log.flush(20)
        assert log.durable == 300
        assert stored(area, executor) == [Stretch(0, 100), Stretch(200, 300)]
    assert StoredLog(area, executor).gap_reason(FIRST.id, 200) == "the slot was lost"


def test_memory_is_bounded_while_the_store_is_slow(executor: Executor) -> None:
    with gated(executor, replace(SETTINGS, in_flight_max=2), stored_end=10) as (log, gate, _):
        position = 10
        while log.has_room:
            append(log, position, position + 300)
            position += 300
        assert SETTINGS.held_bytes_max <= position - 10 < SETTINGS.held_bytes_max + 300
        assert until(lambda: len(gate.waiting) == 2)
        gate.let_all()
        assert until(lambda: log.durable == position and log.has_room)
        assert log.figures.held_bytes == 0


def test_small_spans_do_not_pile_up_while_the_store_is_away(executor: Executor) -> None:
    with gated(executor, replace(SETTINGS, flush_seconds=0.001, in_flight_max=2)) as (log, gate, area):
        for position in range(0, 500, 10):
            append(log, position, position + 10)
            time.sleep(0.002)
        gate.let_all()
        assert until(lambda: log.durable == 500)
        assert len(StoredLog(area, executor).spans(FIRST.id)) <= 4


# Commits that wait


def test_commits_that_wait_are_stored_at_once_and_in_groups(executor: Executor) -> None:
    with gated(executor) as (log, gate, _):
        log.hurry(True)
        append(log, 0, 10)
        assert until(lambda: gate.waiting == [0])
        for position in range(10, 60, 10):
            append(log, position, position + 10)
        assert log.durable == 0
        gate.let(0)
        assert until(lambda: gate.waiting == [10])  # as soon as the last put returned, all together
        gate.let(10)
        assert until(lambda: log.durable == 60)


def test_beginning_to_hurry_stores_what_is_there(executor: Executor) -> None:
    area = area_of()
    with open_log([area], around(executor), NEVER) as log:
        log.begin(FIRST)
        append(log, 0, 10)
        log.hurry(True)
        assert until(lambda: log.durable == 10)


# Stores that fail


def test_a_store_that_is_away_is_tried_until_it_is_back(executor: Executor) -> None:
    away = Fault(FaultKind.ERROR_503, operation="create", name_part="-", times=25)
    store = FaultyStore(memory(), (away,))
    told: list[str] = []
    area = area_of(settled(store))
    with open_log([area], around(executor, told), NEVER) as log:
        log.begin(FIRST)
        append(log, 0, 100)
        assert log.flush(20)
        assert log.durable == 100
    assert len(told) == 2
    assert told[0].startswith("the log waits for ")
    assert told[1].endswith(" takes the log again")


@pytest.mark.parametrize("kind", [FaultKind.EXPIRED, FaultKind.NO_SPACE])
def test_any_other_failure_of_the_store_is_told_by_the_next_call(kind: FaultKind, executor: Executor) -> None:
    store = FaultyStore(memory(), (Fault(kind, operation="create", name_part="-"),))
    woken = threading.Event()
    with open_log([area_of(settled(store))], around(executor), NEVER) as log:
        log.begin(FIRST)
        log.when_durable(woken.set)
        append(log, 0, 1000)
        assert woken.wait(20)
        with pytest.raises(HoldfastError):
            append(log, 1000, 1010)
        with pytest.raises(HoldfastError):
            log.flush(20)
        assert log.durable == 0


def test_a_flush_that_takes_too_long_says_so_and_the_end_does_not_wait(executor: Executor) -> None:
    with gated(executor) as (log, gate, _):
        append(log, 0, 100)
        assert not log.flush(0.01)
        assert log.durable == 0
        gate.let(0)
        assert log.flush(20)


def test_ending_does_not_wait_for_a_store_that_hangs(executor: Executor) -> None:
    store = FaultyStore(memory(), (Fault(FaultKind.HANG, operation="create", name_part="-"),))
    begun = time.monotonic()
    with open_log([area_of(settled(store))], around(executor), NEVER) as log:
        log.begin(FIRST)
        append(log, 0, 100)
        assert not log.flush(0.01)
    assert time.monotonic() - begun < 15
    store.release()


def test_the_end_does_not_wait_to_give_its_lane_back_to_a_store_that_is_away(executor: Executor) -> None:
    held = memory()
    store = FaultyStore(held, (Fault(FaultKind.ERROR_503, operation="create", name_part="-"),))
    told: list[str] = []
    with open_log([area_of(settled(store))], around(executor, told), NEVER) as log:
        log.begin(FIRST)
        append(log, 0, 100)
        assert not log.flush(0.01)
        assert until(lambda: bool(told))
        before = sum(point.startswith("after put") for point in store.points)
    assert sum(point.startswith("after put") for point in store.points) <= before + 1
    assert until(lambda: all(thread.name != "lease-log" for thread in threading.enumerate()))


@pytest.mark.parametrize("kind", [FaultKind.LOST_ANSWER, FaultKind.EXISTS_LIE, FaultKind.TIMEOUT])
def test_lost_answers_lose_and_double_nothing(kind: FaultKind, executor: Executor) -> None:
    store = FaultyStore(memory(), (Fault(kind, operation="create", probability=0.5),), seed=5)
    area = area_of(settled(store))
    with open_log([area], around(executor), replace(NEVER, span_bytes=100)) as log:
        log.begin(FIRST)
        append(log, 0, 2000)
        assert log.flush(20)
    assert len(StoredLog(area, executor).spans(FIRST.id)) == 20
    assert stored(area, executor) == [Stretch(0, 2000)]


def test_a_follower_that_dies_anywhere_leaves_what_it_acknowledged_and_a_place_to_go_on(executor: Executor) -> None:
    settings = replace(NEVER, span_bytes=100, in_flight_max=3, lease_period_seconds=3600.0)
    dead = replace(around(executor), holder_of=lambda run: replace(this_process(run), born="1"))

    def run(store: FaultyStore) -> int:
        logs: list[RepositoryLog] = []
        try:
            with open_log([area_of(settled(store))], dead, settings) as log:
                logs.append(log)
                end = log.stored()
                log.begin(FIRST)
                append(log, end.position if end else 0, 700)
                log.flush(20)
        except Died:
            pass
        return logs[0].durable if logs else 0

    whole = FaultyStore(memory())
    assert run(whole) == 700
    for point in range(len(whole.points)):
        inner = memory()
        acknowledged = run(FaultyStore(inner, (Fault(FaultKind.DIE, point=point),)))
        kept = stored(area_of(inner), executor)
        assert not acknowledged or kept[0].start == 0
        assert not acknowledged or kept[0].end >= acknowledged
        assert run(FaultyStore(inner)) == 700
        assert stored(area_of(inner), executor) == [Stretch(0, 700)]


# Going on


def test_following_goes_on_where_it_ended_with_the_last_bytes_at_hand(executor: Executor) -> None:
    area = area_of()
    put(area, 0, 20_000)
    with open_log([area], around(executor), NEVER) as log:
        end = log.stored()
        assert end is not None
        assert (end.generation, end.position, end.tail) == (FIRST, 20_000, log_bytes(20_000 - 8192, 20_000))
        log.begin(FIRST)
        # Commits that wait for what was stored before a crash are released at once.
        assert log.durable == 20_000
        append(log, 20_000, 20_050)
        assert log.flush(20)
        assert log.durable == 20_050
    assert stored(area, executor) == [Stretch(0, 20_050)]


def test_a_server_that_sends_other_bytes_than_are_stored_is_refused(executor: Executor) -> None:
    area = area_of()
    put(area, 0, 1000)
    with open_log([area], around(executor), NEVER) as log:
        log.begin(FIRST)
        with pytest.raises(IntegrityBroken, match="other bytes of its log"):
            log.append(900, log_bytes(900, 1100, b"another server"))


def test_a_hole_left_by_a_dead_follower_is_filled(executor: Executor) -> None:
    area = area_of()
    put(area, 0, 100)
    put(area, 200, 300)
    with open_log([area], around(executor), NEVER) as log:
        end = log.stored()
        assert end is not None
        assert end.position == 100
        log.begin(FIRST)
        assert log.durable == 100
        append(log, 100, 320)
        assert log.flush(20)
        assert log.durable == 320
    assert stored(area, executor) == [Stretch(0, 320)]


def test_another_generation_begins_when_the_one_before_is_stored(executor: Executor) -> None:
    area = area_of()
    with open_log([area], around(executor), NEVER) as log:
        log.begin(FIRST)
        append(log, 0, 1000)
        append(log, 1000, 1050)
        log.begin(SECOND)
        assert stored(area, executor) == [Stretch(0, 1050)]
        assert log.durable == 0
        append(log, 900, 1200)
        assert log.flush(20)
        assert log.durable == 1200
        assert list(log.generations()) == [FIRST, SECOND]
        end = log.stored()
        assert end is not None
        assert (end.generation, end.position, end.tail) == (SECOND, 1200, log_bytes(900, 1200))


def test_a_generation_that_differs_from_the_stored_one_is_refused(executor: Executor) -> None:
    area = area_of()
    put(area, 0, 10)
    with (
        open_log([area], around(executor), NEVER) as log,
        pytest.raises(Conflict, match="with another history"),
    ):
        log.begin(replace(FIRST, details={"history": "another"}))


# Samples and the lease


def test_samples_are_stored_with_their_span(executor: Executor) -> None:
    area = area_of()
    with open_log([area], around(executor), NEVER) as log:
        log.begin(FIRST)
        append(log, 0, 100)
        log.sample(Sample(at(1), 100))
        log.sample(Sample(at(2), 150))
        assert log.flush(20)
        append(log, 100, 150)
        assert log.flush(20)
    assert StoredLog(area, executor).samples(FIRST.id, Stretch(0, 150)) == [Sample(at(1), 100), Sample(at(2), 150)]


def test_the_lease_carries_the_newest_moment_of_an_idle_server(executor: Executor) -> None:
    area = area_of()
    with open_log([area], around(executor), NEVER) as log:
        log.begin(FIRST)
        append(log, 0, 100)
        assert log.flush(20)
        log.sample(Sample(at(10), 100))
        log.sample(Sample(at(20), 120))  # not stored yet: it proves nothing
        carried = lambda: StoredLog(area, executor).carried(FIRST.id)  # noqa: E731
        assert until(lambda: carried() == Sample(at(10), 100))
        log.sample(Sample(at(30), 100))
    # Given back with the newest one, which the next follower's first span makes permanent.
    assert StoredLog(area, executor).samples(FIRST.id, Stretch(100, 100)) == [Sample(at(30), 100)]
    with open_log([area], around(executor), NEVER) as log:
        assert StoredLog(area, executor).carried(FIRST.id) == Sample(at(30), 100)
        log.begin(FIRST)
        append(log, 100, 110)
        assert log.flush(20)
        log.sample(Sample(at(40), 110))
    assert StoredLog(area, executor).samples(FIRST.id, Stretch(100, 110)) == [Sample(at(30), 100), Sample(at(40), 110)]


def test_what_a_lease_carries_does_not_count_beyond_what_is_stored(executor: Executor) -> None:
    area = area_of()
    with open_log([area], around(executor), NEVER) as log:
        log.begin(FIRST)
        append(log, 0, 100)
        assert log.flush(20)
        log.sample(Sample(at(10), 100))
    span = StoredLog(area, executor).spans(FIRST.id)[0]
    area.store.delete(names.log_span(area.keys.area, span.name))
    put(area, 0, 50)
    assert StoredLog(area, executor).samples(FIRST.id, Stretch(0, 1000)) == []


def test_a_second_follower_of_a_source_is_refused(executor: Executor) -> None:
    area = area_of()
    with open_log([area], around(executor), SETTINGS), pytest.raises(LeaseHeld):  # noqa: SIM117
        with open_log([area], replace(around(executor), run=RUN[::-1]), SETTINGS):  # type: ignore[arg-type]
            pass


def test_a_follower_whose_lane_was_taken_ends(executor: Executor) -> None:
    area = area_of()
    with open_log([area], around(executor), replace(SETTINGS, lease_period_seconds=0.05)) as log:
        log.begin(FIRST)
        other = Lease(area, "log", Holder(RUN[::-1], "elsewhere", "x/y", 7, "9"), 0.02)  # type: ignore[arg-type]

        def is_lost() -> bool:
            other._put("held")
            try:
                append(log, 0, 10)
            except LeaseHeld:
                return True
            return False

        assert until(is_lost)


def test_the_lane_is_kept_while_the_store_is_away_for_long() -> None:
    store = FaultyStore(
        open_store(StoreSettings("memory://")), (Fault(FaultKind.ERROR_503, operation="put", skip=1, times=60),)
    )
    area = area_of(settled(store))
    lease = Lease(area, "log", this_process(RUN), 0.01, endures=True)
    lease.acquire(wait=False, stop=lambda: False)
    assert until(lambda: len(store.struck) == 60)
    lease.check()
    lease.close()


# Several repositories


def test_bytes_are_durable_when_every_repository_has_them_and_sealed_once(executor: Executor) -> None:
    gate = Gate(memory())
    areas = [area_of(), area_of(settled(gate))]  # type: ignore[arg-type]
    with open_log(areas, around(executor), NEVER) as log:
        log.begin(FIRST)
        append(log, 0, 100)
        assert not log.flush(0.05)
        assert stored(areas[0], executor) == [Stretch(0, 100)]
        assert log.durable == 0
        gate.let_all()
        assert log.flush(20)
        assert log.durable == 100
    one, other = (StoredLog(area, executor).spans(FIRST.id) for area in areas)
    assert [span.name for span in one] == [span.name for span in other]


def test_with_all_following_goes_on_at_the_least_end(executor: Executor) -> None:
    areas = [area_of(), area_of(), area_of()]
    put(areas[0], 0, 300)
    put(areas[1], 0, 200)
    with open_log(areas, around(executor), NEVER) as log:
        end = log.stored()
        assert end is not None
        assert (end.position, end.tail) == (200, log_bytes(0, 200))
        log.begin(FIRST)
        assert log.durable == 200
        append(log, 200, 350)
        assert log.flush(20)
    assert [stored(area, executor) for area in areas] == [[Stretch(0, 350)], [Stretch(0, 350)], [Stretch(200, 350)]]


def test_with_first_the_others_are_not_waited_for(executor: Executor) -> None:
    gate = Gate(memory())
    areas = [area_of(), area_of(settled(gate))]  # type: ignore[arg-type]
    told: list[str] = []
    with open_log(areas, around(executor, told), replace(NEVER, acknowledge=Acknowledge.FIRST)) as log:
        log.begin(FIRST)
        append(log, 0, 5000)
        assert log.flush(20)
        assert log.durable == 5000
        assert "cannot keep up: its log gets a gap at 7d0" in told[0]
        gate.let_all()
        assert until(lambda: stored(areas[1], executor) == [Stretch(0, 2000)])
        assert until(lambda: append(log, 5000, 5000) or True)
        append(log, 5000, 5100)
        assert log.flush(20)
        assert until(lambda: stored(areas[1], executor) == [Stretch(0, 2000), Stretch(5000, 5100)])


def test_with_first_the_failure_of_another_is_told_and_ends_nothing(executor: Executor) -> None:
    refusing = FaultyStore(memory(), (Fault(FaultKind.EXPIRED, operation="create", name_part="-"),))
    areas = [area_of(), area_of(settled(refusing))]
    told: list[str] = []
    with open_log(areas, around(executor, told), replace(NEVER, acknowledge=Acknowledge.FIRST)) as log:
        log.begin(FIRST)
        for position in range(0, 3000, 1000):
            append(log, position, position + 1000)
            assert log.flush(20)
        assert log.durable == 3000
        assert until(lambda: any(text.startswith("no more log is stored in ") for text in told))


def test_with_all_the_failure_of_one_ends_following(executor: Executor) -> None:
    refusing = FaultyStore(memory(), (Fault(FaultKind.EXPIRED, operation="create", name_part="-"),))
    with open_log([area_of(), area_of(settled(refusing))], around(executor), NEVER) as log:
        log.begin(FIRST)
        append(log, 0, 100)
        with pytest.raises(Denied):
            log.flush(20)


def test_a_generation_waits_for_the_end_of_the_one_before(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.backup.following.BEGIN_FLUSH_SECONDS_MAX", 0.02)
    with gated(executor) as (log, gate, _):
        append(log, 0, 100)
        with pytest.raises(Unavailable, match="could not be stored yet"):
            log.begin(SECOND)
        gate.let_all()
        assert until(lambda: log.durable == 100)
        log.begin(SECOND)
