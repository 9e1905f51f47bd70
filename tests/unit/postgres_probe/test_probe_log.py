"""What doctor says of slots, and of commits that wait for holdfast."""

from __future__ import annotations

from dataclasses import replace

from holdfast.sources.port import Severity
from holdfast.sources.postgres.probe_log import LogFacts, SlotFacts, judge_log

MIB = 1 << 20
OURS = SlotFacts("holdfast_shop_orders", True, "reserved", 20 * MIB)
FACTS = LogFacts((OURS, SlotFacts("replica", False, "lost", 0)), None, "0", "", "holdfast", 0, False)


def told(facts: LogFacts) -> list[tuple[Severity, str]]:
    return [(finding.severity, finding.message) for finding in judge_log(facts)]


def test_a_slot_that_is_followed_is_fine_and_those_of_others_are_not_judged() -> None:
    assert told(FACTS) == [(Severity.OK, "slot holdfast_shop_orders holds 20 MiB of log back")]


def test_a_slot_near_the_servers_limit_and_a_lost_one_are_warned_of() -> None:
    [(severity, message)] = told(replace(FACTS, slots=(OURS,), keep_bytes=32 * MIB))
    assert severity is Severity.WARNING
    assert "32 MiB before it is lost" in message
    [(severity, message)] = told(replace(FACTS, slots=(replace(OURS, status="lost", active=False),)))
    assert severity is Severity.WARNING
    assert "gap" in message


def test_a_slot_without_a_limit_is_warned_of_when_it_holds_much() -> None:
    [(severity, _)] = told(replace(FACTS, slots=(replace(OURS, retained_bytes=20 << 30),)))
    assert severity is Severity.WARNING


def test_a_slot_that_nobody_follows_is_told() -> None:
    [(severity, message)] = told(replace(FACTS, slots=(replace(OURS, active=False),)))
    assert severity is Severity.NOTICE
    assert "nobody follows" in message


def test_commits_that_will_wait_for_the_repository_are_warned_of() -> None:
    for names in ("*", "ANY 1 (replica, holdfast)", "holdfast"):
        findings = told(replace(FACTS, slots=(), standby_names=names))
        assert [severity for severity, _ in findings] == [Severity.WARNING], names
    assert told(replace(FACTS, slots=(), standby_names="replica")) == []


def test_an_idle_timeout_of_slots_is_told() -> None:
    [(severity, _)] = told(replace(FACTS, slots=(), idle_timeout="1h"))
    assert severity is Severity.NOTICE
