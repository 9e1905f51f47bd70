"""How far this machine's clock is from the store's."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from holdfast.storage.port import Store
from holdfast.storage.race import PROBE_PREFIX

COARSE_CLOCK_SECONDS = 0.02
"""File systems stamp with the kernel's last tick."""

WHOLE_SECOND = 1.0
"""S3 tells times in whole seconds, cut off."""


@dataclass(frozen=True, slots=True)
class ClockOffset:
    """``offset_seconds``: store's clock minus ours, true to plus or minus ``uncertainty_seconds``."""

    offset_seconds: float
    uncertainty_seconds: float


def measure_clock(
    store: Store, *, now: Callable[[], datetime] = lambda: datetime.now(UTC), token: Callable[[], str] | None = None
) -> ClockOffset:
    """Put a small object below ``volatile/probe/``, compare its time with ours around the put, and remove it.

    A put that was retried in between only widens the uncertainty. Raises what the store raises.
    """
    name = f"{PROBE_PREFIX}clock-{token() if token else secrets.token_hex(8)}"
    before = now()
    try:
        store.put(name, name.encode())
        after = now()
        stamped = store.head(name).modified_at
    finally:
        store.delete(name)
    return offset_between(before, after, stamped)


def offset_between(before: datetime, after: datetime, stamped: datetime) -> ClockOffset:
    """Return the offset for an object stamped somewhere between two moments of ours. Pure."""
    grain = WHOLE_SECOND if stamped.microsecond == 0 else COARSE_CLOCK_SECONDS
    half_way_seconds = (after - before).total_seconds() / 2
    offset = (stamped - before).total_seconds() + grain / 2 - half_way_seconds
    return ClockOffset(offset, abs(half_way_seconds) + grain / 2)
