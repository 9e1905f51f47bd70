"""Looks for what is broken in an area's log: generations, spans, overlaps, ends (docs/format.md, section 11)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from holdfast.model.errors import HoldfastError, IntegrityBroken, NotFound
from holdfast.model.logs import Stretch
from holdfast.repository.area import Area
from holdfast.repository.format import names, rules
from holdfast.repository.format.container import SIZE_MAX, ObjectType, broken, open_whole, read_frames
from holdfast.repository.format.log import check_frames, position_text, span_claim
from holdfast.repository.format.rules import HistoryState
from holdfast.repository.log.listing import ListedSpan
from holdfast.repository.log.reading import StoredLog
from holdfast.repository.log.spans import SpanReader, read_generation, span_title

Trouble = tuple[str, HoldfastError]


@dataclass(frozen=True, slots=True)
class LogReport:
    """What checking a log found: troubles, each with the name of its object, and how many bytes there are."""

    troubles: tuple[Trouble, ...]
    spans: int
    stored_bytes: int
    read_bytes: int


def check_log(area: Area, executor: Executor, state: HistoryState, read_percent: float | None = None) -> LogReport:
    """Open every generation, and the header and table of every span; read the bytes of a share of them where asked.

    Overlaps are compared where bytes are read. Gaps are no damage: `windows` tells them. Raises only what keeps from
    looking (``Unavailable``, keys).
    """
    log = StoredLog(area, executor)
    spans = [span for listed in log.listing.spans.values() for span in listed]
    chosen = _chosen(spans, read_percent)
    chosen_names = {span.name for span in chosen}
    troubles = list(_broken_generations(area, log))
    found = executor.map(lambda span: _broken_span(area, span, whole=span.name in chosen_names), spans)
    troubles += [trouble for trouble in found if trouble is not None]
    if chosen:
        bad = {name for name, _ in troubles}
        troubles += _differing(area, log, bad)
    for generation, end in rules.shortened(state, log.listing.ends()):
        why = f"its spans end before {position_text(end)}, where the history says it was stored to: they were removed"
        troubles.append(
            (f"{names.log(area.keys.area)}{generation}", broken(f"the log of {area.title}", why)),
        )
    read_bytes = sum(span.size_bytes for span in chosen)
    return LogReport(tuple(troubles), len(spans), sum(span.size_bytes for span in spans), read_bytes)


def _chosen(spans: Sequence[ListedSpan], percent: float | None) -> list[ListedSpan]:
    if percent is None or not spans:
        return []
    # One at least: a small log is not passed over in silence.
    count = min(len(spans), max(1 if percent > 0 else 0, round(len(spans) * percent / 100)))
    return random.SystemRandom().sample(list(spans), count)


def _broken_generations(area: Area, log: StoredLog) -> Iterator[Trouble]:
    for generation in sorted(log.listing.generations | set(log.listing.spans)):
        name = names.log_generation(area.keys.area, generation)
        try:
            read_generation(area, generation)
        except NotFound:
            if generation in log.listing.spans:
                why = "its spans are there and the generation itself is missing: nothing tells whose log it is"
                yield name, broken(f"generation {generation[:12]} of the log of {area.title}", why)
        except IntegrityBroken as error:
            yield name, error


def _broken_span(area: Area, span: ListedSpan, *, whole: bool) -> Trouble | None:
    name = names.log_span(area.keys.area, span.name)
    try:
        if whole:
            _read_whole(area, span)
        else:
            SpanReader.open(area, span.name, span.size_bytes)
    except NotFound:
        return None  # merged and deleted since the listing
    except IntegrityBroken as error:
        return name, error
    return None


def _read_whole(area: Area, span: ListedSpan) -> None:
    what = span_title(area, span.name)
    if span.size_bytes > SIZE_MAX[ObjectType.LOG_SPAN]:
        raise broken(what, "it is larger than a span may be")
    data = area.store.get(names.log_span(area.keys.area, span.name))
    claim = area.claim(ObjectType.LOG_SPAN, span_claim(span.name))
    opener = open_whole(what, claim, area.keys.of_epoch, data)
    if bytes(memoryview(data)[-32:]).hex() != span.name.digest:
        raise broken(what, "it is another span than its name says")
    check_frames(what, span.name, opener.frames)
    read_frames(opener, data)


def _differing(area: Area, log: StoredLog, bad: set[str]) -> Iterator[Trouble]:
    """Yield the spans that tell other bytes than one before them where both hold the same positions."""
    for generation, listed in log.listing.spans.items():
        sound = [span for span in listed if names.log_span(area.keys.area, span.name) not in bad]
        for before, span in _overlaps(sound):
            stretch = Stretch(span.name.start, min(before.name.end, span.name.end))
            try:
                if span.name.end <= before.name.end and log.header(before).merged:
                    continue  # it was compared when it was merged, and is again before it is deleted
                for _ in log.read(generation, stretch):
                    pass
            except IntegrityBroken as error:
                yield names.log_span(area.keys.area, span.name), error
            except NotFound:
                continue


def _overlaps(spans: Sequence[ListedSpan]) -> Iterator[tuple[ListedSpan, ListedSpan]]:
    """Yield each span that begins before the end of those before it, behind the one of them that reaches furthest."""
    for before, span in zip(itertools.accumulate(spans, _further), spans[1:], strict=False):
        if span.name.start < before.name.end:
            yield before, span


def _further(one: ListedSpan, other: ListedSpan) -> ListedSpan:
    return one if one.name.end > other.name.end else other
