"""Leases save double work: whoever lives keeps the lane, whoever died loses it, and no clock is asked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.unit.repository.repository_examples import area_of, settled

from holdfast.model.documents import encode_document
from holdfast.model.errors import Interrupted, LeaseHeld
from holdfast.repository.area import Area
from holdfast.repository.format import names
from holdfast.repository.format.container import ObjectType
from holdfast.repository.format.names import RunId
from holdfast.repository.leases import Holder, Lease, this_process
from holdfast.storage.faulty import Fault, FaultKind, FaultyStore
from holdfast.storage.opening import open_store
from holdfast.storage.settings import StoreSettings

PERIOD = 0.05
ANOTHER_PLACE = Holder(RunId("ee" * 16), "elsewhere", "another boot/pid:[1]", 4711, "99")


def run(letter: str) -> RunId:
    return RunId(letter * 32)


def never() -> bool:
    return False


def taken(area: Area, holder: Holder, lane: str = "physical", *, wait: bool = False) -> Lease:
    lease = Lease(area, lane, holder, PERIOD)
    lease.acquire(wait=wait, stop=never)
    return lease


def lease_name(area: Area, lane: str = "physical") -> str:
    return names.lease(area.keys.area, lane)


def leave(area: Area, holder: Holder, renewed_at: str = "2026-03-01T12:00:00.000000Z", state: str = "held") -> None:
    """Put the lease of a run that renews it no more."""
    document = {
        "holder": holder.run,
        "host": holder.host,
        "place": holder.place,
        "process": holder.process,
        "born": holder.born,
        "state": state,
        "renewed_at": renewed_at,
    }
    data, _ = area.seal(area.claim(ObjectType.LEASE, b"physical"), [encode_document(document)])
    area.store.put(lease_name(area), data)


def until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 20
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_a_free_lane_is_taken_given_back_and_taken_again() -> None:
    area = area_of()
    for letter in "ab":
        with taken(area, this_process(run(letter))) as lease:
            lease.check()
    assert "free" in repr(
        area.open("it", area.claim(ObjectType.LEASE, b"physical"), area.store.get(lease_name(area)))[0]
    )


def test_lanes_and_sources_do_not_meet() -> None:
    area = area_of()
    other = area_of(area.store, "shop", "customers")
    with (
        taken(area, this_process(run("a"))),
        taken(area, this_process(run("b")), "logical"),
        taken(other, this_process(run("c"))),
    ):
        pass


def test_a_run_that_lives_keeps_its_lane() -> None:
    area = area_of()
    with taken(area, this_process(run("a"))) as lease:
        with pytest.raises(LeaseHeld, match=f"process {os.getpid()}") as caught:
            taken(area, this_process(run("b")))
        assert caught.value.exit_code == 11
        lease.check()


def test_a_run_elsewhere_that_renews_keeps_its_lane() -> None:
    area = area_of()
    with taken(area, ANOTHER_PLACE), pytest.raises(LeaseHeld, match="process 4711 on elsewhere"):
        taken(area, this_process(run("b")))


def test_a_dead_process_of_this_place_loses_its_lane_at_once() -> None:
    area = area_of()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        own = this_process(run("a"))
        held = replace(own, process=process.pid, born=_born(process.pid))
        leave(area, held)
        with pytest.raises(LeaseHeld):
            taken(area, this_process(run("b")))
        process.communicate(b"\n")
    lease = Lease(area, "physical", this_process(run("b")), 3600.0)
    lease.acquire(wait=False, stop=never)
    lease.close()


def _born(process: int) -> str:
    with open(f"/proc/{process}/stat") as file:  # noqa: PTH123
        return file.read().rpartition(")")[2].split()[19]


def test_a_process_that_only_has_the_number_of_a_dead_one_does_not_hold_its_lane() -> None:
    area = area_of()
    leave(area, replace(this_process(run("a")), born="1"))
    lease = Lease(area, "physical", this_process(run("b")), 3600.0)
    lease.acquire(wait=False, stop=never)
    lease.close()


def test_a_dead_run_elsewhere_is_waited_out() -> None:
    area = area_of()
    leave(area, ANOTHER_PLACE)
    with taken(area, this_process(run("b"))) as lease:
        lease.check()


@pytest.mark.parametrize("renewed_at", ["1970-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z", "nonsense"])
def test_no_clock_decides_who_is_dead(renewed_at: str) -> None:
    area = area_of()
    leave(area, ANOTHER_PLACE, renewed_at)
    with taken(area, this_process(run("b"))) as lease:
        lease.check()
    leave(area, this_process(run("c")), renewed_at)
    with pytest.raises(LeaseHeld):
        taken(area, this_process(run("d")))


def test_waiting_takes_the_lane_when_it_is_given_back() -> None:
    area = area_of()
    first = taken(area, this_process(run("a")))
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        if len(asked) == 3:
            first.close()
        return False

    second = Lease(area, "physical", this_process(run("b")), PERIOD)
    second.acquire(wait=True, stop=stop)
    assert len(asked) >= 3
    second.close()


def test_waiting_ends_when_it_is_asked_to() -> None:
    area = area_of()
    with taken(area, this_process(run("a"))), pytest.raises(Interrupted):
        Lease(area, "physical", this_process(run("b")), PERIOD).acquire(wait=True, stop=lambda: True)


def test_a_run_notices_that_another_took_its_lane_and_leaves_it_alone() -> None:
    area = area_of()
    lease = taken(area, this_process(run("a")))
    # The renewing itself may overwrite the other's lease once: politeness, not a lock. So it is put until seen.
    assert until(lambda: leave(area, ANOTHER_PLACE) or lease.lost is not None)  # type: ignore[func-returns-value]
    with pytest.raises(LeaseHeld, match="taken over by process 4711"):
        lease.check()
    leave(area, ANOTHER_PLACE)
    before = bytes(area.store.get(lease_name(area)))
    lease.close()
    assert bytes(area.store.get(lease_name(area))) == before


def test_a_lease_that_cannot_be_renewed_is_lost() -> None:
    broken = FaultyStore(open_store(StoreSettings("memory://")), (Fault(FaultKind.EXPIRED, operation="put", skip=1),))
    area = area_of(settled(broken))
    lease = taken(area, this_process(run("a")))
    assert until(lambda: lease.lost is not None)
    with pytest.raises(Exception, match="refused"):
        lease.check()
    lease.close()


def test_a_short_failure_does_not_lose_the_lease() -> None:
    shaky = FaultyStore(
        open_store(StoreSettings("memory://")), (Fault(FaultKind.EXPIRED, operation="put", skip=1, times=1),)
    )
    area = area_of(settled(shaky))
    with taken(area, this_process(run("a"))) as lease:
        assert until(lambda: sum(point.startswith("after put") for point in shaky.points) >= 3)
        lease.check()
    assert len(shaky.struck) == 1


@pytest.mark.parametrize("garbage", [b"", b"garbage", bytes(500), bytes(1 << 20)])
def test_garbage_in_the_place_of_a_lease_holds_nobody_up(garbage: bytes) -> None:
    area = area_of()
    area.store.put(lease_name(area), garbage)
    with taken(area, this_process(run("a"))) as lease:
        lease.check()


def test_the_lease_of_another_lane_or_source_holds_nobody_up() -> None:
    area, other = area_of(), area_of(None, "shop", "customers")
    with taken(other, this_process(run("a"))), taken(area, this_process(run("b")), "logical"):
        for foreign in (other.store.get(lease_name(other)), area.store.get(lease_name(area, "logical"))):
            area.store.put(lease_name(area), foreign)
            taken(area, this_process(run("c"))).close()


def test_the_thread_that_renews_ends_with_the_lease() -> None:
    import threading

    area = area_of()
    lease = taken(area, this_process(run("a")))
    assert any(thread.name == "lease-physical" for thread in threading.enumerate())
    lease.close()
    lease.close()
    assert all(thread.name != "lease-physical" for thread in threading.enumerate())
