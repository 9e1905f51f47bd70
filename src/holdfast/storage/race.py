"""Whether a store really lets one writer win: many at once on one name, many times, and one after another."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum

from holdfast.model.errors import AlreadyExists, Conflict, NotFound, OutcomeUnknown
from holdfast.storage.port import VOLATILE_PREFIX, Store

RACE_THREADS = 16
RACE_ROUNDS = 20
RACE_TRIES_MAX = 3
"""How often a round is run that no one won and nothing was written in."""

PROBE_PREFIX = VOLATILE_PREFIX + "probe/"
_START_SECONDS_MAX = 60.0


@dataclass(frozen=True, slots=True)
class RaceResult:
    """What a probe saw. ``problem`` is empty where the store may be a home for several writers."""

    rounds: int
    threads: int
    winners: tuple[int, ...]
    problem: str

    @property
    def sound(self) -> bool:
        """Whether every name had one winner, who kept it."""
        return not self.problem


class _Outcome(Enum):
    WON = "won"
    LOST = "lost"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class _Round:
    winners: int
    problem: str
    decided: bool


def probe_race(
    store: Store, *, threads: int = RACE_THREADS, rounds: int = RACE_ROUNDS, token: Callable[[], str] | None = None
) -> RaceResult:
    """Let threads create one name with different content, round after round, below ``volatile/probe/``; clean up.

    Takes a bare store or a ``SettledStore`` (which rides out a store that fails now and then). Stops at the first
    round that is not sound. Raises what the store raises where it cannot be probed (``Denied``: no hard links,
    no conditional writes, no rights).
    """
    run = token() if token else secrets.token_hex(8)
    winners: list[int] = []
    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="race") as pool:
        for number in range(rounds):
            found = _decided_round(store, pool, threads, f"{PROBE_PREFIX}race-{run}-{number}")
            winners.append(found.winners)
            if found.problem:
                return RaceResult(len(winners), threads, tuple(winners), found.problem)
    problem = _second_create_problem(store, f"{PROBE_PREFIX}second-{run}")
    return RaceResult(rounds, threads, tuple(winners), problem)


def _decided_round(store: Store, pool: ThreadPoolExecutor, threads: int, name: str) -> _Round:
    for attempt in range(RACE_TRIES_MAX):
        found = _run_round(store, pool, threads, f"{name}-{attempt}")
        if found.decided:
            return found
    return _Round(0, f"{threads} writers of one name were all refused, {RACE_TRIES_MAX} times in a row", decided=True)


def _run_round(store: Store, pool: ThreadPoolExecutor, threads: int, name: str) -> _Round:
    start = threading.Barrier(threads)

    def contend(number: int) -> _Outcome:
        start.wait(_START_SECONDS_MAX)
        return _try_create(store, name, _content(name, number))

    try:
        outcomes = list(pool.map(contend, range(threads)))
        return _judge(outcomes, _held(store, name), [_content(name, number) for number in range(threads)])
    finally:
        store.delete(name)


def _judge(outcomes: list[_Outcome], held: bytes | None, contents: list[bytes]) -> _Round:
    """Compare what the threads were told with what the store holds. Pure."""
    winners = [number for number, outcome in enumerate(outcomes) if outcome is _Outcome.WON]
    if len(winners) > 1:
        return _Round(len(winners), f"{len(winners)} writers at once were told that they had created one name", True)
    if held is None:
        problem = "a create was answered with success, and nothing was there" if winners else ""
        return _Round(len(winners), problem, decided=bool(winners))
    owner = contents.index(held) if held in contents else None
    if owner is None or outcomes[owner] is _Outcome.LOST or (winners and winners[0] != owner):
        return _Round(len(winners), "the name holds what a refused writer sent, or nobody sent", decided=True)
    return _Round(1, "", decided=True)


def _second_create_problem(store: Store, name: str) -> str:
    first, second = _content(name, 1), _content(name, 2)
    try:
        if _try_create(store, name, first) is _Outcome.LOST:
            return "a create under a fresh name was refused"
        if _try_create(store, name, second) is _Outcome.WON:
            return "a second create of one name was accepted"
        if _held(store, name) == second:
            return "a second create of one name replaced the first"
        return ""
    finally:
        store.delete(name)


def _try_create(store: Store, name: str, content: bytes) -> _Outcome:
    try:
        store.create(name, content)
    except (AlreadyExists, Conflict):
        return _Outcome.LOST
    except OutcomeUnknown:
        return _Outcome.UNKNOWN
    return _Outcome.WON


def _held(store: Store, name: str) -> bytes | None:
    with contextlib.suppress(NotFound):
        return bytes(store.get(name))
    return None


def _content(name: str, number: int) -> bytes:
    return f"{name} {number}".encode()
