"""Reading and continuing the history of an area: the only agreement between writers (docs/format.md, section 8)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

from holdfast.model.errors import Conflict, IntegrityBroken, NotFound
from holdfast.repository.area import Area
from holdfast.repository.format import names, rules
from holdfast.repository.format.container import Claim, ObjectType, object_hash
from holdfast.repository.format.entry import (
    SIGNED_KINDS,
    EntryKind,
    EntryPlace,
    HistoryEntry,
    encode_entry,
    parse_entry,
    signed_message,
)
from holdfast.repository.format.keys import is_signed_by
from holdfast.repository.format.names import BackupId
from holdfast.repository.format.record import BackupRecord
from holdfast.repository.format.rules import HistoryState
from holdfast.repository.remembered import Remembered

APPEND_TRIES_MAX = 1000
READ_TRIES_MAX = 5
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

    def hash_of(self, number: int) -> bytes | None:
        """Return the object hash of an entry, None for one that is not there."""
        return next((digest for entry, digest in reversed(self.entries) if entry.number == number), None)

    def live_entries(self) -> list[HistoryEntry]:
        """Return the entries of live backups, oldest first."""
        numbers = {number for number, _ in self.state.live}
        return [entry for entry, _ in self.entries if entry.number in numbers]


def read_entry(area: Area, number: int) -> tuple[HistoryEntry, bytes]:
    """Read one entry; raises ``NotFound`` or ``IntegrityBroken``."""
    what = f"history entry {number} of {area.title}"
    data = area.fetch(what, ObjectType.HISTORY, names.history_entry(area.keys.area, number))
    opener, frames = area.open_with_header(what, _claim(area, number), data)
    entry = parse_entry(what, number, opener.header.epoch, frames)
    if entry.kind in SIGNED_KINDS:
        entry = replace(entry, counts=_is_signed(area, entry, frames))
    return entry, object_hash(data)


def _claim(area: Area, number: int) -> Claim:
    return area.claim(ObjectType.HISTORY, area.store_id + number.to_bytes(8, "little"))


def _place(area: Area, number: int) -> EntryPlace:
    return EntryPlace(area.keys.repository, area.keys.area, area.store_id, number)


def _is_signed(area: Area, entry: HistoryEntry, frames: list[bytes]) -> bool:
    public = area.keys.upkeep.get(entry.epoch)
    message = signed_message(_place(area, entry.number), frames[:-1])
    return public is not None and len(frames) > 1 and is_signed_by(public, frames[-1], message)


def list_numbers(area: Area) -> list[int]:
    found = (names.parse_history(info.name) for info in area.store.list(names.history(area.keys.area)))
    return [number for number in found if number is not None]


def understand(entries: list[tuple[HistoryEntry, bytes]]) -> History:
    """Return what entries mean together, with what is wrong with their chain."""
    state = rules.meaning_of(entry for entry, _ in entries)
    breaks = rules.chain_breaks(entries, rules.first_needed(state))
    for number in rules.missing_live(state, (entry.number for entry, _ in entries)):
        breaks.append(f"history entry {number} of a live backup is missing")
    return History(tuple(entries), state, tuple(breaks))


def read_history(area: Area, executor: Executor, remembered: Remembered | None) -> History:
    """Read a whole history; raises ``IntegrityBroken`` for one with holes, strangers, or an end that was seen further.

    What this host has seen is compared first and then moved on.
    """
    history = understand(_read_entries(area, executor))
    refuse_broken(area, history)
    if remembered is not None:
        rules.refuse_rollback(area.title, remembered.seen(area), history.head, history.hash_of)
        if history.head:
            remembered.remember(area, history.head, history.head_hash)
    return history


def look_at_history(area: Area, executor: Executor) -> History:
    """Read what can be read of a history, to restore from it; what is wrong is in ``breaks``. Never write behind it."""

    def read(number: int) -> tuple[HistoryEntry, bytes] | str | None:
        try:
            return read_entry(area, number)
        except IntegrityBroken as error:
            return error.message
        except NotFound:
            return None

    found = list(executor.map(read, list_numbers(area)))
    history = understand([item for item in found if isinstance(item, tuple)])
    return replace(history, breaks=(*(item for item in found if isinstance(item, str)), *history.breaks))


def _read_entries(area: Area, executor: Executor) -> list[tuple[HistoryEntry, bytes]]:
    tries = 0
    while True:
        try:
            return list(executor.map(lambda number: read_entry(area, number), list_numbers(area)))
        except NotFound:
            # Removed since the listing, below a checkpoint that came meanwhile: the next listing shows it.
            tries += 1
            if tries >= READ_TRIES_MAX:
                raise


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
        if entry.kind is EntryKind.PRUNE:
            entry = _restating(history.state, entry)
        frames = encode_entry(entry)
        if entry.kind in SIGNED_KINDS:
            frames.append(area.keys.sign_upkeep(signed_message(_place(area, entry.number), frames)))
        data, digest = area.seal(_claim(area, entry.number), frames)
        try:
            area.store.create(names.history_entry(area.keys.area, entry.number), data)
        except Conflict:
            history = _read_on(area, history)
            continue
        history = understand([*history.entries, (replace(entry, epoch=area.keys.current_epoch), digest)])
        _refuse_lost(area, entry, digest)
        if remembered is not None:
            remembered.remember(area, entry.number, digest)
        return history
    raise Conflict(
        f"{APPEND_TRIES_MAX} other entries were put into the history of {area.title} meanwhile",
        hint="Something writes to this history without pause; see `holdfast runs`.",
    )


def _restating(state: HistoryState, entry: HistoryEntry) -> HistoryEntry:
    """Let a checkpoint tell where the log begins and ends: the entries that told it may be deleted one day."""
    return replace(
        entry,
        log_ends=rules.furthest(state.log_ends, entry.log_ends),
        log_starts=rules.furthest(state.log_starts, entry.log_starts),
    )


def _refuse_lost(area: Area, entry: HistoryEntry, digest: bytes) -> None:
    """Rule 1, after the put: a writer that slept may have taken a number that was freed below a checkpoint.

    And success is believed only where the listing shows it: something in between may have answered for the store.
    """
    numbers = list_numbers(area)
    if all(number < entry.number for number in numbers):
        raise IntegrityBroken(
            f"the store took entry {entry.number} of {area.title} and does not list it",
            hint="Something answers in the store's place (a proxy, a portal), or lists late. Run `holdfast doctor`.",
        )
    if all(number <= entry.number for number in numbers):
        return
    try:
        following = read_entry(area, entry.number + 1)[0]
    except NotFound:
        following = None
    if rules.is_lost(digest, following):
        raise Conflict(
            f"entry {entry.number} of {area.title} was put behind a checkpoint that does not know it",
            hint="This run slept for long while others went on. Run the command again.",
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
