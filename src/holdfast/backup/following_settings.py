"""What following into repositories is told, given, and tells of itself."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from holdfast.repository.format.names import RunId
from holdfast.repository.leases import Holder, this_process
from holdfast.repository.log.carried import PERIOD_SECONDS


class Acknowledge(StrEnum):
    """When bytes count as durable: stored in every repository, or in the first of the configuration."""

    ALL = "all"
    FIRST = "first"


@dataclass(frozen=True, slots=True)
class LogSettings:
    """When spans are cut, and how much may wait in memory.

    ``held_bytes_max`` bounds what was appended and is not durable; a repository that is not waited for may lag by
    ``lag_bytes_max`` before bytes are left out there.
    """

    flush_seconds: float = 5.0
    span_bytes: int = 16 << 20
    held_bytes_max: int = 64 << 20
    lag_bytes_max: int = 32 << 20
    in_flight_max: int = 4
    level: int = 3
    acknowledge: Acknowledge = Acknowledge.ALL
    retry_seconds_first: float = 0.5
    retry_seconds_max: float = 30.0
    lease_period_seconds: float = PERIOD_SECONDS
    wait_for_lease: bool = False


@dataclass(frozen=True, slots=True)
class LogSurroundings:
    """What following is given: threads to read with, whose run it is, time, and whom to tell."""

    executor: Executor
    run: RunId
    now: Callable[[], datetime]
    on_notice: Callable[[str], None]
    stop_requested: Callable[[], bool] = lambda: False
    holder_of: Callable[[RunId], Holder] = this_process


@dataclass(frozen=True, slots=True)
class LogFigures:
    """What following has done so far, for whoever watches."""

    appended_bytes: int
    stored_bytes: int
    spans: int
    held_bytes: int
