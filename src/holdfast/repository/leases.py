"""Leases: they save double work between runs of one lane and guarantee nothing (docs/format.md, section 10)."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from holdfast.model.documents import JsonObject, encode_document, format_time
from holdfast.model.errors import (
    HoldfastError,
    IntegrityBroken,
    Interrupted,
    KeyInvalid,
    LeaseHeld,
    NotFound,
    Unavailable,
)
from holdfast.repository.area import Area
from holdfast.repository.format import names
from holdfast.repository.format.container import ObjectType
from holdfast.repository.format.names import RunId

PERIOD_SECONDS = 15.0
STALE_PERIODS = 3
LOOK_SECONDS = 1.0
WAIT_SECONDS_MAX = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose lease it is; ``place`` is the same for processes that can see each other."""

    run: RunId
    host: str
    place: str
    process: int
    born: str = ""


def this_process(run: RunId) -> Holder:
    return Holder(run, socket.gethostname(), _place(), os.getpid(), _born(os.getpid()))


def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _born(process: int) -> str:
    """Return when a process of this place started, in the kernel's ticks; empty where it does not run."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _lives_here(holder: Holder) -> bool | None:
    """Whether the holder runs, None where that cannot be seen from here. A process id alone may be another's by now."""
    if not holder.place or holder.place != _place() or not holder.born:
        return None
    return _born(holder.process) == holder.born


@dataclass(frozen=True, slots=True)
class LeaseView:
    """A lease as it lies in the store. ``mark`` changes with each renewal."""

    holder: Holder | None
    held: bool
    mark: bytes


def carry_nothing() -> JsonObject | None:
    """Carry nothing."""
    return None


def read_carried_document(area: Area, lane: str) -> JsonObject | None:
    """Return what the lease of a lane carries, held or given back; None where it carries nothing or does not open."""
    try:
        carried = _read_document(area, lane).get("carried")
    except (NotFound, IntegrityBroken, KeyInvalid, ValueError, AttributeError):
        return None
    return carried if isinstance(carried, dict) else None


def _read_document(area: Area, lane: str) -> JsonObject:
    data = area.fetch(f"the lease {lane}", ObjectType.LEASE, names.lease(area.keys.area, lane))
    document: JsonObject = json.loads(
        area.open(f"the lease {lane}", area.claim(ObjectType.LEASE, lane.encode()), data)[0]
    )
    return document


class Lease:
    """Holds one lane for a run and renews it on a thread of its own until closed.

    ``carry`` gives what each renewal tells beside. One that ``endures`` is not lost because the store is away for
    long, only because another took it.
    """

    def __init__(
        self,
        area: Area,
        lane: str,
        holder: Holder,
        period_seconds: float = PERIOD_SECONDS,
        *,
        carry: Callable[[], JsonObject | None] = carry_nothing,
        endures: bool = False,
    ) -> None:
        self._carry = carry
        self._endures = endures
        self._area = area
        self._name = names.lease(area.keys.area, lane)
        self._lane = lane
        self._holder = holder
        self._period = period_seconds
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._mark = b""
        self.lost: HoldfastError | None = None

    def _look(self) -> LeaseView | None:
        try:
            data = self._area.fetch(f"the lease {self._lane}", ObjectType.LEASE, self._name)
            claim = self._area.claim(ObjectType.LEASE, self._lane.encode())
            document = json.loads(self._area.open(f"the lease {self._lane}", claim, data)[0])
            holder = Holder(
                RunId(document["holder"]),
                document["host"],
                document["place"],
                int(document["process"]),
                document["born"],
            )
            return LeaseView(holder, document["state"] == "held", bytes(data[-32:]))
        except NotFound:
            return None
        except (IntegrityBroken, KeyInvalid, ValueError, KeyError, TypeError):
            return None  # nobody's lease: it is only politeness, and will be replaced

    def _put(self, state: str) -> None:
        document: JsonObject = {
            "holder": self._holder.run,
            "host": self._holder.host,
            "place": self._holder.place,
            "process": self._holder.process,
            "born": self._holder.born,
            "state": state,
            "renewed_at": format_time(datetime.now(UTC)),
        }
        carried = self._carry()
        if carried is not None:
            document["carried"] = carried
        claim = self._area.claim(ObjectType.LEASE, self._lane.encode())
        data, self._mark = self._area.seal(claim, [encode_document(document)])
        self._area.store.put(self._name, data)

    def acquire(self, *, wait: bool, stop: Callable[[], bool]) -> None:
        """Take the lane: at once, or when a dead holder was waited out; raises ``LeaseHeld`` where it lives.

        A holder is alive when it renews while we look; it is dead after three periods without. By our own waiting and
        not by any clock, so that a wrong one costs nothing.
        """
        waited_since = time.monotonic()
        seen, since = self._look(), time.monotonic()
        while seen is not None and seen.held and seen.holder is not None and _lives_here(seen.holder) is not False:
            if _lives_here(seen.holder) and not wait:
                raise self._held(seen)
            if time.monotonic() - since > STALE_PERIODS * self._period:
                break
            if time.monotonic() - waited_since > WAIT_SECONDS_MAX or stop():
                raise Interrupted(f"stopped while waiting for the lease of {self._area.title}")
            time.sleep(min(LOOK_SECONDS, self._period / 5))
            now = self._look()
            if now is not None and now.held and now.mark != seen.mark and not wait:
                raise self._held(now)
            if now is None or now.mark != seen.mark:
                seen, since = now, time.monotonic()
        self._put("held")
        self._thread = threading.Thread(target=self._renew, name=f"lease-{self._lane}", daemon=True)
        self._thread.start()

    def _held(self, view: LeaseView) -> LeaseHeld:
        who = view.holder
        assert who is not None
        return LeaseHeld(
            f"another {self._lane} run of {self._area.title} is alive: process {who.process} on {who.host}",
            hint="Wait for it (`--wait`), or stop it; a dead run's lease ends by itself after "
            f"{int(STALE_PERIODS * self._period)} seconds.",
        )

    def _renew(self) -> None:
        failures_since: float | None = None
        while not self._stop.wait(self._period):
            try:
                seen = self._look()
                if seen is not None and seen.holder is not None and seen.holder.run != self._holder.run and seen.held:
                    self.lost = LeaseHeld(
                        f"the lease of {self._area.title} was taken over by process {seen.holder.process} on "
                        f"{seen.holder.host}",
                        hint="This run was slower than its lease allows, or a clock jumped. Run the command again.",
                    )
                    return
                self._put("held")
                failures_since = None
            except HoldfastError as error:
                if self._endures and isinstance(error, Unavailable):
                    continue
                failures_since = failures_since or time.monotonic()
                if time.monotonic() - failures_since > STALE_PERIODS * self._period:
                    self.lost = error
                    return

    def check(self) -> None:
        """Raise what lost the lease, if it is lost."""
        if self.lost is not None:
            raise self.lost

    def abandon(self) -> None:
        """Renew no more and leave the lane as it is, to be taken when it is stale: for a store that is away."""
        self._stop.set()
        self._thread = None

    def close(self) -> None:
        """Give the lane back. May be repeated."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=60)
            self._thread = None
            if self.lost is None:
                self._put("free")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except HoldfastError:
            # The lane frees itself when the lease is stale; the run's own outcome is what counts.
            self._thread = None
