"""Retry, and the settling of creates: the only place where a store is asked twice."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type

from holdfast.model.errors import AlreadyExists, Conflict, IntegrityBroken, NotFound, OutcomeUnknown, Unavailable
from holdfast.storage.port import Data, ObjectInfo, Store
from holdfast.storage.short import WrongLength

LIST_STEP = 1000
"""Objects of a listing fetched between two moments at which the count of tries begins anew."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Bounds of retrying one call: tries, the sum of the waits between them, and the time it all takes.

    The wait before try n+1 is a random part, half at least, of ``wait_seconds_first`` doubled n-1 times. The last try
    may begin just before ``elapsed_seconds_max`` and still take the time limit of its request.
    """

    tries_max: int = 10
    wait_seconds_first: float = 0.2
    wait_seconds_max: float = 20.0
    waits_seconds_max: float = 120.0
    elapsed_seconds_max: float = 1800.0


@dataclass(frozen=True, slots=True)
class Retry:
    """One failed try that will be followed by another, for whoever watches."""

    operation: str
    subject: str
    try_number: int
    wait_seconds: float
    reason: str


def ignore_retry(_: Retry) -> None:
    """Watch nothing."""


class SettledStore:
    """A store whose calls are retried while it is ``Unavailable``, within bounds, each retry being told.

    ``create`` comes back only when the object bears exactly these bytes; it raises ``Conflict`` where it bears others,
    and ``OutcomeUnknown`` where that could not be found out in time: the object may then exist or appear later.
    ``sleep`` may raise to break off.
    """

    def __init__(
        self,
        store: Store,
        policy: RetryPolicy | None = None,
        on_retry: Callable[[Retry], None] = ignore_retry,
        *,
        sleep: Callable[[float], None] = time.sleep,
        jitter: random.Random | None = None,
    ) -> None:
        self._store = store
        self._policy = policy or RetryPolicy()
        self._on_retry = on_retry
        self._sleep = sleep
        self._jitter = jitter or random.Random()  # noqa: S311  spreads waits, guards nothing

    @property
    def url(self) -> str:
        """The address of the store below."""
        return self._store.url

    def create(self, name: str, data: Data) -> None:
        """Put the object under a free name and settle the outcome by reading back; the same bytes go out every time.

        Once it has come back, or raised ``Conflict``, nothing is open. Raises ``Conflict``, ``OutcomeUnknown``.
        """
        unsure: list[Exception] = []

        def attempt() -> None:
            try:
                self._store.create(name, data)
            except (AlreadyExists, OutcomeUnknown) as error:
                unsure.append(error)
                self._settle(name, data, error)

        try:
            self._again("create", name, attempt)
        except Unavailable as error:
            if not unsure or isinstance(error, OutcomeUnknown):
                raise
            raise OutcomeUnknown(f"nothing tells whether {self._subject(name)} was written", hint=error.hint) from error

    def put(self, name: str, data: Data | Path) -> None:
        """Put or replace an object below ``volatile/``; of two puts at once either may last."""
        self._again("put", name, lambda: self._store.put(name, data))

    def get(self, name: str, start: int = 0, end: int | None = None) -> Data:
        """Read bytes ``[start, end)``. An answer of the wrong length every time is ``IntegrityBroken``."""
        other_failures = 0

        def attempt() -> Data:
            nonlocal other_failures
            try:
                return self._store.get(name, start, end)
            except WrongLength:
                raise
            except Unavailable:
                other_failures += 1
                raise

        try:
            return self._again("get", name, attempt)
        except WrongLength as error:
            if other_failures:
                raise
            raise IntegrityBroken(
                error.message, hint="It came so every time: run `holdfast check --read-data` and bring in another copy."
            ) from error

    def head(self, name: str) -> ObjectInfo:
        """Facts of one object. Raises ``NotFound``."""
        return self._again("head", name, lambda: self._store.head(name))

    def list(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """List in name order; where it breaks off it is taken up again after the last object told."""
        place = after
        stream: Iterator[ObjectInfo] | None = None
        gathered: list[ObjectInfo] = []

        def step() -> None:
            nonlocal stream, place
            if stream is None:
                stream = self._store.list(prefix, place)
            try:
                for info in islice(stream, LIST_STEP - len(gathered)):
                    gathered.append(info)
                    place = info.name
            except Unavailable:
                stream = None
                raise

        while True:
            self._again("list", prefix, step)
            yield from gathered
            if len(gathered) < LIST_STEP:
                return
            gathered.clear()

    def delete(self, name: str) -> None:
        """Remove an object; one that is absent already is fine."""
        self._again("delete", name, lambda: self._store.delete(name))

    def local_path(self, name: str) -> Path | None:
        """The object's file where the store below has one."""
        return self._store.local_path(name)

    def close(self) -> None:
        """Close the store below."""
        self._store.close()

    def _subject(self, name: str) -> str:
        return f"{self.url}/{name}"

    def _settle(self, name: str, data: Data, error: AlreadyExists | OutcomeUnknown) -> None:
        """Come back if the object is ours; raise ``Conflict`` if it is not, ``OutcomeUnknown`` if there is none yet."""
        try:
            held = self._store.get(name)
        except NotFound:
            raise OutcomeUnknown(
                f"{self._subject(name)} is not there although the store did not refuse it plainly",
                hint=error.hint or "The store contradicts itself; run the command again once it is quiet.",
            ) from error
        if held != data:
            raise Conflict(
                f"{self._subject(name)} exists with other content",
                hint="Another writer was there first; see who else backs up into this repository, then run it again.",
            ) from error

    def _again(self, operation: str, name: str, attempt: Callable[[], Result]) -> Result:
        def tell(state: RetryCallState) -> None:
            reason = str(state.outcome.exception()) if state.outcome else ""
            self._on_retry(Retry(operation, self._subject(name), state.attempt_number, state.upcoming_sleep, reason))

        retrying = Retrying(
            retry=retry_if_exception_type(Unavailable),
            wait=self._wait_seconds,
            stop=self._is_used_up,
            before_sleep=tell,
            sleep=self._sleep,
            reraise=True,
        )
        return retrying(attempt)

    def _wait_seconds(self, state: RetryCallState) -> float:
        policy = self._policy
        longest = min(policy.wait_seconds_max, policy.wait_seconds_first * 2.0 ** min(state.attempt_number - 1, 30))
        return longest * self._jitter.uniform(0.5, 1.0)

    def _is_used_up(self, state: RetryCallState) -> bool:
        policy = self._policy
        return (
            state.attempt_number >= policy.tries_max
            or state.idle_for + state.upcoming_sleep > policy.waits_seconds_max
            or (state.seconds_since_start or 0.0) + state.upcoming_sleep > policy.elapsed_seconds_max
        )
