"""A process that dies at any step of any write path: nothing listed is broken, nothing is harmed, the next one works.

Every death is before or after one call to the store, in the middle of a real run. The full sweep is in ``make soak``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from tests.faults.backup.whole_backups import (
    KEY,
    Objects,
    World,
    area_of,
    dead_here,
    digests_of,
    far_away,
    ignore,
    make,
    objects_of,
    settled,
    store_with,
)

from holdfast.model.errors import RepositoryAbsent
from holdfast.repository.checking import check_area
from holdfast.repository.format import names
from holdfast.repository.format.names import RunId
from holdfast.repository.leases import PERIOD_SECONDS, Holder
from holdfast.repository.repository import open_repository, rotate
from holdfast.sources.port import Tier
from holdfast.storage.faulty import Died, Fault, FaultKind, FaultyStore
from holdfast.storage.port import Store

SWEEP_DEATHS_MIN = 200
SAMPLED = {"init": 8, "full": 16, "incremental": 16, "rotate": 8, "check": 8, "full of another host": 5}
SEED = 20260101


Act = Callable[[World, Store], None]


@dataclass(frozen=True, slots=True)
class Path:
    """One way of writing: what is there before, and what is done."""

    prepare: Act
    act: Act


def nothing(_: World, __: Store) -> None:
    """Leave the store empty."""


def one_backup(world: World, store: Store) -> None:
    make(store)
    world.backup(store, 1)


def two_backups_without_index(world: World, store: Store) -> None:
    one_backup(world, store)
    world.backup(store, 2, Tier.INCREMENTAL)
    for info in list(store.list(names.index(area_of(store).keys.area))):
        store.delete(info.name)


def dying_backup(tier: Tier, version: int, holder: Callable[[RunId], Holder] = dead_here) -> Act:
    def act(world: World, store: Store) -> None:
        world.backup(store, version, tier, holder_of=holder, lease_period_seconds=PERIOD_SECONDS)

    return act


def check(world: World, store: Store) -> None:
    check_area(area_of(store), world.executor, None, ignore, 100.0)


def rotate_key(_: World, store: Store) -> None:
    rotate(open_repository(store, [KEY]), datetime.now(UTC))


PATHS = {
    "init": Path(nothing, lambda _, store: make(store) and None),
    "full": Path(lambda _, store: make(store) and None, dying_backup(Tier.FULL, 1)),
    "incremental": Path(one_backup, dying_backup(Tier.INCREMENTAL, 2)),
    "full of another host": Path(one_backup, dying_backup(Tier.FULL, 2, far_away)),
    "rotate": Path(one_backup, rotate_key),
    "check": Path(two_backups_without_index, check),
}


def prepared(world: World, path: Path) -> Objects:
    store = store_with({})
    path.prepare(world, store)
    return objects_of(store)


def points_of(world: World, path: Path, before: Objects) -> int:
    world.move_to_a_new_host()
    store = FaultyStore(store_with(before))
    path.act(world, settled(store))
    return len(store.points)


def die_at(world: World, path: Path, before: Objects, point: int) -> Store | None:
    """Run until the death at a point; return what is left, or None where this run came to its end before it."""
    world.move_to_a_new_host()
    left = store_with(before)
    dying = FaultyStore(left, (Fault(FaultKind.DIE, point=point),))
    with suppress(Died):
        path.act(world, settled(dying))
    return left if dying.dead else None


def require_unharmed(before: Objects, left: Store) -> None:
    """Require that what was stored is stored still; only a rotation may take slots away, once their heirs count."""
    after = digests_of(objects_of(left))
    for name, digest in digests_of(before).items():
        if name.startswith(names.SLOTS) and any(other.startswith(names.EPOCHS) for other in after):
            continue
        assert after.get(name) == digest, f"{name} was harmed"


def require_survived(world: World, before: Objects, left: Store) -> None:
    require_unharmed(before, left)
    try:
        listed = world.require_sound(left)
    except RepositoryAbsent:
        listed = []
        assert "identity" not in before
        make(left)
    # Nobody helps: the next run meets the store exactly as the dead one left it.
    taken = world.backup(settled(left), 3, random.Random(len(listed)).choice([Tier.FULL, Tier.INCREMENTAL]))
    assert taken.notices == ()
    require_unharmed(before, left)
    records = world.require_sound(left)
    assert [record.id for record in records] == [*(record.id for record in listed), taken.record.id]
    assert world.check(left).findings == ()
    assert world.require_sound(left) == records


def sweep(world: World, name: str, points: Iterator[int] | range | list[int], before: Objects) -> int:
    deaths = 0
    for point in points:
        left = die_at(world, PATHS[name], before, point)
        if left is not None:
            deaths += 1
            require_survived(world, before, left)
    return deaths


@pytest.mark.parametrize("name", PATHS)
def test_a_death_at_a_sampled_step_harms_nothing_and_the_next_run_works(world: World, name: str) -> None:
    before = prepared(world, PATHS[name])
    points = points_of(world, PATHS[name], before)
    chosen = sorted(random.Random(f"{SEED} {name}").sample(range(points), min(points, SAMPLED[name])))
    # Threads take turns differently each time: a point near the end of one run may lie behind the end of another.
    assert sweep(world, name, chosen, before) >= len(chosen) - 2


@pytest.mark.soak
def test_a_death_at_any_step_harms_nothing_and_the_next_run_works(world: World) -> None:
    deaths = 0
    for name, path in PATHS.items():
        before = prepared(world, path)
        deaths += sweep(world, name, range(points_of(world, path, before)), before)
    assert deaths >= SWEEP_DEATHS_MIN


def test_many_deaths_in_a_row_leave_nothing_that_hinders_the_next_run(world: World) -> None:
    left = store_with({})
    make(left)
    first = world.backup(left, 1).record
    chance = random.Random(SEED)
    for version in range(2, 8):
        dying = FaultyStore(left, (Fault(FaultKind.DIE, point=chance.randrange(14, 40)),))
        with suppress(Died):
            dying_backup(chance.choice([Tier.FULL, Tier.INCREMENTAL]), version)(world, settled(dying))
        assert dying.dead
    last = world.backup(settled(left), 9).record
    assert [record.id for record in world.require_sound(left)] == [first.id, last.id]
    assert world.check(left).findings == ()
