"""Reading and continuing the history of an area: the only agreement between writers (docs/format.md, section 8)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

from holdfast.model.errors import Conflict, IntegrityBroken, NotFound
from holdfast.repository.area import Area
from holdfast.repository.format import names, rules
from holdfast.repository.format.container import ObjectType, object_hash
from holdfast.repository.format.entry import EntryKind, HistoryEntry, encode_entry, parse_entry
from holdfast.repository.format.names import BackupId
from holdfast.repository.format.record import BackupRecord
from holdfast.repository.format.rules import HistoryState
from holdfast.repository.remembered import Remembered

APPEND_TRIES_MAX = 1000
Decide = Callable[[HistoryState], HistoryEntry]


@dataclass(frozen=True, slots=True)
class History:
    """A history as read: its entries with their object hashes, in order, and what they mean."""

    entries: tuple[tuple[HistoryEntry, bytes], ...] = ()
    state: HistoryState = field(default_factory=HistoryState)
    breaks: tuple[str, ...] = ()

    @property
    def head(self) -> int:
        return self.entries[-1][0].number if self.entries else 0

    @property
    def head_hash(self) -> bytes:
        return self.entries[-1][1] if self.entries else b""

    def live_entries(self) -> list[HistoryEntry]:
        """Return the entries of live backups, oldest first."""
        numbers = {number for _, number in self.state.live}
        return [entry for entry, _ in self.entries if entry.number in numbers]


def read_entry(area: Area, number: int) -> tuple[HistoryEntry, bytes]:
    """Read one entry; raises ``NotFound`` or ``IntegrityBroken``."""
    what = f"history entry {number} of {area.title}"
    data = area.store.get(names.history_entry(area.keys.area, number))
    frames = area.open(what, area.claim(ObjectType.HISTORY, number.to_bytes(8, "little")), data)
    return parse_entry(what, number, frames), object_hash(data)


def list_numbers(area: Area) -> list[int]:
    found = (names.parse_history(info.name) for info in area.store.list(names.history(area.keys.area)))
    return [number for number in found if number is not None]


def understand(entries: list[tuple[HistoryEntry, bytes]]) -> History:
    """Return what entries mean together, with what is wrong with their chain."""
    state = rules.meaning_of(entry for entry, _ in entries)
    first = rules.first_needed([entry.number for entry, _ in entries], state.checkpoint)
    return History(tuple(entries), state, tuple(rules.chain_breaks(entries, first)))


def read_history(area: Area, executor: Executor, remembered: Remembered | None) -> History:
    """Read a whole history; raises ``IntegrityBroken`` for one with holes, strangers, or an end that was seen further.

    What this host has seen is compared first and then moved on.
    """
    entries = list(executor.map(lambda number: read_entry(area, number), list_numbers(area)))
    history = understand(entries)
    refuse_broken(area, history)
    if remembered is not None:
        rules.refuse_rollback(area.title, history.head, history.head_hash, remembered.seen(area))
        if history.head:
            remembered.remember(area, history.head, history.head_hash)
    return history


def refuse_broken(area: Area, history: History) -> None:
    if history.breaks:
        raise IntegrityBroken(
            f"the history of {area.title} is broken: {history.breaks[0]}",
            hint="Nothing is written behind a broken history. Run `holdfast check`; use another copy meanwhile.",
        )


def append(area: Area, history: History, decide: Decide, remembered: Remembered | None = None) -> History:
    """Put the next entry under rule 1 and return the history with it.

    ``decide`` gets the state of everything below and returns the entry (its number and chain are filled in here), or
    raises; it is asked again behind every entry that another writer put first.
    """
    for _ in range(APPEND_TRIES_MAX):
        rules.may_write(history.state)
        entry = replace(
            decide(history.state), number=history.head + 1, previous=history.head_hash if history.head else None
        )
        claim = area.claim(ObjectType.HISTORY, entry.number.to_bytes(8, "little"))
        data, digest = area.seal(claim, encode_entry(entry))
        try:
            area.store.create(names.history_entry(area.keys.area, entry.number), data)
        except Conflict:
            history = _read_on(area, history)
            continue
        if remembered is not None:
            remembered.remember(area, entry.number, digest)
        return understand([*history.entries, (entry, digest)])
    raise Conflict(
        f"{APPEND_TRIES_MAX} other entries were put into the history of {area.title} meanwhile",
        hint="Something writes to this history without pause; see `holdfast runs`.",
    )


def _read_on(area: Area, history: History) -> History:
    # The taken number must be readable: a writer that cannot read every entry since its start gives up.
    try:
        following = read_entry(area, history.head + 1)
    except NotFound as error:
        raise Conflict(
            f"history entry {history.head + 1} of {area.title} was taken and cannot be read",
            hint="Run the command again.",
        ) from error
    continued = understand([*history.entries, following])
    refuse_broken(area, continued)
    return continued


def live_records(area: Area, history: History) -> list[BackupRecord]:
    """Return the records of all live backups, oldest first; raises ``IntegrityBroken``."""
    return [record_of(area, entry) for entry in history.live_entries()]


def record_of(area: Area, entry: HistoryEntry) -> BackupRecord:
    assert entry.kind is EntryKind.BACKUP
    assert entry.record is not None
    return area.open_record(BackupId(entry.backups[0]), entry.record)
