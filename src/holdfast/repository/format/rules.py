"""The rules of a history: what entries mean together, and what may be put next (docs/format.md, section 8).

Pure functions on small values. The program and the model check of the tests use these same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from holdfast.model.errors import Conflict, IntegrityBroken
from holdfast.repository.format.entry import EntryKind, HistoryEntry
from holdfast.repository.format.names import BackupId, PackName


@dataclass(frozen=True, slots=True)
class HistoryState:
    """What entries up to ``head`` mean. ``live`` maps each live backup to its entry's number, oldest first."""

    head: int = 0
    live: tuple[tuple[BackupId, int], ...] = ()
    held: frozenset[BackupId] = frozenset()
    condemned: frozenset[PackName] = frozenset()
    checkpoint: int = 0
    unknown: tuple[int, ...] = ()

    @property
    def live_ids(self) -> frozenset[BackupId]:
        return frozenset(backup for backup, _ in self.live)


def apply(state: HistoryState, entry: HistoryEntry) -> HistoryState:
    """Return the state after one more entry."""
    state = replace(state, head=entry.number)
    named = frozenset(entry.backups)
    match entry.kind:
        case EntryKind.BACKUP:
            return replace(state, live=(*state.live, (entry.backups[0], entry.number)))
        case EntryKind.EXPIRE | EntryKind.VOID:
            return replace(state, live=tuple(item for item in state.live if item[0] not in named))
        case EntryKind.HOLD:
            return replace(state, held=state.held | named)
        case EntryKind.RELEASE:
            return replace(state, held=state.held - named)
        case EntryKind.PRUNE:
            return replace(
                state,
                live=tuple(item for item in state.live if item[0] in named),
                condemned=state.condemned | frozenset(entry.condemned),
                checkpoint=entry.number,
            )
        case EntryKind.ADOPT:
            return state
        case None:
            return replace(state, unknown=(*state.unknown, entry.number))


def meaning_of(entries: Iterable[HistoryEntry]) -> HistoryState:
    """Return what a whole history means."""
    state = HistoryState()
    for entry in entries:
        state = apply(state, entry)
    return state


def first_needed(numbers: Sequence[int], newest_checkpoint: int) -> int:
    """Return the number from which on a history may have no hole."""
    return newest_checkpoint if newest_checkpoint else min([1, *numbers])


def may_write(state: HistoryState) -> None:
    """Refuse to write behind an entry whose meaning is not known; raises ``Conflict``."""
    if state.unknown:
        raise Conflict(
            f"history entry {state.unknown[0]} is of a kind this version of holdfast does not know",
            hint="A newer holdfast writes to this repository; use that release here too.",
        )


def unusable_packs(
    state: HistoryState, needed: Mapping[PackName, int], listed: Mapping[PackName, int]
) -> tuple[PackName, ...]:
    """Rule 2: return the packs a backup may not count on: condemned, absent, or not of the size they should have."""
    return tuple(
        name for name, size in needed.items() if name in state.condemned or name not in listed or listed[name] != size
    )


def condemnable(
    state: HistoryState, listed: Iterable[PackName], needed_by_live: Callable[[PackName], bool]
) -> tuple[PackName, ...]:
    """Rule 3: return the packs that a prune entry right behind ``state`` may condemn.

    ``needed_by_live`` tells whether a backup in ``state.live`` still counts on that pack (after repacking).
    """
    return tuple(name for name in listed if name not in state.condemned and not needed_by_live(name))


def deletable(state: HistoryState, listed: Iterable[PackName]) -> tuple[PackName, ...]:
    """Return the packs that may be deleted, by whomever and whenever: the condemned ones."""
    return tuple(name for name in listed if name in state.condemned)


def chain_breaks(entries: Sequence[tuple[HistoryEntry, bytes]], first: int) -> list[str]:
    """Return what is wrong with a chain of (entry, object hash) in order, from number ``first`` on."""
    wrong = []
    expected = first
    before: bytes | None = None
    for entry, digest in entries:
        if entry.number < first:
            continue
        if entry.number != expected:
            missing = f"{expected}" if entry.number == expected + 1 else f"{expected} to {entry.number - 1}"
            wrong.append(f"history entry {missing} is missing")
        elif entry.number > first and entry.previous != before:
            wrong.append(f"history entry {entry.number} does not continue entry {entry.number - 1}")
        expected, before = entry.number + 1, digest
    return wrong


def refuse_rollback(area: str, head: int, head_hash: bytes, seen: tuple[int, bytes] | None) -> None:
    """Raise ``IntegrityBroken`` where the newest entry is older than, or another than, one seen before."""
    if seen is None or head > seen[0] or (head == seen[0] and head_hash == seen[1]):
        return
    what = f"ends at entry {head}" if head < seen[0] else f"has another entry {head}"
    raise IntegrityBroken(
        f"the history of {area} {what}, but this host has seen entry {seen[0]}: it was rolled back",
        hint="Someone removed or replaced newer backups in the store. Look for them in another copy and in the store's "
        "own versions; `holdfast check` tells more.",
    )
