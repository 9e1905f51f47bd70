"""Checks a repository: structure from listings, tables and history; with ``read_percent``, every byte of packs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field

from blake3 import blake3

from holdfast.model.errors import Denied, HoldfastError, IntegrityBroken, NotFound
from holdfast.model.events import OnProgress, Progress
from holdfast.repository import history as histories
from holdfast.repository.area import Area
from holdfast.repository.checking_log import check_log
from holdfast.repository.checking_small import broken_keys, broken_names, broken_runs
from holdfast.repository.format import names, rules
from holdfast.repository.format.container import HASH_BYTES, Frame, ObjectType, Opener, broken
from holdfast.repository.format.entry import HistoryEntry
from holdfast.repository.format.lists import ContentRef, parse_leaf, parse_root
from holdfast.repository.format.names import BackupId, ChunkId, PackName
from holdfast.repository.format.record import BackupRecord
from holdfast.repository.history import History
from holdfast.repository.index.lookup import ChunkIndex, open_index, save_index
from holdfast.repository.index.segment import Segment
from holdfast.repository.reading import LISTS_PER_BATCH, ChunkReader, read_tree
from holdfast.repository.remembered import Remembered
from holdfast.storage.port import Store

ENTRIES_PER_BATCH = 2000


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """Something broken: which object, what about it, and the backups it touches (all ids in full)."""

    subject: str
    message: str
    backups: tuple[BackupId, ...] = ()


@dataclass(frozen=True, slots=True)
class AreaReport:
    """What checking one area found."""

    title: str
    backups: int
    packs: int
    stored_bytes: int
    read_bytes: int
    index_rebuilt: bool
    findings: tuple[CheckFinding, ...]

    @property
    def touched(self) -> tuple[BackupId, ...]:
        return tuple(dict.fromkeys(backup for finding in self.findings for backup in finding.backups))


@dataclass(slots=True)
class _Checking:
    """One area being checked; findings gather as they come."""

    area: Area
    executor: Executor
    on_progress: OnProgress
    findings: list[CheckFinding] = field(default_factory=list)
    read_packs: set[PackName] = field(default_factory=set)
    broken_packs: set[PackName] = field(default_factory=set)
    sound_lists: set[ChunkId] = field(default_factory=set)

    def note(self, subject: str, error: HoldfastError | str, backups: Sequence[BackupId] = ()) -> None:
        message = error if isinstance(error, str) else error.message
        self.findings.append(CheckFinding(subject, message, tuple(backups)))


def check_area(
    area: Area,
    executor: Executor,
    remembered: Remembered | None,
    on_progress: OnProgress,
    read_percent: float | None = None,
) -> AreaReport:
    """Check one area; what is broken becomes findings. Raises only what keeps from looking (``Unavailable``, keys).

    A cached index that is missing, stale or broken is no finding: it is made anew from the packs.
    """
    state = _Checking(area, executor, on_progress)
    history = _check_history(state, remembered)
    for name, error in (*broken_names(area, history.head > 0), *broken_runs(area)):
        state.note(name, error)
    index = open_index(area, frozenset(), executor, cached=False)
    try:
        for trouble in index.trouble:
            state.note(trouble.name, trouble.error)
        read_bytes = _read_packs(state, index, read_percent) if read_percent is not None else 0
        records = _check_backups(state, history, index)
        index.distrusted = frozenset(state.broken_packs | (_distrusted_before(area) - state.read_packs))
        rebuilt = _rebuild_cache(area, index)
        log = check_log(area, executor, history.state, read_percent)
        state.findings += [CheckFinding(name, error.message) for name, error in log.troubles]
        return AreaReport(
            area.title,
            len(records),
            len(index.packs),
            sum(index.packs.values()) + log.stored_bytes,
            read_bytes + log.read_bytes,
            rebuilt,
            tuple(state.findings),
        )
    finally:
        index.close()


def check_keys(store: Store) -> AreaReport:
    """Check what belongs to no area: identity, store object, key slots, epochs."""
    findings = tuple(CheckFinding(name, error.message) for name, error in broken_keys(store))
    return AreaReport(f"the keys of {store.url}", 0, 0, 0, 0, False, findings)


def _check_history(state: _Checking, remembered: Remembered | None) -> History:
    entries: list[tuple[HistoryEntry, bytes]] = []
    numbers = histories.list_numbers(state.area)

    def read(number: int) -> tuple[HistoryEntry, bytes] | IntegrityBroken | None:
        try:
            return histories.read_entry(state.area, number)
        except IntegrityBroken as error:
            return error
        except NotFound:
            return None  # deleted below a checkpoint since the listing; a hole shows in the chain

    for number, entry in zip(numbers, state.executor.map(read, numbers), strict=True):
        if isinstance(entry, IntegrityBroken):
            state.note(names.history_entry(state.area.keys.area, number), entry)
        elif entry is not None:
            entries.append(entry)
    history = histories.understand(entries)
    for unsigned in (entry for entry, _ in history.entries if not entry.counts):
        message = f"history entry {unsigned.number} would take something away and is not signed: it does not count"
        state.note(names.history_entry(state.area.keys.area, unsigned.number), message)
    lost = rules.missing_live(history.state, (entry.number for entry, _ in history.entries))
    backups = [backup for number, backup in history.state.live if number in lost]
    for message in history.breaks:
        state.note(names.history(state.area.keys.area), f"the history of {state.area.title}: {message}", backups)
    if remembered is not None:
        try:
            rules.refuse_rollback(state.area.title, remembered.seen(state.area), history.head, history.hash_of)
        except IntegrityBroken as error:
            state.note(names.history(state.area.keys.area), error)
    return history


def _read_packs(state: _Checking, index: ChunkIndex, percent: float) -> int:
    """Read packs whole, all or a random share; every chunk of a pack that fails is tried by itself."""
    chance = random.SystemRandom()
    names_of_packs = list(index.packs)
    # As many as the share says, and one at least: a small repository is not passed over in silence.
    count = min(len(names_of_packs), max(1 if percent > 0 else 0, round(len(names_of_packs) * percent / 100)))
    chosen = chance.sample(names_of_packs, count)
    total = sum(index.packs[name] for name in chosen)
    done = 0

    def read(name: PackName) -> tuple[PackName, list[tuple[ChunkId | None, IntegrityBroken]]]:
        return name, list(_broken_chunks(state.area, name))

    for name, troubles in state.executor.map(read, chosen):
        done += index.packs[name]
        state.on_progress(Progress(done, total))
        state.read_packs.add(name)
        if troubles:
            state.broken_packs.add(name)
            if any(chunk is None for chunk, _ in troubles):
                index.forget(name)
            index.forget_chunks(name, [chunk for chunk, _ in troubles if chunk])
            path = names.pack(state.area.keys.area, name)
            if all(finding.subject != path for finding in state.findings):
                state.note(path, troubles[0][1])
    return done


def _broken_chunks(area: Area, name: PackName) -> Iterator[tuple[ChunkId | None, IntegrityBroken]]:
    """Yield every broken chunk of a pack, or None in the place of one where all of it is lost."""
    what = f"pack {name.hex()[:12]}"
    try:
        data = memoryview(area.store.get(names.pack(area.keys.area, name)))
    except NotFound:
        return  # deleted by a prune since the listing
    sound = len(data) >= HASH_BYTES and blake3(data[:-HASH_BYTES]).digest() == bytes(name) == bytes(data[-HASH_BYTES:])
    try:
        facts, opener = area.open_pack_table(name, data)
    except IntegrityBroken as error:
        yield None, error
        return
    lost = False
    for frame in opener.frames:
        chunk = ChunkId(opener.ids[32 * frame.counter : 32 * frame.counter + 32])
        reason = _chunk_error(area, opener, frame, data, chunk, facts.is_list)
        if reason is not None:
            lost = True
            yield chunk, reason
    if not sound and not lost:
        # Every chunk opens, yet the bytes are not those that were written: a copy should take its place.
        yield ChunkId(b""), IntegrityBroken(f"{what} is broken: its bytes changed since they were written")


def _chunk_error(
    area: Area, opener: Opener, frame: Frame, data: memoryview, chunk: ChunkId, is_list: bool
) -> IntegrityBroken | None:
    try:
        plain = opener.open(frame, data[frame.offset : frame.offset + frame.stored])
    except IntegrityBroken as error:
        return error
    if area.keys.chunk_id(plain, data=not is_list) != chunk:
        return broken(opener.what, f"chunk {chunk.hex()[:12]} is something else")
    return None


def _check_backups(state: _Checking, history: History, index: ChunkIndex) -> list[BackupRecord]:
    records = []
    reader = ChunkReader(state.area, index)
    for entry in history.live_entries():
        backup = entry.backups[0]
        try:
            record = histories.record_of(state.area, entry)
            records.append(record)
            missing = _missing_chunks(state, reader, index, record)
        except IntegrityBroken as error:
            state.note(f"backup {backup}", error, [backup])
            continue
        if missing:
            lost = f"{missing} of its chunks are in no sound pack"
            state.note(f"backup {backup}", f"backup {backup} cannot be restored in full: {lost}", [backup])
    return records


def _missing_chunks(state: _Checking, reader: ChunkReader, index: ChunkIndex, record: BackupRecord) -> int:
    """Walk a backup's lists and count chunks that are nowhere. Lists found sound before are not walked again."""
    missing = 0
    refs: list[ContentRef] = []
    for entry in read_tree(reader, record, state.executor):
        if entry.ref is not None and entry.ref.id is not None:
            refs.append(entry.ref)
        if len(refs) >= ENTRIES_PER_BATCH:
            missing += _walk(state, reader, index, refs)
            refs = []
    return missing + _walk(state, reader, index, refs)


def _walk(state: _Checking, reader: ChunkReader, index: ChunkIndex, refs: Sequence[ContentRef]) -> int:
    fresh = [ref for ref in refs if ref.id is not None and ref.id not in state.sound_lists]
    missing = _count_missing(index, [ref.id for ref in fresh if ref.depth == 0 and ref.id is not None])
    roots = [ref for ref in fresh if ref.depth == 2]
    leaves = [(ref.id, ref.size) for ref in fresh if ref.depth == 1 and ref.id is not None]
    for ref, plain in zip(roots, reader.read_lists([ref.id for ref in roots if ref.id], state.executor), strict=True):
        leaves += parse_root("a list of chunks", plain, ref.size)
    for start in range(0, len(leaves), LISTS_PER_BATCH):
        batch = [leaf for leaf in leaves[start : start + LISTS_PER_BATCH] if leaf[0] not in state.sound_lists]
        plains = reader.read_lists([leaf for leaf, _ in batch], state.executor)
        for (leaf, size), plain in zip(batch, plains, strict=True):
            lost = _count_missing(index, [row.id for row in parse_leaf("a list of chunks", plain, size)])
            missing += lost
            if not lost:
                state.sound_lists.add(leaf)
    return missing


def _count_missing(index: ChunkIndex, chunks: Sequence[ChunkId]) -> int:
    return sum(at is None for at in index.find(chunks))


def _rebuild_cache(area: Area, index: ChunkIndex) -> bool:
    """Put a new index where the stored one does not tell what the packs tell; return whether that was done."""
    stored = [info.name for info in area.store.list(names.index(area.keys.area))]
    if _tells_enough(area, stored, index):
        return False
    try:
        new = save_index(index)
        for name in stored:
            if name != new:
                area.store.delete(name)
    except Denied:
        return False  # credentials that may only read; the cache is remade by the next backup
    return True


def _tells_enough(area: Area, stored: Sequence[str], index: ChunkIndex) -> bool:
    """Whether the stored segments open, cover every pack, and tell which of them are broken.

    Remote ones are not fetched only to be looked at.
    """
    covered: set[PackName] = set()
    distrusted: set[PackName] = set()
    for name in stored:
        path = area.store.local_path(name)
        if path is None:
            return not index.distrusted
        try:
            with Segment.open(path, area.claim(ObjectType.INDEX), area.keys.of_epoch) as segment:
                covered |= {pack.name for pack in segment.packs}
                distrusted |= {pack.name for pack in segment.packs if pack.distrusted}
        except (IntegrityBroken, FileNotFoundError):
            return False
    return covered >= set(index.packs) and distrusted == index.distrusted


def _distrusted_before(area: Area) -> set[PackName]:
    """Return the packs that an earlier check found broken, as far as segments at hand here tell."""
    found: set[PackName] = set()
    for info in area.store.list(names.index(area.keys.area)):
        path = area.store.local_path(info.name)
        if path is None:
            continue
        with (
            suppress(IntegrityBroken, FileNotFoundError),
            Segment.open(path, area.claim(ObjectType.INDEX), area.keys.of_epoch) as segment,
        ):
            found |= {pack.name for pack in segment.packs if pack.distrusted}
    return found
