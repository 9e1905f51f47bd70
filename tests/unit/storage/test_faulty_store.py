"""The faulty store does what its script says, and nothing else."""

from __future__ import annotations

import pytest

from holdfast.model.errors import (
    AlreadyExists,
    Denied,
    HoldfastError,
    NotFound,
    OutcomeUnknown,
    OutOfSpace,
    Unavailable,
)
from holdfast.storage.faulty import Died, Fault, FaultKind, FaultyStore
from holdfast.storage.opening import open_store
from holdfast.storage.port import Store
from holdfast.storage.settings import StoreSettings
from holdfast.storage.short import WrongLength


def memory() -> Store:
    return open_store(StoreSettings("memory://"))


def run(store: Store) -> None:
    store.create("a", b"1")
    store.put("volatile/b", b"2")
    store.get("a")
    list(store.list(""))
    store.delete("volatile/b")


def test_without_faults_it_is_the_store_behind_and_names_its_points() -> None:
    store = FaultyStore(memory())
    run(store)
    assert store.points == (
        "before create a",
        "after create a",
        "before put volatile/b",
        "after put volatile/b",
        "before get a",
        "after get a",
        "before list ",
        "after list ",
        "before delete volatile/b",
        "after delete volatile/b",
    )
    assert store.struck == ()


@pytest.mark.parametrize("point", range(10))
def test_death_at_a_point_leaves_what_was_done_before_it_and_nothing_later(point: int) -> None:
    behind = memory()
    store = FaultyStore(behind, (Fault(FaultKind.DIE, point=point),))
    with pytest.raises(Died):
        run(store)
    assert len(store.points) == point + 1
    left = {info.name for info in behind.list("")}
    assert left == ({"a"} if point >= 1 else set()) | ({"volatile/b"} if 3 <= point <= 8 else set())


def test_the_dead_do_nothing_more() -> None:
    behind = memory()
    store = FaultyStore(behind, (Fault(FaultKind.DIE_AFTER, "create", times=1),))
    with pytest.raises(Died):
        store.create("a", b"1")
    assert store.dead
    for later in (
        lambda: store.create("b", b"2"),
        lambda: store.put("volatile/b", b"2"),
        lambda: store.get("a"),
        lambda: store.head("a"),
        lambda: list(store.list("")),
        lambda: store.delete("a"),
        lambda: store.local_path("a"),
    ):
        with pytest.raises(Died):
            later()
    assert [info.name for info in behind.list("")] == ["a"]
    store.close()


def test_death_is_no_error_that_code_would_catch() -> None:
    assert not issubclass(Died, Exception)


@pytest.mark.parametrize(
    ("kind", "error", "written"),
    [
        (FaultKind.ERROR_500, OutcomeUnknown, False),
        (FaultKind.ERROR_503, OutcomeUnknown, False),
        (FaultKind.TIMEOUT, OutcomeUnknown, False),
        (FaultKind.HANG, OutcomeUnknown, False),
        (FaultKind.LOST_ANSWER, OutcomeUnknown, True),
        (FaultKind.SHORT_BODY, OutcomeUnknown, True),
        (FaultKind.GARBAGE_BODY, OutcomeUnknown, True),
        (FaultKind.EXPIRED, Denied, False),
        (FaultKind.NO_SPACE, OutOfSpace, False),
        (FaultKind.EXISTS_LIE, AlreadyExists, False),
    ],
)
def test_fault_of_a_create(kind: FaultKind, error: type[HoldfastError], written: bool) -> None:
    behind = memory()
    store = FaultyStore(behind, (Fault(kind, times=1),), hang_seconds=0)
    with pytest.raises(error) as caught:
        store.create("a", b"1")
    assert type(caught.value) is error
    assert bool(list(behind.list(""))) == written
    assert store.struck == (f"{kind.value} create a",)


def test_fault_of_other_calls_is_unavailable_and_not_an_open_outcome() -> None:
    store = FaultyStore(memory(), (Fault(FaultKind.TIMEOUT),))
    with pytest.raises(Unavailable) as caught:
        store.get("a")
    assert not isinstance(caught.value, OutcomeUnknown)


def test_bodies_are_short_or_garbled() -> None:
    behind = memory()
    behind.create("a", b"0123456789")
    store = FaultyStore(
        behind, (Fault(FaultKind.SHORT_BODY, "get", times=1), Fault(FaultKind.GARBAGE_BODY, "get", times=1))
    )
    with pytest.raises(WrongLength):
        store.get("a")
    garbage = store.get("a", 2, 9)
    assert len(garbage) == 7
    assert garbage != b"2345678"
    assert store.get("a") == b"0123456789"


def test_faults_choose_by_operation_name_and_count() -> None:
    store = FaultyStore(memory(), (Fault(FaultKind.ERROR_503, "create", "history/", skip=1, times=1),))
    store.create("packs/1", b"")
    store.create("history/1", b"")
    with pytest.raises(OutcomeUnknown):
        store.create("history/2", b"")
    store.create("history/3", b"")
    store.get("history/3")


def test_a_released_hang_comes_back_at_once() -> None:
    store = FaultyStore(memory(), (Fault(FaultKind.HANG, times=1),), hang_seconds=3600)
    store.release()
    with pytest.raises(Unavailable):
        store.head("a")
    with pytest.raises(NotFound):
        store.head("a")


def test_the_same_seed_fails_the_same_way() -> None:
    def struck(seed: int) -> tuple[str, ...]:
        store = FaultyStore(memory(), (Fault(FaultKind.EXISTS_LIE, probability=0.3),), seed=seed)
        for number in range(100):
            try:
                store.create(str(number), b"")
            except AlreadyExists:
                continue
        return store.struck

    assert struck(1) == struck(1)
    assert struck(1) != struck(2)
    assert 10 < len(struck(1)) < 50
