"""A whole backup over a store that fails: a clear error in finite time, nothing wrong listed, then all is well."""

from __future__ import annotations

import pytest
from tests.faults.backup.whole_backups import World, make, objects_of, settled, store_with

from holdfast.model.errors import (
    Conflict,
    Denied,
    HoldfastError,
    IntegrityBroken,
    OutcomeUnknown,
    OutOfSpace,
    Unavailable,
)
from holdfast.sources.port import Tier
from holdfast.storage.faulty import Fault, FaultKind, FaultyStore
from holdfast.storage.port import Store

PLACES = {
    "pack": ("create", "/packs/"),
    "entry": ("create", "/history/"),
    "reading": ("get", "areas/"),
    "listing": ("list", "/packs/"),
    "lease": ("put", "/leases/"),
}
LASTING = {
    FaultKind.ERROR_500: Unavailable,
    FaultKind.ERROR_503: Unavailable,
    FaultKind.TIMEOUT: Unavailable,
    FaultKind.HANG: Unavailable,
    FaultKind.EXPIRED: Denied,
    FaultKind.NO_SPACE: OutOfSpace,
}


def repository_with_a_backup(world: World) -> Store:
    store = store_with({})
    make(store)
    world.backup(store, 1)
    return store


def require_well_again(world: World, store: Store, backups: int) -> None:
    """Require that nothing wrong is listed, and that the next backup works and everything is whole after it."""
    assert len(world.require_sound(store)) == backups
    world.backup(store, 3, Tier.INCREMENTAL)
    assert len(world.require_sound(store)) == backups + 1
    assert world.check(store).findings == ()


@pytest.mark.parametrize(
    ("kind", "place"),
    [*((kind, "pack") for kind in LASTING), *((FaultKind.ERROR_503, place) for place in PLACES if place != "pack")],
)
def test_a_failure_that_lasts_is_told_and_leaves_no_backup(world: World, kind: FaultKind, place: str) -> None:
    store = repository_with_a_backup(world)
    operation, part = PLACES[place]
    failing = FaultyStore(store, (Fault(kind, operation, part),), hang_seconds=0.01)
    with pytest.raises(LASTING[kind]) as caught:
        world.backup(failing, 2, Tier.INCREMENTAL)
    assert caught.value.exit_code == 1
    require_well_again(world, store, 1)


@pytest.mark.parametrize("place", ["pack", "entry"])
def test_an_answer_that_is_always_lost_is_settled_by_reading_back(world: World, place: str) -> None:
    store = repository_with_a_backup(world)
    failing = FaultyStore(store, (Fault(FaultKind.LOST_ANSWER, *PLACES[place]),))
    world.backup(failing, 2, Tier.INCREMENTAL)
    assert failing.struck
    require_well_again(world, store, 2)


def test_a_store_that_says_exists_and_writes_nothing_is_no_success(world: World) -> None:
    store = repository_with_a_backup(world)
    failing = FaultyStore(store, (Fault(FaultKind.EXISTS_LIE, "create", "/history/"),))
    with pytest.raises(OutcomeUnknown):
        world.backup(failing, 2)
    require_well_again(world, store, 1)


@pytest.mark.parametrize("kind", [FaultKind.ERROR_500, FaultKind.TIMEOUT, FaultKind.LOST_ANSWER, FaultKind.SHORT_BODY])
@pytest.mark.parametrize("seed", range(3))
def test_failures_now_and_then_are_ridden_out(world: World, kind: FaultKind, seed: int) -> None:
    store = repository_with_a_backup(world)
    failing = FaultyStore(store, (Fault(kind, probability=0.15),), seed=seed)
    world.backup(failing, 2)
    world.require_sound(settled(failing))
    assert failing.struck
    require_well_again(world, store, 2)


@pytest.mark.parametrize(
    "part", ["/history/", "/packs/", "identity", "store", "slots/", "catalog/", "/index/", "/leases/"]
)
@pytest.mark.parametrize("tier", [Tier.FULL, Tier.INCREMENTAL])
def test_answers_of_garbage_never_become_a_wrong_backup(world: World, part: str, tier: Tier) -> None:
    store = repository_with_a_backup(world)
    failing = FaultyStore(store, (Fault(FaultKind.GARBAGE_BODY, "get", part),), seed=7)
    backups = 1
    try:
        world.backup(failing, 2, tier)
    except HoldfastError as error:
        # What cannot be read is told as broken: the store gave no error.
        assert isinstance(error, IntegrityBroken), error
        assert error.hint
    else:
        backups += 1
    require_well_again(world, store, backups)


@pytest.mark.parametrize("part", ["/history/", "/packs/"])
@pytest.mark.parametrize("kind", [FaultKind.GARBAGE_BODY, FaultKind.SHORT_BODY, FaultKind.ERROR_500, FaultKind.EXPIRED])
def test_a_restore_over_a_store_that_fails_gives_right_bytes_or_an_error(
    world: World, kind: FaultKind, part: str
) -> None:
    store = repository_with_a_backup(world)
    failing = FaultyStore(store, (Fault(kind, "get", part),), seed=3)
    with pytest.raises((IntegrityBroken, Unavailable, Denied)):
        world.require_sound(settled(failing))
    sometimes = FaultyStore(store, (Fault(kind, "get", part, skip=3, probability=0.2),), seed=3)
    with_luck: list[object] = []
    try:
        with_luck += world.require_sound(settled(sometimes))
    except (IntegrityBroken, Unavailable, Denied) as error:
        assert error.hint
    assert len(world.require_sound(store)) == 1


def test_expired_credentials_are_denied_with_a_hint_and_are_not_tried_again(world: World) -> None:
    store = repository_with_a_backup(world)
    failing = FaultyStore(store, (Fault(FaultKind.EXPIRED, "create", "/packs/"),))
    with pytest.raises(Denied) as caught:
        world.backup(failing, 2)
    assert "credentials" in caught.value.hint.lower()
    # Two uploaders may be refused at the same time; neither of them asks twice.
    assert len(failing.struck) <= 2


def test_a_run_record_that_cannot_be_kept_does_not_change_the_outcome(world: World) -> None:
    store = repository_with_a_backup(world)
    failing = FaultyStore(store, (Fault(FaultKind.NO_SPACE, "create", "/runs/"),))
    lost: list[HoldfastError] = []
    world.backup(failing, 2, on_lost_record=lost.append)
    assert [type(error) for error in lost] == [OutOfSpace]
    require_well_again(world, store, 2)


def test_an_index_that_cannot_be_saved_is_a_notice(world: World) -> None:
    store = repository_with_a_backup(world)
    failing = FaultyStore(store, (Fault(FaultKind.NO_SPACE, "put", "/index/"),))
    taken = world.backup(failing, 2)
    assert any("index could not be saved" in notice for notice in taken.notices)
    require_well_again(world, store, 2)


def test_a_history_number_that_is_taken_by_garbage_stops_backups_and_harms_nothing(world: World) -> None:
    store = repository_with_a_backup(world)
    objects = objects_of(store)
    entry = next(name for name in objects if "/history/" in name)
    taken = store_with({**objects, entry.replace("000000000001", "000000000002"): b"garbage"})
    with pytest.raises((IntegrityBroken, Conflict)) as caught:
        world.backup(settled(taken), 2)
    assert caught.value.hint
