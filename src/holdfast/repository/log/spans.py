"""One span or generation at a time: sealed, put, opened, read by range (docs/format.md, section 11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from holdfast.model.errors import Conflict, NotFound
from holdfast.model.logs import Generation
from holdfast.repository.area import Area
from holdfast.repository.format import names
from holdfast.repository.format.container import (
    HEADER,
    SIZE_MAX,
    TRAILER,
    Data,
    Frame,
    ObjectType,
    Opener,
    Trailer,
    broken,
    open_toc,
    parse_header,
    parse_trailer,
)
from holdfast.repository.format.log import (
    FRAME_BYTES,
    SPAN_BYTES_MAX,
    SpanHeader,
    check_frames,
    check_generation,
    encode_generation,
    encode_span_header,
    generation_claim,
    parse_generation,
    parse_span_header,
    span_claim,
)
from holdfast.repository.format.names import SpanName

TAIL_BYTES = 4096
"""Read from the end of a large span: trailer and table of contents of 64 frames fit into it."""

WHOLE_BYTES_MAX = 1 << 20
"""A span up to this size is read whole: one request."""


def read_generation(area: Area, generation: str) -> tuple[Generation, datetime]:
    """Read a generation and when it was stored; raises ``NotFound`` or ``IntegrityBroken``."""
    what = f"generation {generation[:12]} of the log of {area.title}"
    data = area.fetch(what, ObjectType.LOG_GENERATION, names.log_generation(area.keys.area, generation))
    claim = area.claim(ObjectType.LOG_GENERATION, generation_claim(generation))
    found, at = parse_generation(what, area.open(what, claim, data)[0])
    if found.id != generation:
        raise broken(what, "it speaks of another generation")
    return found, at


def put_generation(area: Area, generation: Generation, now: datetime) -> None:
    """Store a generation durably; the same again is fine. Raises ``Conflict`` where one that differs bears its id."""
    check_generation(generation)
    try:
        stored = read_generation(area, generation.id)[0]
    except NotFound:
        pass
    else:
        _refuse_other(area, generation, stored)
        return
    claim = area.claim(ObjectType.LOG_GENERATION, generation_claim(generation.id))
    data, _ = area.seal(claim, [encode_generation(generation, now)])
    try:
        area.store.create(names.log_generation(area.keys.area, generation.id), data)
    except Conflict:
        _refuse_other(area, generation, read_generation(area, generation.id)[0])


def _refuse_other(area: Area, generation: Generation, stored: Generation) -> None:
    if stored != generation:
        raise Conflict(
            f"generation {generation.id[:12]} of the log of {area.title} is stored already, with another history",
            hint="Two servers that are not one history write to this source. Give the other one a source of its own; "
            "after a planned change run `holdfast adopt`.",
        )


@dataclass(frozen=True, slots=True)
class SealedSpan:
    """A span ready to be put; its bytes are the same for every copy of the repository."""

    name: SpanName
    data: Data


def seal_span(area: Area, generation: str, start: int, content: Data, header: SpanHeader, level: int = 3) -> SealedSpan:
    """Return the span of ``content`` that begins at ``start``; at most ``SPAN_BYTES_MAX`` bytes, never none."""
    if not 0 < len(content) <= SPAN_BYTES_MAX:
        raise ValueError(f"a span of {len(content)} bytes cannot be stored")
    unnamed = SpanName(generation, start, start + len(content), "")
    document = encode_span_header(unnamed.start, unnamed.end, header)
    capacity = HEADER.size + len(document) + (len(content) >> 1) + TAIL_BYTES
    builder = area.builder(area.claim(ObjectType.LOG_SPAN, span_claim(unnamed)), capacity)
    builder.add_plain(document, level)
    with memoryview(content) as view:
        for offset in range(0, len(view), FRAME_BYTES):
            builder.add_plain(view[offset : offset + FRAME_BYTES], level)
    data, digest = builder.finish()
    return SealedSpan(unnamed._replace(digest=digest.hex()), data)


def put_span(area: Area, sealed: SealedSpan) -> None:
    """Put a sealed span; the same again is fine, and sends the same bytes."""
    area.store.create(names.log_span(area.keys.area, sealed.name), sealed.data)


def span_title(area: Area, span: SpanName) -> str:
    return f"span {span.start:x}-{span.end:x} of generation {span.generation[:12]} of the log of {area.title}"


class SpanReader:
    """One span, its table of contents proved. May be shared between threads.

    ``content`` is the whole object where it was small enough to be read at once, else None.
    """

    def __init__(self, area: Area, span: SpanName, opener: Opener, content: memoryview | None) -> None:
        self._area = area
        self.span = span
        self._opener = opener
        self._content = content
        document = self._fetch(opener.frames[:1]) if opener.frames else b""
        self.header = parse_span_header(opener.what, span, document)
        check_frames(opener.what, span, opener.frames)

    @classmethod
    def open(cls, area: Area, span: SpanName, size: int) -> SpanReader:
        """Read and prove what is needed to read any range; raises ``NotFound`` or ``IntegrityBroken``."""
        what = span_title(area, span)
        if size > SIZE_MAX[ObjectType.LOG_SPAN]:
            raise broken(what, f"it is {size} bytes long, more than a span may have")
        path = names.log_span(area.keys.area, span)
        start = 0 if size <= WHOLE_BYTES_MAX else size - TAIL_BYTES
        tail = memoryview(area.store.get(path, start, size))
        if len(tail) != size - start:
            raise broken(what, "it has another size than its listing tells")
        trailer = parse_trailer(what, tail[-TRAILER.size :], size)
        if trailer.object_hash.hex() != span.digest:
            raise broken(what, "it is another span than its name says")
        if trailer.toc_offset < start:
            start = trailer.toc_offset
            tail = memoryview(area.store.get(path, start, size))
        head = tail if start == 0 else area.store.get(path, 0, HEADER.size)
        return cls(area, span, _opened(area, what, span, head, trailer, tail, start), tail if start == 0 else None)

    def _fetch(self, frames: Sequence[Frame]) -> bytes:
        """Return the plain bytes of neighbouring frames."""
        first, last = frames[0], frames[-1]
        start, end = first.offset, last.offset + last.stored
        if self._content is not None:
            sealed = self._content[start:end]
        else:
            path = names.log_span(self._area.keys.area, self.span)
            sealed = memoryview(self._area.store.get(path, start, end))
            if len(sealed) != end - start:
                raise broken(self._opener.what, "it is shorter than its table of contents says")
        return b"".join(
            self._opener.open(frame, sealed[frame.offset - start : frame.offset - start + frame.stored])
            for frame in frames
        )

    def read(self, start: int, end: int) -> memoryview:
        """Return the bytes of positions ``[start, end)``, which lie in the span; raises ``IntegrityBroken``."""
        first = (start - self.span.start) // FRAME_BYTES
        last = (end - 1 - self.span.start) // FRAME_BYTES
        plain = self._fetch(self._opener.frames[1 + first : 2 + last])
        skip = start - self.span.start - first * FRAME_BYTES
        return memoryview(plain)[skip : skip + end - start]


def _opened(
    area: Area, what: str, span: SpanName, head: Data, trailer: Trailer, tail: memoryview, start: int
) -> Opener:
    header = parse_header(what, head)
    sealed = tail[trailer.toc_offset - start :][: trailer.toc_length]
    claim = area.claim(ObjectType.LOG_SPAN, span_claim(span))
    return open_toc(what, claim, area.keys.of_epoch(header.epoch), header, trailer, sealed)
