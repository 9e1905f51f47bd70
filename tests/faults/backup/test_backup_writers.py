"""Writers that meet: two at once, leases that are lost, clocks that are wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from tests.faults.backup.whole_backups import (
    FilesSource,
    World,
    area_of,
    content,
    far_away,
    make,
    settled,
    store_with,
)

from holdfast.model.errors import Interrupted, LeaseHeld
from holdfast.repository.format.names import RunId
from holdfast.repository.leases import Holder, Lease, this_process
from holdfast.sources.port import CaptureRequest, Tier
from holdfast.storage.port import Store

WAIT_SECONDS_MAX = 20.0


@pytest.fixture
def store(world: World) -> Store:
    made = store_with({})
    make(made)
    world.backup(made, 1)
    return made


def takes_over(store: Store, holder: Callable[[RunId], Holder] = far_away) -> Callable[[CaptureRequest], None]:
    """Return what puts another run's lease in the place of ours, in the middle of a capture."""

    def act(_: CaptureRequest) -> None:
        thief = Lease(area_of(store), "physical", holder(RunId("b" * 32)), 60.0)
        thief._put("held")

    return act


def test_of_two_runs_of_one_lane_one_is_told_that_the_other_lives(world: World, store: Store) -> None:
    refused: list[BaseException] = []

    def meanwhile(_: CaptureRequest) -> None:
        with pytest.raises(LeaseHeld) as caught:
            world.backup(store, 3)
        refused.append(caught.value)

    first = world.backup(store, 2, source=FilesSource(content(2), meanwhile))
    assert [error.exit_code for error in refused if isinstance(error, LeaseHeld)] == [11]
    assert world.require_sound(store)[-1].id == first.record.id
    assert world.backup(store, 3).notices == ()


def test_two_lanes_at_once_both_commit_and_both_restore(world: World, store: Store) -> None:
    others: list[str] = []

    def meanwhile(_: CaptureRequest) -> None:
        others.append(world.backup(store, 3, lane="logical").record.id)

    first = world.backup(store, 2, Tier.INCREMENTAL, source=FilesSource(content(2), meanwhile))
    assert [record.id for record in world.require_sound(store)][1:] == [*others, first.record.id]
    assert world.check(store).findings == ()


def test_writers_that_know_nothing_of_each_other_all_commit_and_all_restore(world: World, store: Store) -> None:
    barrier = threading.Barrier(4)
    ids: list[str] = []
    wrong: list[BaseException] = []

    def work(number: int) -> None:
        try:
            source = FilesSource(content(2 + number % 2), lambda _: barrier.wait(WAIT_SECONDS_MAX) and None)
            ids.append(world.backup(settled(store), 2, lane=f"lane{number}", source=source).record.id)
        except BaseException as error:  # noqa: BLE001 told to the test's own thread
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sorted(record.id for record in world.require_sound(store)[1:]) == sorted(ids)
    assert world.check(store).findings == ()


def test_a_lease_lost_in_the_middle_ends_the_run_with_a_clear_error_and_no_entry(world: World, store: Store) -> None:
    seconds: list[float] = []

    def meanwhile(request: CaptureRequest) -> None:
        takes_over(store)(request)
        begun = time.monotonic()
        while not request.stop_requested():
            assert time.monotonic() - begun < WAIT_SECONDS_MAX, "the capture is not told that its lease is lost"
            time.sleep(0.01)
        seconds.append(time.monotonic() - begun)
        raise Interrupted("stopped")

    with pytest.raises(LeaseHeld, match="taken over by process 7 on elsewhere") as caught:
        world.backup(store, 2, source=FilesSource(content(2), meanwhile))
    assert caught.value.exit_code == 11
    assert caught.value.hint
    assert len(world.require_sound(store)) == 1
    # The other's lease is left alone, and is stale in its time.
    world.backup(store, 3)
    assert len(world.require_sound(store)) == 2


def test_a_lease_lost_by_a_source_that_does_not_look_still_makes_no_entry(world: World, store: Store) -> None:
    def meanwhile(request: CaptureRequest) -> None:
        takes_over(store)(request)
        time.sleep(0.5)

    with pytest.raises(LeaseHeld, match="taken over"):
        world.backup(store, 2, source=FilesSource(content(2), meanwhile))
    assert len(world.require_sound(store)) == 1


def test_a_lease_that_is_overwritten_by_garbage_costs_nothing(world: World, store: Store) -> None:
    def meanwhile(_: CaptureRequest) -> None:
        name = next(info.name for info in store.list("volatile/") if "/leases/" in info.name)
        store.put(name, b"garbage")
        time.sleep(0.4)

    world.backup(store, 2, source=FilesSource(content(2), meanwhile))
    assert len(world.require_sound(store)) == 2


def test_a_live_holder_elsewhere_is_not_pushed_aside(world: World, store: Store) -> None:
    other = Lease(area_of(store), "physical", far_away(RunId("c" * 32)), 0.05)
    other.acquire(wait=False, stop=lambda: False)
    with other, pytest.raises(LeaseHeld, match="elsewhere"):
        world.backup(store, 2)
    assert len(world.require_sound(store)) == 1
    world.backup(store, 2)


def test_a_stop_while_waiting_for_a_lease_is_an_interruption(world: World, store: Store) -> None:
    takes_over(store)(CaptureRequest(Tier.FULL))
    with pytest.raises(Interrupted):
        world.backup(store, 2, stop_requested=lambda: True)


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_one_hour_off_is_told_and_makes_no_difference(world: World, store: Store, hours: int) -> None:
    taken = world.backup(store, 2, now=lambda: datetime.now(UTC) + timedelta(hours=hours))
    assert any("clock is" in notice and ("36" in notice or "359" in notice) for notice in taken.notices)
    assert world.backup(store, 3, Tier.INCREMENTAL).notices == ()
    records = world.require_sound(store)
    assert [record.id for record in records][1] == taken.record.id
    assert len(records) == 3
    assert world.check(store).findings == ()


def test_a_holder_of_this_machine_that_died_is_not_waited_for(world: World, store: Store) -> None:
    dead = this_process(RunId("d" * 32))
    Lease(area_of(store), "physical", Holder(dead.run, dead.host, dead.place, 2**22 + 5, "9"), 60.0)._put("held")
    begun = time.monotonic()
    world.backup(store, 2, lease_period_seconds=1000.0)
    assert time.monotonic() - begun < WAIT_SECONDS_MAX
