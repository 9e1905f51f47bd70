"""The race probe tells unsound stores from sound ones, and the clock is measured rightly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from obstore.store import MemoryStore

from holdfast.model.errors import AlreadyExists
from holdfast.storage.clients import ObjectClients
from holdfast.storage.clock import measure_clock, offset_between
from holdfast.storage.faulty import Fault, FaultKind, FaultyStore
from holdfast.storage.objects import ObjectStore
from holdfast.storage.opening import open_store
from holdfast.storage.port import Data, ObjectInfo
from holdfast.storage.race import probe_race
from holdfast.storage.settings import StoreSettings
from holdfast.storage.settled import RetryPolicy, SettledStore


class Memory(ObjectStore):
    def __init__(self) -> None:
        memory = MemoryStore()
        super().__init__("memory://", ObjectClients(lambda _: memory))


class IgnoresTheCondition(Memory):
    def create(self, name: str, data: Data) -> None:
        self.delete(name)
        super().create(name, data)


class SaysExistsToAll(Memory):
    def create(self, name: str, data: Data) -> None:
        raise AlreadyExists("exists")


class ReplacesAndSaysExists(Memory):
    def create(self, name: str, data: Data) -> None:
        try:
            super().create(name, data)
        except AlreadyExists:
            self.delete(name)
            super().create(name, data)
            raise


class ForgetsWhatItTook(Memory):
    def create(self, name: str, data: Data) -> None:
        super().create(name, data)
        self.delete(name)


class OneHourAhead(Memory):
    def head(self, name: str) -> ObjectInfo:
        info = super().head(name)
        return ObjectInfo(info.name, info.size_bytes, (info.modified_at + timedelta(hours=1)).replace(microsecond=0))


def test_a_sound_store_has_one_winner_in_every_round_and_is_left_clean() -> None:
    store = Memory()
    result = probe_race(store)
    assert (result.rounds, result.threads, result.winners, result.problem) == (20, 16, (1,) * 20, "")
    assert result.sound
    assert list(store.list("")) == []


@pytest.mark.parametrize("unsound", [IgnoresTheCondition, SaysExistsToAll, ReplacesAndSaysExists, ForgetsWhatItTook])
def test_an_unsound_store_is_told_with_its_problem_and_left_clean(unsound: type[Memory]) -> None:
    store = unsound()
    result = probe_race(store, rounds=3)
    assert not result.sound
    assert result.problem
    assert list(store.list("")) == []


def test_a_store_that_fails_now_and_then_is_still_found_sound() -> None:
    memory = open_store(StoreSettings("memory://"))
    faulty = FaultyStore(
        memory, (Fault(FaultKind.LOST_ANSWER, probability=0.05), Fault(FaultKind.ERROR_500, probability=0.05)), seed=7
    )
    settled = SettledStore(faulty, RetryPolicy(tries_max=20), sleep=lambda _: None)
    assert probe_race(settled).sound
    assert faulty.struck


def test_clock_of_a_store_one_hour_ahead_is_measured() -> None:
    offset = measure_clock(OneHourAhead())
    assert offset.offset_seconds == pytest.approx(3600, abs=offset.uncertainty_seconds)
    assert offset.uncertainty_seconds < 5


def test_whole_seconds_widen_the_uncertainty_by_half_of_one() -> None:
    before = datetime(2030, 1, 1, 0, 0, 0, 400_000, UTC)
    whole = offset_between(before, before + timedelta(seconds=0.2), datetime(2030, 1, 1, tzinfo=UTC))
    assert whole.offset_seconds == pytest.approx(0.0)
    assert whole.uncertainty_seconds == pytest.approx(0.6)
    fine = offset_between(before, before + timedelta(seconds=0.2), before + timedelta(seconds=0.1, microseconds=3))
    assert fine.uncertainty_seconds < 0.12


def test_our_clock_jumping_back_in_between_does_not_make_it_certain() -> None:
    times = iter([datetime(2030, 1, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)])
    assert measure_clock(Memory(), now=lambda: next(times)).uncertainty_seconds >= 1800
