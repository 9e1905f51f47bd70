"""The rules of a history: what entries mean together, and what may be put next (docs/format.md, section 8).

Pure functions on small values. The program and the model check of the tests use these same functions.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from holdfast.model.errors import Conflict, IntegrityBroken
from holdfast.repository.format.entry import Checkpoint, EntryKind, Facts, HistoryEntry, Mark, Positions
from holdfast.repository.format.names import BackupId, PackName, SpanName


@dataclass(frozen=True, slots=True)
class HistoryState:
    """What entries up to ``head`` mean. ``live`` are (number, backup) of live backups, oldest first.

    ``log_ends`` is the furthest end that any entry told of each generation of the log, ``log_starts`` where it begins.
    """

    head: int = 0
    live: tuple[tuple[int, BackupId], ...] = ()
    held: frozenset[BackupId] = frozenset()
    verified: frozenset[BackupId] = frozenset()
    identity: Facts | None = None
    condemned: frozenset[PackName] = frozenset()
    checkpoint: int = 0
    unknown: tuple[int, ...] = ()
    log_ends: Positions = ()
    log_starts: Positions = ()
    marks: tuple[Mark, ...] = ()

    @property
    def live_ids(self) -> frozenset[BackupId]:
        return frozenset(backup for _, backup in self.live)


def apply(state: HistoryState, entry: HistoryEntry) -> HistoryState:
    """Return the state after one more entry."""
    state = replace(state, head=entry.number)
    if not entry.counts:
        return state
    if entry.needs:
        return replace(state, unknown=(*state.unknown, entry.number))
    if entry.log_ends or entry.log_starts:
        ends, starts = furthest(state.log_ends, entry.log_ends), furthest(state.log_starts, entry.log_starts)
        state = replace(state, log_ends=ends, log_starts=starts)
    named = frozenset(entry.backups)
    match entry.kind:
        case EntryKind.BACKUP:
            known = entry.backups[0] in state.live_ids
            return state if known else replace(state, live=(*state.live, (entry.number, entry.backups[0])))
        case EntryKind.EXPIRE | EntryKind.VOID:
            return replace(state, live=tuple(item for item in state.live if item[1] not in named))
        case EntryKind.HOLD:
            return replace(state, held=state.held | named)
        case EntryKind.RELEASE:
            return replace(state, held=state.held - named)
        case EntryKind.VERIFIED:
            return replace(state, verified=state.verified | named)
        case EntryKind.ADOPT:
            return replace(state, identity=entry.identity)
        case EntryKind.PRUNE:
            return _after_checkpoint(state, entry.checkpoint)
        case EntryKind.MARK:
            return replace(state, marks=(*state.marks, entry.mark)) if entry.mark is not None else state
        case EntryKind.CONDEMN | None:
            return state  # which spans it lets go, their positions tell: what covers them is still listed, or not


def furthest(known: Positions, told: Positions) -> Positions:
    """Return for each generation the furthest of two positions."""
    positions = dict(known)
    for generation, position in told:
        positions[generation] = max(position, positions.get(generation, 0))
    return tuple(sorted(positions.items()))


def shortened(state: HistoryState, listed: Positions) -> Positions:
    """Return the generations whose log ends before the end that the history tells, with that end.

    ``listed`` are the ends of the spans that are there. A generation given up whole is not missed.
    """
    there, starts = dict(listed), dict(state.log_starts)
    return tuple(
        (generation, end)
        for generation, end in state.log_ends
        if there.get(generation, 0) < end and starts.get(generation, 0) < end
    )


def keepers_of(kept: Iterable[SpanName], listed: Iterable[SpanName]) -> list[tuple[SpanName, SpanName]]:
    """Return the listed spans that lie within a span that is kept, each with that one.

    Of two kept ones with the same positions the one with the lower hash stays, so that never each makes room for the
    other. Whoever deletes proves first that the keeper is there and has the same bytes.
    """
    by_generation: dict[str, list[SpanName]] = {}
    for span in sorted(kept):
        by_generation.setdefault(span.generation, []).append(span)
    furthest_by = {
        generation: list(itertools.accumulate(spans, _further)) for generation, spans in by_generation.items()
    }
    found = []
    for span in listed:
        spans = by_generation.get(span.generation, [])
        place = bisect.bisect_right(spans, span.start, key=lambda one: one.start)
        keeper = furthest_by[span.generation][place - 1] if place else None
        if keeper is not None and keeper.end >= span.end and _stays(keeper, span):
            found.append((span, keeper))
    return found


def _further(one: SpanName, other: SpanName) -> SpanName:
    if one.end != other.end:
        return one if one.end > other.end else other
    return one if _stays(one, other) else other


def _stays(keeper: SpanName, span: SpanName) -> bool:
    """Whether the first of two spans, that covers the second, is the one to stay."""
    size, other = keeper.end - keeper.start, span.end - span.start
    return size > other or (size == other and keeper.digest < span.digest)


def _after_checkpoint(state: HistoryState, checkpoint: Checkpoint) -> HistoryState:
    # Entries below it may be gone by now, or not yet: what it restates is the whole truth either way.
    return replace(
        state,
        live=tuple(item for item in checkpoint.live if item[0] < state.head),
        held=frozenset(checkpoint.held),
        verified=frozenset(checkpoint.verified),
        identity=checkpoint.identity,
        condemned=frozenset(checkpoint.condemned),
        checkpoint=state.head,
        marks=checkpoint.marks,
    )


def meaning_of(entries: Iterable[HistoryEntry]) -> HistoryState:
    """Return what a whole history means."""
    state = HistoryState()
    for entry in entries:
        state = apply(state, entry)
    return state


def first_needed(state: HistoryState) -> int:
    """Return the number from which on a history may have no hole."""
    return state.checkpoint or 1


def may_write(state: HistoryState) -> None:
    """Refuse to write behind an entry whose meaning is not known; raises ``Conflict``."""
    if state.unknown:
        raise Conflict(
            f"history entry {state.unknown[0]} needs what this version of holdfast does not know",
            hint="A newer holdfast writes to this repository; use that release here too.",
        )


def unusable_packs(
    state: HistoryState, needed: Mapping[PackName, int], listed: Mapping[PackName, int]
) -> tuple[PackName, ...]:
    """Rule 2: return the packs a backup may not count on: condemned, absent, or not of the size they should have."""
    return tuple(
        name for name, size in needed.items() if name in state.condemned or name not in listed or listed[name] != size
    )


def checkpoint_of(
    state: HistoryState, listed: Iterable[PackName], needed_by_live: Callable[[PackName], bool]
) -> Checkpoint:
    """Rule 3: return what a prune entry right behind ``state`` says.

    ``needed_by_live`` tells whether a backup in ``state.live`` still counts on that pack (after repacking). Packs that
    were condemned before and are still listed are condemned again: the entry that did it first may be gone one day.
    """
    return Checkpoint(
        live=state.live,
        held=tuple(sorted(state.held)),
        verified=tuple(sorted(state.verified)),
        identity=state.identity,
        condemned=tuple(name for name in listed if name in state.condemned or not needed_by_live(name)),
        marks=state.marks,
    )


def deletable(state: HistoryState, listed: Iterable[PackName]) -> tuple[PackName, ...]:
    """Return the packs that may be deleted, by whomever and whenever: the condemned ones."""
    return tuple(name for name in listed if name in state.condemned)


def is_lost(digest: bytes, following: HistoryEntry | None) -> bool:
    """Rule 1: whether an entry just put, with others listed above it, was put under a number that had been freed.

    ``digest`` is its object hash, ``following`` the entry right behind it, None where that is gone. What is above an
    entry knows it only if the next one continues it.
    """
    return following is None or following.previous != digest


def chain_breaks(entries: Sequence[tuple[HistoryEntry, bytes]], first: int) -> list[str]:
    """Return what is wrong with a chain of (entry, object hash) in order, from number ``first`` on."""
    wrong = []
    expected = first
    before: tuple[HistoryEntry, bytes] | None = None
    for entry, digest in entries:
        if entry.number < first:
            continue
        if entry.number != expected:
            missing = f"{expected}" if entry.number == expected + 1 else f"{expected} to {entry.number - 1}"
            wrong.append(f"history entry {missing} is missing")
        elif before is not None and entry.previous != before[1]:
            wrong.append(f"history entry {entry.number} does not continue entry {entry.number - 1}")
        if before is not None and entry.epoch < before[0].epoch:
            wrong.append(f"history entry {entry.number} is sealed with a key older than that of the one before")
        expected, before = entry.number + 1, (entry, digest)
    return wrong


def missing_live(state: HistoryState, numbers: Iterable[int]) -> tuple[int, ...]:
    """Return the entries of live backups that are not there."""
    there = set(numbers)
    return tuple(number for number, _ in state.live if number not in there)


def refuse_rollback(
    area: str, seen: tuple[int, bytes] | None, head: int, hash_of: Callable[[int], bytes | None]
) -> None:
    """Raise ``IntegrityBroken`` where an entry that was seen before is gone from the end, or is another now.

    ``hash_of`` gives the object hash of an entry, None for one that is not there (below a checkpoint).
    """
    if seen is None:
        return
    number, digest = seen
    there = hash_of(number)
    if head >= number and there in (digest, None):
        return
    what = f"ends at entry {head}" if head < number else f"has another entry {number} than it had"
    raise IntegrityBroken(
        f"the history of {area} {what}; this host has seen entry {number}: it was rolled back",
        hint="Someone removed or replaced newer backups in the store. Look for them in another copy and in the store's "
        "own versions; `holdfast check` tells more.",
    )
