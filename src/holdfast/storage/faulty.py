"""A store that fails on command: for tests, and for sweeps that die at every step of a run."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TypeVar

from holdfast.model.errors import (
    AlreadyExists,
    Denied,
    HoldfastError,
    OutcomeUnknown,
    OutOfSpace,
    Unavailable,
)
from holdfast.storage.port import Data, ObjectInfo, Store
from holdfast.storage.short import WrongLength

POINTS_MAX = 1_000_000
HANG_SECONDS_MAX = 30.0

Result = TypeVar("Result")


class Died(BaseException):
    """Stands for the end of the process: not an error that any code may catch and go on from."""


class FaultKind(Enum):
    """What goes wrong. On a ``create``, whatever leaves the outcome open is ``OutcomeUnknown``."""

    DIE = "die"
    """The process ends here; every later call of this store ends too."""
    DIE_AFTER = "die_after"
    """The same, after the store did its work."""
    ERROR_500 = "error_500"
    ERROR_503 = "error_503"
    TIMEOUT = "timeout"
    HANG = "hang"
    """No answer until ``hang_seconds`` are over or ``release`` is called; then a time-out. Nothing is done."""
    LOST_ANSWER = "lost_answer"
    """The store does its work, and the answer is lost."""
    SHORT_BODY = "short_body"
    GARBAGE_BODY = "garbage_body"
    """A get brings other bytes, as many as asked for, and no error."""
    EXPIRED = "expired"
    """The credentials are not accepted any more."""
    NO_SPACE = "no_space"
    EXISTS_LIE = "exists_lie"
    """A create is answered "exists", and nothing is written."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of failure, and when it strikes.

    ``point`` names one place of a run by its number (see ``FaultyStore.points``), for ``DIE`` only, before or after a
    call. Otherwise it strikes calls of ``operation`` ("" is every one) whose name contains ``name_part``: after
    ``skip`` of them, at most ``times``, each with ``probability``.
    """

    kind: FaultKind
    operation: str = ""
    name_part: str = ""
    skip: int = 0
    times: int = POINTS_MAX
    probability: float = 1.0
    point: int | None = None


@dataclass(slots=True)
class _Armed:
    """A fault with its two counters."""

    fault: Fault
    seen: int = 0
    struck: int = 0

    def strikes(self, operation: str, name: str, draw: Callable[[], float]) -> bool:
        fault = self.fault
        if fault.kind is FaultKind.EXISTS_LIE and operation != "create":
            return False
        if fault.point is not None or fault.operation not in {"", operation} or fault.name_part not in name:
            return False
        self.seen += 1
        if self.seen <= fault.skip or self.struck >= fault.times or draw() >= fault.probability:
            return False
        self.struck += 1
        return True


@dataclass(slots=True)
class _Journal:
    """Every point passed and every fault struck, in order."""

    points: list[str] = field(default_factory=list)
    struck: list[str] = field(default_factory=list)


class FaultyStore:
    """A store in front of another that fails by a script; the same script, seed and calls fail the same way.

    (With several threads the order of calls, and so what is struck, is theirs.) A listing counts as one call.
    """

    def __init__(
        self, inner: Store, faults: tuple[Fault, ...] = (), *, seed: int = 0, hang_seconds: float = HANG_SECONDS_MAX
    ) -> None:
        self._inner = inner
        self._armed = [_Armed(fault) for fault in faults]
        self._deaths = {fault.point for fault in faults if fault.point is not None}
        self._random = random.Random(seed)  # noqa: S311  has to be repeatable
        self._hang_seconds = min(hang_seconds, HANG_SECONDS_MAX)
        self._released = threading.Event()
        self._lock = threading.Lock()
        self._journal = _Journal()
        self._dead = False

    @property
    def url(self) -> str:
        """The address of the store behind."""
        return self._inner.url

    @property
    def points(self) -> tuple[str, ...]:
        """The points passed so far, as "before create NAME": run once without faults, then die at each number."""
        with self._lock:
            return tuple(self._journal.points)

    @property
    def struck(self) -> tuple[str, ...]:
        """The faults that struck so far, as "error_500 create NAME"."""
        with self._lock:
            return tuple(self._journal.struck)

    @property
    def dead(self) -> bool:
        """Whether the process this stands for has ended."""
        return self._dead

    def release(self) -> None:
        """Let calls that hang come back at once, now and later."""
        self._released.set()

    def create(self, name: str, data: Data) -> None:
        """Create, or fail by the script."""
        self._run("create", name, lambda: self._inner.create(name, data))

    def put(self, name: str, data: Data | Path) -> None:
        """Put, or fail by the script."""
        self._run("put", name, lambda: self._inner.put(name, data))

    def get(self, name: str, start: int = 0, end: int | None = None) -> Data:
        """Get, or fail by the script, or bring garbage."""
        return self._run("get", name, lambda: self._inner.get(name, start, end))

    def head(self, name: str) -> ObjectInfo:
        """Head, or fail by the script."""
        return self._run("head", name, lambda: self._inner.head(name))

    def list(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """List, or fail by the script: at the start, or half-way where the answer is lost or short."""
        kind = self._enter("list", prefix)
        found = tuple(self._inner.list(prefix, after))
        for info in found[: len(found) // 2] if kind else found:
            self._check_alive()
            yield info
        self._leave("list", prefix, kind)

    def delete(self, name: str) -> None:
        """Delete, or fail by the script."""
        self._run("delete", name, lambda: self._inner.delete(name))

    def local_path(self, name: str) -> Path | None:
        """None, so that every read comes past the script."""
        self._check_alive()
        return None

    def close(self) -> None:
        """Close the store behind; allowed to the dead."""
        self._inner.close()

    def _run(self, operation: str, name: str, work: Callable[[], Result]) -> Result:
        kind = self._enter(operation, name)
        result = work()
        if kind is FaultKind.GARBAGE_BODY and isinstance(result, bytes | bytearray | memoryview):
            with self._lock:
                result = type(result)(self._random.randbytes(len(result)))
            kind = None
        self._leave(operation, name, kind)
        return result

    def _enter(self, operation: str, name: str) -> FaultKind | None:
        """Pass the point before a call: fail there, or return the kind of failure that comes after the work."""
        with self._lock:
            self._pass_point(f"before {operation} {name}")
            kind = self._strike(operation, name)
            if kind is FaultKind.DIE:
                self._die()
        if kind is FaultKind.HANG:
            self._released.wait(self._hang_seconds)
        if kind in _BEFORE_WORK:
            raise _failure(kind, operation, f"{self.url}/{name}")
        return kind

    def _leave(self, operation: str, name: str, kind: FaultKind | None) -> None:
        """Pass the point after a call; whatever strikes here strikes after the work was done."""
        with self._lock:
            if kind is FaultKind.DIE_AFTER:
                self._die()
            self._pass_point(f"after {operation} {name}")
        if kind is not None:
            raise _failure(kind, operation, f"{self.url}/{name}")

    def _pass_point(self, point: str) -> None:
        if self._dead:
            raise Died("this process has ended")
        number = len(self._journal.points)
        if number < POINTS_MAX:
            self._journal.points.append(point)
        if number in self._deaths:
            self._die()

    def _strike(self, operation: str, name: str) -> FaultKind | None:
        for armed in self._armed:
            if armed.strikes(operation, name, self._random.random):
                self._journal.struck.append(f"{armed.fault.kind.value} {operation} {name}")
                return armed.fault.kind
        return None

    def _die(self) -> None:
        self._dead = True
        raise Died("this process ends here")

    def _check_alive(self) -> None:
        if self._dead:
            raise Died("this process has ended")


_BEFORE_WORK = frozenset(
    {
        FaultKind.ERROR_500,
        FaultKind.ERROR_503,
        FaultKind.TIMEOUT,
        FaultKind.HANG,
        FaultKind.EXPIRED,
        FaultKind.NO_SPACE,
        FaultKind.EXISTS_LIE,
    }
)


def _failure(kind: FaultKind | None, operation: str, subject: str) -> HoldfastError:
    """Return what the adapter of a real store would raise."""
    if kind is FaultKind.EXPIRED:
        return Denied(f"{subject} was refused by the store (403 ExpiredToken)", hint="Renew the credentials.")
    if kind is FaultKind.NO_SPACE:
        return OutOfSpace(f"no space left for {subject}", hint="Make room there.")
    if kind is FaultKind.EXISTS_LIE:
        return AlreadyExists(f"{subject} exists already, says the store (409)")
    if kind is FaultKind.SHORT_BODY and operation == "get":
        return WrongLength(f"{subject}: fewer bytes came than were announced")
    reason = kind.value if kind else "fault"
    if operation == "create":
        return OutcomeUnknown(f"nothing tells whether {subject} was written ({reason})")
    return Unavailable(f"{subject} is not served now ({reason})")
