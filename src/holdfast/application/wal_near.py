"""What a push has to know of a stored log: its generations, and the spans near one segment. Lists no more than that."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import Executor

from holdfast.model.errors import Conflict, NotFound
from holdfast.model.logs import Generation, Stretch
from holdfast.repository.area import Area
from holdfast.repository.format import names
from holdfast.repository.format.log import SPAN_BYTES_MAX
from holdfast.repository.format.names import SpanName
from holdfast.repository.log.listing import ListedSpan, in_order, list_generations
from holdfast.repository.log.spans import SpanReader, read_generation

COMPARED_BYTES = 4 << 20
LISTINGS_MAX = 3
"""How often spans are listed anew because some went away (merged into larger ones) before a push gives up."""


class NearLog:
    """The log of one area as a push looks at it. Generations are kept until ``refresh``, spans are always listed.

    ``executor`` reads; a push must not run on a thread of that same executor.
    """

    def __init__(self, area: Area, executor: Executor) -> None:
        self._area = area
        self._executor = executor
        self._generations: Sequence[Generation] | None = None

    def refresh(self) -> None:
        """Forget the generations."""
        self._generations = None

    def generations(self) -> Sequence[Generation]:
        """Return every generation, parents before children."""
        if self._generations is None:
            wanted = sorted(list_generations(self._area))
            read = self._executor.map(lambda one: read_generation(self._area, one), wanted)
            self._generations = in_order(list(read))
        return self._generations

    def spans(self, generation: str, stretch: Stretch) -> list[ListedSpan]:
        """Return the spans that hold any of a stretch, in order, as listed now."""
        place = names.log(self._area.keys.area)
        folder = f"{place}{generation}/"
        # Names are in order of start, and no span is longer than that.
        first = f"{folder}{max(0, stretch.start - SPAN_BYTES_MAX):016x}"
        found: list[ListedSpan] = []
        for info in self._area.store.list(folder, first):
            name = names.parse_log(place, info.name)
            if not isinstance(name, SpanName):
                continue
            if name.start >= stretch.end:
                break
            if name.end > stretch.start:
                found.append(ListedSpan(name, info.size_bytes, info.modified_at))
        return found

    def compared(
        self, generation: str, stretch: Stretch, content: bytes, own: Collection[str] = ()
    ) -> list[ListedSpan]:
        """Return the spans that hold any of a stretch, each proved to hold what ``content`` does there.

        ``own`` are the digests of spans that need no proof: this process sealed them of that content. Raises
        ``Conflict`` where one differs, ``IntegrityBroken`` where one cannot be read.
        """
        for tried in range(LISTINGS_MAX):
            spans = self.spans(generation, stretch)
            try:
                checks = [span for span in spans if span.name.digest not in own]
                for _ in self._executor.map(lambda span: self._compare(span, stretch, content), checks):
                    continue
            except NotFound:
                if tried + 1 == LISTINGS_MAX:
                    raise
                continue  # merged meanwhile: the larger span is in the next listing
            return spans
        raise AssertionError("the loop returns or raises")

    def _compare(self, span: ListedSpan, stretch: Stretch, content: bytes) -> None:
        at, end = max(span.name.start, stretch.start), min(span.name.end, stretch.end)
        reader = SpanReader.open(self._area, span.name, span.size_bytes)
        while at < end:
            stop = min(end, at + COMPARED_BYTES)
            if reader.read(at, stop) != content[at - stretch.start : stop - stretch.start]:
                raise Conflict(
                    f"the log from {at:X} on is stored already, with other content",
                    hint="Two servers archive here as if they were one (a clone, a restored copy), or a disk is "
                    "broken. Nothing was overwritten. Find out which server is the right one.",
                )
            at = stop
