"""Generations and spans of a log as documents and frames (docs/format.md, section 11)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from holdfast.model.documents import JsonObject, JsonValue, encode_document, format_time, parse_time
from holdfast.model.logs import Generation, Sample
from holdfast.repository.format.container import Frame, broken
from holdfast.repository.format.names import SpanName

POSITION_MAX = (1 << 64) - 1
FRAME_BYTES = 1 << 20
SPAN_BYTES_MAX = 64 << 20
"""How many positions one span may hold."""

SAMPLES_MAX = 64
SPAN_ROW_BYTES = 64
REASON_LENGTH_MAX = 500
FACT_LENGTH_MAX = 256

_GENERATION = re.compile("[0-9a-f]{32}")
_POSITION = re.compile("[0-9a-f]{16}")


def position_text(position: int) -> str:
    """Return a position as names and documents write it: 16 hexadecimal digits."""
    return f"{position:016x}"


def parse_position(text: object) -> int:
    """Read what ``position_text`` wrote; raises ValueError."""
    if not isinstance(text, str) or _POSITION.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not a position")
    return int(text, 16)


def generation_claim(generation: str) -> bytes:
    return bytes.fromhex(generation)


def span_claim(span: SpanName) -> bytes:
    return bytes.fromhex(span.generation) + span.start.to_bytes(8, "little") + span.end.to_bytes(8, "little")


def span_row(span: SpanName) -> bytes:
    """Return the 64 bytes by which a history entry names a span."""
    return span_claim(span) + bytes.fromhex(span.digest)


def parse_span_row(row: bytes) -> SpanName:
    start, end = int.from_bytes(row[16:24], "little"), int.from_bytes(row[24:32], "little")
    return SpanName(row[:16].hex(), start, end, row[32:64].hex())


def check_generation(generation: Generation) -> None:
    """Raise ValueError for a generation that cannot be stored (a fault of the caller)."""
    forked = generation.parent is not None
    sound = (
        _GENERATION.fullmatch(generation.id) is not None
        and (not forked or _GENERATION.fullmatch(str(generation.parent)) is not None)
        and generation.parent != generation.id
        and forked == (generation.fork is not None)
        and 0 <= generation.begins <= POSITION_MAX
        and (generation.fork is None or generation.begins <= generation.fork <= POSITION_MAX)
    )
    if not sound:
        raise ValueError(f"{generation} is no generation of a log")


def encode_generation(generation: Generation, created_at: datetime) -> bytes:
    """Return the document of a generation; raises ValueError for one that is impossible."""
    check_generation(generation)
    return encode_document(
        {
            "id": generation.id,
            "begins": position_text(generation.begins),
            "parent": generation.parent,
            "fork": position_text(generation.fork) if generation.fork is not None else None,
            "details": generation.details,
            "created_at": format_time(created_at),
        }
    )


def parse_generation(what: str, document: bytes) -> tuple[Generation, datetime]:
    """Read a generation and when it was stored; raises ``IntegrityBroken``."""
    try:
        found = json.loads(document)
        fork = found["fork"]
        generation = Generation(
            str(found["id"]),
            parse_position(found["begins"]),
            found["parent"],
            parse_position(fork) if fork is not None else None,
            dict(found["details"]),
        )
        check_generation(generation)
        return generation, parse_time(found["created_at"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise broken(what, "it cannot be read") from error


@dataclass(frozen=True, slots=True)
class SpanHeader:
    """What a span tells beside its bytes.

    ``samples`` are in order of time, at most ``SAMPLES_MAX``, with positions from the span's start to its end, both
    included. ``gap`` says why the bytes before the span are missing. ``merged`` counts the spans it was made of, 0 for
    one as it was received. ``identity`` are the facts of whose log it is.
    """

    samples: tuple[Sample, ...]
    gap: str | None
    identity: JsonObject
    received_at: datetime
    merged: int = 0


def identity_of(generation: Generation) -> JsonObject:
    """Return the short facts of a generation's details, which every span repeats."""
    return {
        key: value
        for key, value in generation.details.items()
        if isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= FACT_LENGTH_MAX)
    }


def encode_span_header(span_start: int, span_end: int, header: SpanHeader) -> bytes:
    samples: list[JsonValue] = [[format_time(one.at), position_text(one.position)] for one in header.samples]
    document: JsonObject = {
        "start": position_text(span_start),
        "end": position_text(span_end),
        "samples": samples,
        "gap": header.gap[:REASON_LENGTH_MAX] if header.gap is not None else None,
        "identity": header.identity,
        "received_at": format_time(header.received_at),
    }
    if header.merged:
        document["merged"] = header.merged
    return encode_document(document)


def parse_span_header(what: str, span: SpanName, document: bytes) -> SpanHeader:
    """Read frame 0 of a span; raises ``IntegrityBroken``."""
    try:
        found = json.loads(document)
        if (parse_position(found["start"]), parse_position(found["end"])) != (span.start, span.end):
            raise broken(what, "it tells other positions than its name")
        samples = tuple(Sample(parse_time(at), parse_position(position)) for at, position in found["samples"])
        gap = found["gap"]
        return SpanHeader(
            tuple(one for one in samples if span.start <= one.position <= span.end),
            str(gap) if gap is not None else None,
            dict(found["identity"]),
            parse_time(found["received_at"]),
            int(found.get("merged", 0)),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise broken(what, "its header cannot be read") from error


def check_frames(what: str, span: SpanName, frames: Sequence[Frame]) -> None:
    """Prove that the frames behind the header hold exactly the span's positions; raises ``IntegrityBroken``."""
    size = span.end - span.start
    if size > SPAN_BYTES_MAX:
        raise broken(what, f"it claims {size} positions, more than a span may have")
    full, rest = divmod(size, FRAME_BYTES)
    expected = [FRAME_BYTES] * full + ([rest] if rest else [])
    if [frame.plain for frame in frames[1:]] != expected:
        raise broken(what, "its frames do not hold the positions that its name tells")


def thinned(samples: Sequence[Sample], most: int = SAMPLES_MAX) -> tuple[Sample, ...]:
    """Return at most ``most`` samples: the first, the last, and evenly between."""
    if len(samples) <= most:
        return tuple(samples)
    last = len(samples) - 1
    return tuple(samples[round(place * last / (most - 1))] for place in range(most))
