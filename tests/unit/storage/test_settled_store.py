"""Retry and settling, against a memory store that fails by a script."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.model.errors import (
    Conflict,
    Denied,
    HoldfastError,
    IntegrityBroken,
    NotFound,
    OutcomeUnknown,
    OutOfSpace,
    Unavailable,
)
from holdfast.storage.faulty import Died, Fault, FaultKind, FaultyStore
from holdfast.storage.opening import open_store
from holdfast.storage.port import Data, Store
from holdfast.storage.settings import StoreSettings
from holdfast.storage.settled import Retry, RetryPolicy, SettledStore

OPEN_OUTCOMES = [
    FaultKind.ERROR_500,
    FaultKind.ERROR_503,
    FaultKind.TIMEOUT,
    FaultKind.LOST_ANSWER,
    FaultKind.EXISTS_LIE,
    FaultKind.SHORT_BODY,
]


class Bench:
    """A settled store over a faulty one over memory, with the waits and the retries it told."""

    def __init__(self, *faults: Fault, policy: RetryPolicy | None = None, seed: int = 0) -> None:
        self.memory = open_store(StoreSettings("memory://"))
        self.faulty = FaultyStore(self.memory, faults, seed=seed, hang_seconds=0)
        self.waits: list[float] = []
        self.retries: list[Retry] = []
        self.store = SettledStore(
            self.faulty, policy, self.retries.append, sleep=self.waits.append, jitter=random.Random(seed)
        )

    def calls(self, operation: str) -> int:
        return sum(point.startswith(f"before {operation} ") for point in self.faulty.points)


def test_lost_answer_of_a_create_is_settled_by_reading_back() -> None:
    bench = Bench(Fault(FaultKind.LOST_ANSWER, "create", times=1))
    bench.store.create("history/1", b"entry")
    assert bench.memory.get("history/1") == b"entry"
    assert (bench.calls("create"), bench.calls("get"), bench.retries) == (1, 1, [])


@pytest.mark.parametrize("kind", OPEN_OUTCOMES)
def test_create_with_an_open_outcome_ends_with_the_object_in_place(kind: FaultKind) -> None:
    bench = Bench(Fault(kind, "create", times=2))
    bench.store.create("history/1", b"entry")
    assert bench.memory.get("history/1") == b"entry"


def test_exists_with_nothing_written_is_tried_again() -> None:
    bench = Bench(Fault(FaultKind.EXISTS_LIE, "create", times=1))
    bench.store.create("history/1", b"entry")
    assert bench.memory.get("history/1") == b"entry"
    assert bench.calls("create") == 2
    assert [retry.operation for retry in bench.retries] == ["create"]


def test_500_whose_write_was_done_and_whose_read_back_fails_is_success_in_the_end() -> None:
    bench = Bench(Fault(FaultKind.LOST_ANSWER, "create", times=1), Fault(FaultKind.ERROR_503, "get", times=1))
    bench.store.create("history/1", b"entry")
    assert bench.calls("create") == 2
    assert bench.memory.get("history/1") == b"entry"


def test_name_taken_with_equal_bytes_is_success() -> None:
    bench = Bench()
    bench.memory.create("history/1", b"entry")
    bench.store.create("history/1", bytearray(b"entry"))
    bench.store.create("history/1", memoryview(b"entry"))


@pytest.mark.parametrize("faults", [(), (Fault(FaultKind.TIMEOUT, "create"),), (Fault(FaultKind.ERROR_500, "create"),)])
def test_name_taken_with_other_bytes_is_a_conflict_and_stays(faults: tuple[Fault, ...]) -> None:
    bench = Bench(*faults)
    bench.memory.create("history/1", b"theirs")
    with pytest.raises(Conflict):
        bench.store.create("history/1", b"ours")
    assert bench.memory.get("history/1") == b"theirs"
    assert bench.retries == []


def test_create_that_stays_open_is_outcome_unknown_after_all_tries() -> None:
    bench = Bench(Fault(FaultKind.TIMEOUT, "create"), policy=RetryPolicy(tries_max=4))
    with pytest.raises(OutcomeUnknown):
        bench.store.create("history/1", b"entry")
    assert bench.calls("create") == 4


def test_create_that_cannot_be_read_back_is_outcome_unknown() -> None:
    bench = Bench(Fault(FaultKind.LOST_ANSWER, "create"), Fault(FaultKind.ERROR_503, "get"))
    with pytest.raises(OutcomeUnknown):
        bench.store.create("history/1", b"entry")
    assert bench.memory.get("history/1") == b"entry"


@pytest.mark.parametrize(("kind", "error"), [(FaultKind.EXPIRED, Denied), (FaultKind.NO_SPACE, OutOfSpace)], ids=str)
@pytest.mark.parametrize("operation", ["create", "put", "get", "head", "list", "delete"])
def test_a_refusal_is_never_retried(kind: FaultKind, error: type[HoldfastError], operation: str) -> None:
    bench = Bench(Fault(kind, operation))
    with pytest.raises(error):
        call(bench.store, operation)
    assert bench.calls(operation) == 1
    assert bench.waits == []


def test_broken_and_absent_are_never_retried() -> None:
    class Broken(FaultyStore):
        def get(self, name: str, start: int = 0, end: int | None = None) -> Data:
            super().get(name, start, end)
            raise IntegrityBroken("rotten")

    bench = Bench()
    bench.memory.create("a", b"x")
    broken = Broken(bench.memory)
    with pytest.raises(IntegrityBroken):
        SettledStore(broken, sleep=bench.waits.append).get("a")
    with pytest.raises(NotFound):
        bench.store.get("absent")
    assert bench.waits == []
    assert broken.points.count("before get a") == 1


@pytest.mark.parametrize("operation", ["put", "get", "head", "list", "delete"])
def test_unavailable_is_retried_and_every_retry_is_told(operation: str) -> None:
    bench = Bench(Fault(FaultKind.ERROR_503, operation, times=3))
    bench.memory.create("volatile/x", b"x")
    call(bench.store, operation)
    assert [retry.try_number for retry in bench.retries] == [1, 2, 3]
    assert [retry.wait_seconds for retry in bench.retries] == bench.waits
    assert all("volatile" in retry.subject and retry.reason for retry in bench.retries)


@pytest.mark.parametrize("operation", ["create", "put", "get", "head", "list", "delete"])
def test_retries_and_their_waits_are_bounded(operation: str) -> None:
    policy = RetryPolicy(tries_max=50, wait_seconds_first=1, wait_seconds_max=8, waits_seconds_max=30)
    bench = Bench(Fault(FaultKind.ERROR_500, operation), policy=policy)
    with pytest.raises(Unavailable):
        call(bench.store, operation)
    assert 3 < len(bench.waits) < 50
    assert sum(bench.waits) <= 30
    assert max(bench.waits) <= 8
    assert bench.waits[0] <= 1
    assert len(set(bench.waits)) == len(bench.waits)


def test_a_dead_process_is_not_retried() -> None:
    bench = Bench(Fault(FaultKind.DIE, "create"))
    with pytest.raises(Died):
        bench.store.create("a", b"x")
    assert bench.waits == []


def test_sleep_may_break_off_the_waiting() -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    bench = Bench(Fault(FaultKind.ERROR_503, "get"))
    with pytest.raises(KeyboardInterrupt):
        SettledStore(bench.faulty, sleep=interrupted).get("a")


def test_a_short_read_is_read_again() -> None:
    bench = Bench(Fault(FaultKind.SHORT_BODY, "get", times=2))
    bench.memory.create("a", b"whole")
    assert bench.store.get("a") == b"whole"


def test_a_read_that_is_short_every_time_is_broken() -> None:
    bench = Bench(Fault(FaultKind.SHORT_BODY, "get"), policy=RetryPolicy(tries_max=5))
    bench.memory.create("a", b"whole")
    with pytest.raises(IntegrityBroken):
        bench.store.get("a")
    assert bench.calls("get") == 5


def test_a_read_that_is_short_only_now_and_then_is_unavailable_and_not_broken() -> None:
    faults = (Fault(FaultKind.ERROR_503, "get", times=1), Fault(FaultKind.SHORT_BODY, "get"))
    bench = Bench(*faults, policy=RetryPolicy(tries_max=5))
    bench.memory.create("a", b"whole")
    with pytest.raises(Unavailable):
        bench.store.get("a")


def test_a_listing_cut_off_is_taken_up_where_it_broke() -> None:
    bench = Bench(Fault(FaultKind.LOST_ANSWER, "list", times=3))
    wanted = [f"packs/{number:04}" for number in range(2500)]
    for name in wanted:
        bench.memory.create(name, b"")
    assert [info.name for info in bench.store.list("packs/")] == wanted
    assert len(bench.retries) == 3


def test_a_listing_that_stays_cut_off_raises_and_is_not_short() -> None:
    bench = Bench(Fault(FaultKind.ERROR_503, "list"))
    bench.memory.create("packs/1", b"")
    with pytest.raises(Unavailable):
        list(bench.store.list("packs/"))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 0.5), st.sampled_from(OPEN_OUTCOMES))
def test_create_never_comes_back_without_its_bytes_in_place(seed: int, probability: float, kind: FaultKind) -> None:
    faults = (Fault(kind, probability=probability), Fault(FaultKind.LOST_ANSWER, probability=probability))
    bench = Bench(*faults, seed=seed)
    for number in range(10):
        content = f"{number} of {seed}".encode()
        try:
            bench.store.create(f"history/{number}", content)
        except OutcomeUnknown:
            continue
        assert bench.memory.get(f"history/{number}") == content


def call(store: Store, operation: str) -> None:
    if operation == "create":
        store.create("volatile/new", b"x")
    elif operation == "put":
        store.put("volatile/x", b"x")
    elif operation == "list":
        list(store.list("volatile/"))
    else:
        getattr(store, operation)("volatile/x")
