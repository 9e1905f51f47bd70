"""The explicit list of kinds of source that this release captures and refills."""

from __future__ import annotations

from dataclasses import dataclass

POSTGRES = "postgres"
CAPTURED_KINDS = (POSTGRES,)


@dataclass(frozen=True, slots=True)
class Lane:
    """How a kind is captured: the form of its backups and the lane whose lease a capture takes."""

    form: str
    lane: str


PHYSICAL = Lane("physical", "physical")
LOGICAL = Lane("logical", "logical")
LANES = {lane.form: lane for lane in (PHYSICAL, LOGICAL)}
