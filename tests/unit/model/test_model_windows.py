"""Which moments can be reached: pure rules, from backups, stretches, generations and samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from holdfast.model.logs import Generation, Sample, Stretch
from holdfast.model.windows import (
    NO_LOG,
    NO_REASON,
    NOT_TO_ITS_END,
    Anchor,
    LogFacts,
    Reach,
    Window,
    common_reach,
    covered,
    reach_of,
)

DAY = datetime(2026, 3, 1, tzinfo=UTC)
ONE = Generation("a1" * 16, 0)
TWO = Generation("b2" * 16, 900, ONE.id, 1000)
THREE = Generation("c3" * 16, 1900, TWO.id, 2000)


def at(seconds: float) -> datetime:
    return DAY + timedelta(seconds=seconds)


def anchor(stop: int, ended: float, generation: Generation = ONE) -> Anchor:
    return Anchor(f"{stop:x}", generation.id, stop, at(ended))


def steady(start: int, end: int, step: int = 10) -> list[Sample]:
    """Return samples of a log that grows by one position a second."""
    return [Sample(at(position), position) for position in range(start, end + 1, step)]


def facts(
    *stretches: tuple[int, int], samples: Sequence[Sample] = (), reasons: dict[int, str] | None = None
) -> LogFacts:
    return LogFacts((ONE,), {ONE.id: [Stretch(*one) for one in stretches]}, {ONE.id: samples}, reasons or {})


def spoken(reach: Reach) -> list[tuple[float, float]]:
    return [((one.start - DAY).total_seconds(), (one.end - DAY).total_seconds()) for one in reach.windows]


def test_without_backups_nothing_can_be_reached() -> None:
    reach = reach_of(facts((0, 500), samples=steady(0, 500)), [])
    assert (reach.windows, reach.gaps, reach.start, reach.end) == ((), (), None, None)


def test_a_backup_without_log_is_one_moment() -> None:
    reach = reach_of(LogFacts(), [anchor(50, 55)])
    assert reach.windows == (Window(at(55), at(55), 50, 50, "32"),)
    assert spoken(reach_of(facts((200, 300), samples=steady(200, 300)), [anchor(50, 55)])) == [(55, 55)]


def test_a_window_goes_from_the_first_backup_to_the_last_second_that_is_proved() -> None:
    reach = reach_of(facts((40, 500), samples=steady(40, 500)), [anchor(50, 50), anchor(300, 300)])
    assert spoken(reach) == [(50, 499)]
    assert (reach.windows[0].start_position, reach.windows[0].end_position, reach.windows[0].backup) == (50, 500, "32")
    assert reach.gaps == ()


def test_a_sample_beyond_the_stored_end_proves_nothing() -> None:
    assert spoken(
        reach_of(facts((40, 500), samples=[Sample(at(400), 450), Sample(at(600), 501)]), [anchor(50, 50)])
    ) == [(50, 399)]


def test_an_idle_server_has_a_window_that_moves_on() -> None:
    quiet = [*steady(40, 500), Sample(at(9000), 500)]
    assert spoken(reach_of(facts((40, 500), samples=quiet), [anchor(50, 50)])) == [(50, 8999)]


def test_log_without_samples_reaches_no_further_than_its_backup() -> None:
    assert spoken(reach_of(facts((40, 500)), [anchor(50, 55)])) == [(55, 55)]


def test_a_gap_parts_the_window_until_the_next_backup() -> None:
    told = facts((0, 300), (400, 900), samples=[*steady(0, 300), *steady(400, 900)], reasons={400: "the slot was lost"})
    reach = reach_of(told, [anchor(50, 50), anchor(600, 600)])
    assert spoken(reach) == [(50, 299), (600, 899)]
    (gap,) = reach.gaps
    assert (gap.start, gap.end, gap.reason, gap.stretch) == (at(299), at(600), "the slot was lost", Stretch(300, 400))


def test_a_gap_that_nobody_told_is_told_all_the_same() -> None:
    reach = reach_of(facts((0, 300), (400, 900), samples=steady(0, 900)), [anchor(50, 50), anchor(600, 600)])
    assert reach.gaps[0].reason == NO_REASON


def test_log_behind_a_gap_without_a_backup_is_a_gap_to_this_day() -> None:
    told = facts((0, 300), (400, 900), samples=steady(0, 900), reasons={400: "the slot was lost"})
    reach = reach_of(told, [anchor(50, 50)])
    assert spoken(reach) == [(50, 299)]
    (gap,) = reach.gaps
    assert (gap.start, gap.end, gap.reason) == (at(299), at(900), "the slot was lost")


def test_backups_without_a_log_between_them_are_parted() -> None:
    reach = reach_of(LogFacts(), [anchor(50, 50), anchor(600, 600)])
    assert spoken(reach) == [(50, 50), (600, 600)]
    assert [(gap.start, gap.end, gap.reason) for gap in reach.gaps] == [(at(50), at(600), NO_LOG)]


def test_clocks_that_differ_do_not_promise_what_the_log_does_not_hold() -> None:
    """The backup ended at second 50 by the server's clock, whatever ours says."""
    for ours in (20.0, 50.0, 90.0):
        (window,) = reach_of(facts((40, 500), samples=steady(40, 500, 1)), [anchor(50, ours)]).windows
        assert at(49) <= window.start <= at(50)


def line(parent: Sequence[tuple[int, int]], child: Sequence[tuple[int, int]], **more: Sequence[Sample]) -> LogFacts:
    stretches = {ONE.id: [Stretch(*one) for one in parent], TWO.id: [Stretch(*one) for one in child]}
    return LogFacts((ONE, TWO), stretches, {ONE.id: more.get("first", ()), TWO.id: more.get("second", ())})


def test_a_window_goes_on_across_a_switch_of_generations() -> None:
    both = line([(0, 1000)], [(900, 1500)], first=steady(0, 1000), second=steady(1000, 1500))
    assert covered(both) == [Stretch(0, 1500)]
    assert spoken(reach_of(both, [anchor(50, 50)])) == [(50, 1499)]


def test_the_child_makes_up_for_what_its_parent_lacks_of_the_segment_they_share() -> None:
    both = line([(0, 930)], [(900, 1500)], first=steady(0, 930), second=steady(1000, 1500))
    assert covered(both) == [Stretch(0, 1500)]


def test_a_parent_that_was_not_stored_to_its_end_leaves_a_gap() -> None:
    both = line([(0, 800)], [(900, 1500)], first=steady(0, 800), second=steady(1000, 1500))
    reach = reach_of(both, [anchor(50, 50), anchor(1200, 1200, TWO)])
    assert spoken(reach) == [(50, 799), (1200, 1499)]
    assert (reach.gaps[0].reason, reach.gaps[0].stretch) == (NOT_TO_ITS_END, Stretch(800, 900))


def test_what_an_old_server_wrote_beyond_the_fork_does_not_count() -> None:
    both = line([(0, 1400)], [(900, 950)], first=steady(0, 1400), second=[])
    assert covered(both) == [Stretch(0, 1000)]
    assert spoken(reach_of(both, [anchor(50, 50), anchor(1200, 1200)])) == [(50, 999)]


def test_what_an_old_server_told_after_another_took_over_does_not_count() -> None:
    both = line(
        [(0, 1000)], [(900, 1100)], first=[*steady(0, 1000), Sample(at(5000), 1000)], second=[Sample(at(1050), 1050)]
    )
    assert spoken(reach_of(both, [anchor(50, 50)])) == [(50, 1049)]


def test_a_backup_of_a_line_that_was_left_does_not_count() -> None:
    other = Generation("0e" * 16, 400, ONE.id, 500)
    both = line([(0, 1000)], [(900, 1500)], first=steady(0, 1000), second=steady(1000, 1500))
    assert spoken(reach_of(replace(both, others=frozenset({other.id})), [anchor(600, 600, other)])) == []


def test_a_backup_of_before_the_log_was_followed_is_one_moment() -> None:
    never_followed = Generation("0e" * 16, 0)
    reach = reach_of(facts((400, 500), samples=steady(400, 500)), [anchor(50, 50, never_followed), anchor(450, 450)])
    assert spoken(reach) == [(50, 50), (450, 499)]


def test_a_generation_whose_log_was_never_stored_is_a_gap_in_the_line() -> None:
    told = LogFacts(
        (ONE, TWO, THREE),
        {ONE.id: [Stretch(0, 1000)], THREE.id: [Stretch(1900, 2500)]},
        {ONE.id: steady(0, 1000), THREE.id: steady(2000, 2500)},
    )
    reach = reach_of(told, [anchor(50, 50), anchor(2200, 2200, THREE)])
    assert spoken(reach) == [(50, 999), (2200, 2499)]
    assert (reach.gaps[0].stretch, reach.gaps[0].reason) == (Stretch(1000, 1900), NOT_TO_ITS_END)


def test_the_common_window_is_what_all_sources_can_reach() -> None:
    def reach(*windows: tuple[float, float]) -> Reach:
        return Reach(tuple(Window(at(start), at(end), 0, 0, "") for start, end in windows))

    assert spoken(common_reach([reach((0, 100), (200, 300)), reach((50, 250))])) == [(50, 100), (200, 250)]
    assert common_reach([reach((0, 100)), reach()]).windows == ()
    assert common_reach([]).windows == ()
    assert [gap.reason for gap in common_reach([reach((0, 100), (200, 300)), reach((50, 250))]).gaps] == [NO_REASON]


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=6),
    st.lists(st.integers(0, 80), max_size=5),
    st.lists(st.integers(0, 80), max_size=20),
)
def test_every_moment_of_a_window_has_a_backup_before_it_and_unbroken_log_to_it(
    pieces: list[tuple[int, int]], stops: list[int], sampled: list[int]
) -> None:
    told = facts(*[(start, start + size) for start, size in pieces], samples=[Sample(at(p), p) for p in sampled])
    held = {position for start, size in pieces for position in range(start, start + size)}
    reach = reach_of(told, [anchor(stop, stop) for stop in stops])
    for window in reach.windows:
        last = window.end
        # The log grows by one a second: to reach a moment, every position before it is needed from some backup on.
        needed = int((last - DAY).total_seconds())
        assert any(set(range(stop, needed)) <= held for stop in stops if at(stop) <= last)
    edges = [moment for window in reach.windows for moment in (window.start, window.end)]
    assert edges == sorted(edges)
    between = [(one.end, other.start) for one, other in zip(reach.windows, reach.windows[1:], strict=False)]
    assert [(gap.start, gap.end) for gap in reach.gaps][: len(between)] == between
