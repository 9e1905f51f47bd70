"""What a demo is asked for, and what it found, as values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.config.template import RepositoryAnswer
from holdfast.model.errors import ConfigInvalid

SCALE_MAX = 2000
ORDERS_PER_SCALE = 5000
BYTES_PER_SCALE = 18_000_000
"""What one unit of pgbench's scale takes in the cluster, the orders that come with it included."""

EMPTY_CLUSTER_BYTES = 90_000_000
"""What a cluster holds before there is any data, and its log."""


@dataclass(frozen=True, slots=True)
class DemoOrder:
    """How the demo is to be played.

    ``scale`` is pgbench's: the default makes a cluster of more than 500 MB. ``folder`` None chooses a temporary folder
    with room enough. ``repository`` None makes one in that folder; else a new one is made below the address given and
    removed again, with credentials from ``environment``. ``keep`` leaves folder and repository, never a server.
    """

    scale: int = 30
    keep: bool = False
    folder: Path | None = None
    repository: RepositoryAnswer | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.scale <= SCALE_MAX:
            raise ConfigInvalid(
                f"a scale of {self.scale} is out of range",
                hint=f"Choose one from 1 to {SCALE_MAX}; 30 is about 540 MB.",
            )

    @property
    def orders(self) -> int:
        """How many rows the table has that is lost."""
        return self.scale * ORDERS_PER_SCALE

    @property
    def cluster_bytes(self) -> int:
        """About how large the cluster becomes."""
        return EMPTY_CLUSTER_BYTES + self.scale * BYTES_PER_SCALE


@dataclass(frozen=True, slots=True)
class Measured:
    """One step in figures: the bytes it went over, and those it wrote into the repository. None: does not apply."""

    step: str
    seconds: float
    size_bytes: int | None = None
    stored_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """One thing that was shown. ``holds`` False makes the whole demo fail."""

    text: str
    holds: bool


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """A demo that succeeded. ``retries`` counts requests that a store did not answer at once.

    ``folder`` is what was kept, None where nothing was.
    """

    postgres_version: str
    measured: tuple[Measured, ...]
    proofs: tuple[Proof, ...]
    transactions: int
    retries: int
    seconds: float
    folder: Path | None
