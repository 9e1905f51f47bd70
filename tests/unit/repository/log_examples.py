"""Small logs for the tests of the log: generations, bytes that tell their position, spans put by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta

from tests.unit.repository.repository_examples import NOW

from holdfast.model.logs import Generation, Sample
from holdfast.repository.area import Area
from holdfast.repository.format.log import SpanHeader, identity_of
from holdfast.repository.format.names import SpanName
from holdfast.repository.log.listing import ListedSpan, LogListing, listing_of
from holdfast.repository.log.spans import put_generation, put_span, seal_span

FIRST = Generation("a1" * 16, 0, details={"kind": "postgres", "system_identifier": "7", "timeline": 1, "history": ""})
SECOND = Generation("b2" * 16, 900, FIRST.id, 1000, {"kind": "postgres", "system_identifier": "7", "timeline": 2})
THIRD = Generation("c3" * 16, 1900, SECOND.id, 2000, {"kind": "postgres", "system_identifier": "7", "timeline": 3})


def log_bytes(start: int, end: int, flavour: bytes = b"") -> bytes:
    """Return bytes that are always the same at the same position."""
    first, last = start >> 5, (end + 31) >> 5
    blocks = b"".join(hashlib.sha256(flavour + number.to_bytes(8, "big")).digest() for number in range(first, last))
    return blocks[start - (first << 5) :][: end - start]


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def header(samples: Iterable[Sample] = (), gap: str | None = None, merged: int = 0) -> SpanHeader:
    return SpanHeader(tuple(samples), gap, identity_of(FIRST), NOW, merged)


def put(
    area: Area,
    start: int,
    end: int,
    *,
    generation: Generation = FIRST,
    samples: Iterable[Sample] = (),
    gap: str | None = None,
    flavour: bytes = b"",
    merged: int = 0,
) -> SpanName:
    """Put one span; the generation as well, where it is not there yet."""
    put_generation(area, generation, NOW)
    content = log_bytes(start, end, flavour)
    sealed = seal_span(area, generation.id, start, content, header(samples, gap, merged))
    put_span(area, sealed)
    return sealed.name


def listed(*stretches: tuple[int, int], put_at: datetime = NOW, generation: Generation = FIRST) -> LogListing:
    """Return a made-up listing of spans."""
    return listing_of(named(start, end, put_at, generation) for start, end in stretches)


def named(
    start: int, end: int, put_at: datetime = NOW, generation: Generation = FIRST
) -> tuple[SpanName, int, datetime]:
    digest = hashlib.sha256(f"{start} {end} {put_at}".encode()).hexdigest()
    return SpanName(generation.id, start, end, digest), end - start + 500, put_at


def one_listed(start: int, end: int, put_at: datetime = NOW) -> ListedSpan:
    return ListedSpan(*named(start, end, put_at))
