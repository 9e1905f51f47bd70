"""What the follower's lease carries: how far the log had got, and when, of a server that writes nothing."""

from __future__ import annotations

from holdfast.model.documents import JsonObject, format_time, parse_time
from holdfast.model.logs import Sample
from holdfast.repository.area import Area
from holdfast.repository.format.log import parse_position, position_text
from holdfast.repository.leases import read_carried_document

LANE = "log"
PERIOD_SECONDS = 60.0
KEY = "log"


def carried_document(generation: str, sample: Sample) -> JsonObject:
    """Return what the lease carries: at a moment, by the server's clock, the log of a generation ended there."""
    return {"generation": generation, "end": position_text(sample.position), "at": format_time(sample.at)}


def read_carried(area: Area) -> tuple[str, Sample] | None:
    """Return generation and sample that the lease of the log lane carries, held or given back; None without any."""
    found = read_carried_document(area, LANE)
    try:
        if found is None:
            return None
        return str(found["generation"]), Sample(parse_time(str(found["at"])), parse_position(found["end"]))
    except (ValueError, KeyError, TypeError):
        return None
