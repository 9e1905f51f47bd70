"""The history protocol explored completely: every interleaving of a few processes, each stopping anywhere for ever.

The processes decide by the program's own rule functions (``repository/format/rules.py``); only the store, the packs and
the chunks are made up. One step is one operation on the store. A process that dies is one that takes no further step,
so every state reached is also one in which any of them is dead. Chunks, packs and entries are small numbers: packs are
bits of a mask, a history is a tuple of numbers of entries.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pytest
from tests.unit.repository.repository_examples import NOW, RUN

from holdfast.repository.format import rules
from holdfast.repository.format.entry import Checkpoint, EntryKind, HistoryEntry
from holdfast.repository.format.names import BackupId, PackName
from holdfast.repository.format.rules import HistoryState

Numbers: TypeAlias = tuple[int, ...]
Local: TypeAlias = tuple[int | Numbers, ...]
"""Where a process stands: its step first, then what it keeps in mind."""
World: TypeAlias = tuple[Numbers, int]
"""What lies in the store: the entries in order of number, and the packs."""
State: TypeAlias = tuple[World, tuple[Local, ...]]

Column: TypeAlias = npt.NDArray[np.int64]
T = TypeVar("T", bound=Hashable)

PLACE_BITS = 40
RIGHT_BITS = 20
PART = 1 << 21
DONE, FAILED = (-1,), (-2,)
SIZE = 100


class Violation(AssertionError):
    """A state that must never be reached."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """Ways in which a process may break the rules, to show that the exploration notices."""

    writers_ignore_condemned: bool = False
    writers_look_once: bool = False
    writers_trust_their_put: bool = False
    prunes_put_without_reading: bool = False
    checkpoints_forget: bool = False
    checkpoints_add_up: bool = False


class Model:
    """Packs, entries and rules as the processes see them; everything asked for is worked out once."""

    def __init__(self, mutation: Mutation) -> None:
        self.mutation = mutation
        self.entries: list[HistoryEntry] = []
        self.chunks: list[frozenset[str]] = []
        self.needs: dict[BackupId, frozenset[str]] = {}
        self._entry_numbers: dict[HistoryEntry, int] = {}
        self._pack_numbers: dict[tuple[str, frozenset[str]], int] = {}
        for name in ("meaning", "is_broken", "by_number", "mask_of", "unusable", "deletable", "stored"):
            setattr(self, name, cache(getattr(self, name)))

    def pack(self, maker: str, chunks: frozenset[str]) -> int:
        """Return the bit of the pack that a process makes of these chunks."""
        key = (maker, chunks)
        if key not in self._pack_numbers:
            self._pack_numbers[key] = len(self.chunks)
            self.chunks.append(chunks)
        return 1 << self._pack_numbers[key]

    @staticmethod
    def pack_name(number: int) -> PackName:
        return PackName(bytes([number]) * 32)

    def listing(self, mask: int) -> dict[PackName, int]:
        return {self.pack_name(number): SIZE for number in range(len(self.chunks)) if mask >> number & 1}

    def mask_of(self, names: frozenset[PackName]) -> int:
        return sum(1 << name[0] for name in names)

    def stored(self, mask: int) -> frozenset[str]:
        """Return the chunks that lie in some pack of these."""
        return frozenset().union(*(self.chunks[number] for number in range(len(self.chunks)) if mask >> number & 1))

    def entry(self, entry: HistoryEntry) -> int:
        if entry not in self._entry_numbers:
            self._entry_numbers[entry] = len(self.entries)
            self.entries.append(entry)
        return self._entry_numbers[entry]

    def digest(self, entry: HistoryEntry) -> bytes:
        return f"{entry.host}@{entry.number}".encode()

    def read(self, view: Numbers) -> list[tuple[HistoryEntry, bytes]]:
        return [(self.entries[each], self.digest(self.entries[each])) for each in view]

    def meaning(self, view: Numbers) -> HistoryState:
        entries = [self.entries[each] for each in view]
        state = rules.meaning_of(entries)
        if self.mutation.checkpoints_add_up:
            prunes = [entry.checkpoint.condemned for entry in entries if entry.kind is EntryKind.PRUNE]
            state = replace(state, condemned=frozenset().union(*prunes))
        return state

    def is_broken(self, view: Numbers) -> bool:
        state, entries = self.meaning(view), self.read(view)
        numbers = [entry.number for entry, _ in entries]
        return bool(rules.chain_breaks(entries, rules.first_needed(state)) or rules.missing_live(state, numbers))

    def by_number(self, history: Numbers) -> dict[int, int]:
        return {self.entries[each].number: each for each in history}

    def unusable(self, view: Numbers, needed: int, listed: int) -> bool:
        state = self.meaning(view)
        if self.mutation.writers_ignore_condemned:
            state = replace(state, condemned=frozenset())
        return bool(rules.unusable_packs(state, self.listing(needed), self.listing(listed)))

    def deletable(self, view: Numbers, listed: int) -> int:
        return self.mask_of(frozenset(rules.deletable(self.meaning(view), self.listing(listed))))

    def next_entry(self, view: Numbers, entry: HistoryEntry) -> HistoryEntry:
        head = self.entries[view[-1]] if view else None
        number = head.number + 1 if head else 1
        return replace(entry, number=number, previous=self.digest(head) if head else None)

    def put(self, history: Numbers, entry: HistoryEntry) -> Numbers | None:
        """Return the history with an entry more, None where its number is taken."""
        if entry.number in self.by_number(history):
            return None
        return tuple(sorted((*history, self.entry(entry)), key=lambda each: self.entries[each].number))

    def read_on(self, view: Numbers, history: Numbers) -> Numbers | None:
        """Return the view with the next entry, None where that cannot be read or does not follow."""
        following = self.by_number(history).get(self.entries[view[-1]].number + 1 if view else 1)
        if following is None or self.is_broken((*view, following)):
            return None
        return (*view, following)

    def is_lost(self, history: Numbers, mine: int) -> bool:
        number = self.entries[mine].number
        numbers = self.by_number(history)
        if max(numbers) <= number or self.mutation.writers_trust_their_put:
            return False
        following = numbers.get(number + 1)
        return rules.is_lost(
            self.digest(self.entries[mine]), self.entries[following] if following is not None else None
        )


def entry_of(kind: EntryKind, host: str, backup: BackupId | None = None) -> HistoryEntry:
    return HistoryEntry(0, kind, None, host, RUN, NOW, backups=(backup,) if backup else ())


Steps: TypeAlias = Iterator[tuple[Local, World]]


@dataclass(frozen=True, slots=True)
class Writer:
    """Backs up: what lies in packs it saw is counted on, the rest is put."""

    name: str
    wants: frozenset[str]

    @property
    def backup(self) -> BackupId:
        return BackupId(self.name)

    def steps(self, model: Model, local: Local, world: World) -> Steps:
        history, packs = world
        match local:
            case (0,):  # read the history
                yield (FAILED if model.is_broken(history) else (1, history)), world
            case (1, tuple(view)):  # list the packs and decide what to count on
                needed, missing = self._choose(model, view, packs)
                yield (2, view, needed, missing), world
            case (2, tuple(view), int(needed), int(missing)) if missing:  # put a pack
                lowest = missing & -missing
                yield (2, view, needed, missing ^ lowest), (history, packs | lowest)
            case (2 | 3, tuple(view), int(needed), *_):  # list the packs: rule 2
                first = local[0] == 2
                look = first or not model.mutation.writers_look_once
                bad = look and model.unusable(view, needed, packs)
                yield (FAILED if bad else (4, view, needed)), world
            case (4, tuple(view), int(needed)):  # put the entry, or read the one that is there
                entry = model.next_entry(view, entry_of(EntryKind.BACKUP, self.name, self.backup))
                after = model.put(history, entry)
                if after is not None:
                    yield (5, model.entry(entry)), (after, packs)
                    return
                longer = model.read_on(view, history)
                yield (FAILED if longer is None else (3, longer, needed)), world
            case (5, int(mine)):  # list the history: rule 1
                yield (FAILED if model.is_lost(history, mine) else DONE), world

    def _choose(self, model: Model, view: Numbers, listed: int) -> tuple[int, int]:
        usable = listed
        if not model.mutation.writers_ignore_condemned:
            usable &= ~model.mask_of(model.meaning(view).condemned)
        needed = missing = 0
        for chunk in sorted(self.wants):
            found = [n for n in range(len(model.chunks)) if usable >> n & 1 and chunk in model.chunks[n]]
            bit = 1 << found[0] if found else model.pack(self.name, frozenset({chunk}))
            needed |= bit
            missing |= 0 if found else bit
        return needed, missing


@dataclass(frozen=True, slots=True)
class Expirer:
    """Takes one backup away."""

    name: str
    backup: BackupId

    def steps(self, model: Model, local: Local, world: World) -> Steps:
        history, packs = world
        match local:
            case (0,):
                yield (FAILED if model.is_broken(history) else (1, history)), world
            case (1, tuple(view)):
                if self.backup not in model.meaning(view).live_ids:
                    yield FAILED, world
                    return
                entry = model.next_entry(view, entry_of(EntryKind.EXPIRE, self.name, self.backup))
                after = model.put(history, entry)
                if after is not None:
                    yield (2, model.entry(entry)), (after, packs)
                    return
                longer = model.read_on(view, history)
                yield (FAILED if longer is None else (1, longer)), world
            case (2, int(mine)):
                yield (FAILED if model.is_lost(history, mine) else DONE), world


@dataclass(frozen=True, slots=True)
class Pruner:
    """Repacks what is partly needed, condemns the rest by a checkpoint, and deletes what is condemned.

    With ``deletes`` false the deleting is left to others (who decide and delete in one step).
    """

    name: str
    deletes: bool = True

    def steps(self, model: Model, local: Local, world: World) -> Steps:
        history, packs = world
        match local:
            case (0,):
                yield (FAILED if model.is_broken(history) else (1, history)), world
            case (1, tuple(view)):  # list the packs and decide
                yield self._plan(model, view, packs), world
            case (2, tuple(view), int(missing)) if missing:  # put a repacked pack
                lowest = missing & -missing
                after = missing ^ lowest
                yield ((2, view, after) if after else (1, view)), (history, packs | lowest)
            case (3, tuple(view), int(condemned)):  # put the entry, or read the one that is there
                entry = self._entry(model, view, history, condemned)
                put = model.put(history, entry)
                if put is not None:
                    yield (4, model.entry(entry)), (put, packs)
                    return
                longer = model.read_on(view, history)
                yield (FAILED if longer is None else (1, longer)), world
            case (4, int(mine)):
                yield (FAILED if model.is_lost(history, mine) else (5,) if self.deletes else DONE), world
            case (5,):  # read the history and list the packs again: what may be deleted
                broken = model.is_broken(history)
                batch = 0 if broken else model.deletable(history, packs)
                yield ((6, batch) if batch else DONE), world
            case (6, int(batch)):  # delete one, perhaps long after it was decided
                lowest = batch & -batch
                left = batch ^ lowest
                yield ((6, left) if left else DONE), (history, packs & ~lowest)

    def _needed(self, model: Model, view: Numbers) -> frozenset[str]:
        return frozenset().union(*(model.needs[backup] for backup in model.meaning(view).live_ids))

    def _kept(self, model: Model, view: Numbers, listed: int) -> tuple[int, frozenset[str]]:
        """Return the packs that stay, as few as will do, and the chunks that must be repacked first."""
        needed, condemned = self._needed(model, view), model.mask_of(model.meaning(view).condemned)
        kept, covered = 0, set[str]()
        for number, chunks in enumerate(model.chunks):
            if (listed & ~condemned) >> number & 1 and chunks <= needed and not chunks <= covered:
                kept |= 1 << number
                covered |= chunks
        return kept, needed - covered

    def _plan(self, model: Model, view: Numbers, listed: int) -> Local:
        kept, uncovered = self._kept(model, view, listed)
        if not uncovered:
            state = model.meaning(view)
            point = rules.checkpoint_of(state, model.listing(listed), lambda name: bool(kept >> name[0] & 1))
            condemned = frozenset(point.condemned)
            if model.mutation.checkpoints_forget:
                condemned -= state.condemned
            return (3, view, model.mask_of(condemned))
        missing = sum(model.pack(self.name, frozenset({chunk})) for chunk in sorted(uncovered))
        # A name that somebody condemned meanwhile is never used again: this run gives up.
        spent = missing & (listed | model.mask_of(model.meaning(view).condemned))
        return FAILED if spent or not uncovered <= model.stored(listed) else (2, view, missing)

    def _entry(self, model: Model, view: Numbers, history: Numbers, condemned: int) -> HistoryEntry:
        state = model.meaning(view)
        listed = model.listing(condemned)
        # What was decided with the listing at hand, in the words of the rules.
        point = rules.checkpoint_of(state, listed, lambda _: False)
        assert isinstance(point, Checkpoint)
        chained = history if model.mutation.prunes_put_without_reading else view
        return model.next_entry(chained, replace(entry_of(EntryKind.PRUNE, self.name), checkpoint=point))


Process: TypeAlias = Writer | Expirer | Pruner


@dataclass(frozen=True, slots=True)
class Found:
    """What an exploration saw."""

    states: int
    reported: frozenset[str]
    checkpoints_max: int
    freed: bool


@dataclass(frozen=True, slots=True)
class Setting:
    """What an exploration begins with: ``age`` lets entries below a checkpoint go; ``asleep`` has the last process
    have read the history before the entry that is now the newest."""

    mutation: Mutation = Mutation()
    age: bool = True
    asleep: bool = False


class Numbered(Generic[T]):
    """Gives every value a number, the first ones the lowest."""

    def __init__(self) -> None:
        self.values: list[T] = []
        self._numbers: dict[T, int] = {}

    def number(self, value: T) -> int:
        found = self._numbers.setdefault(value, len(self.values))
        if found == len(self.values):
            self.values.append(value)
        return found


class Pairs:
    """Numbers pairs of numbers, many at a time."""

    def __init__(self) -> None:
        self._pairs = np.zeros(0, np.int64)
        self._sorted = np.zeros(0, np.int64)
        self._numbers = np.zeros(0, np.int64)

    def numbers(self, left: Column, right: Column) -> Column:
        packed = left << RIGHT_BITS | right
        if len(packed) and (int(right.max()) >> RIGHT_BITS or int(left.max()) >> PLACE_BITS):
            raise RuntimeError("there are more places than there is room to number")
        new = np.setdiff1d(packed, self._sorted)
        if len(new):
            merged = np.concatenate([self._sorted, new])
            counted = np.concatenate([self._numbers, np.arange(len(self._pairs), len(self._pairs) + len(new))])
            order = np.argsort(merged, kind="stable")
            self._sorted, self._numbers = merged[order], counted[order]
            self._pairs = np.concatenate([self._pairs, new])
        found: Column = self._numbers[np.searchsorted(self._sorted, packed)]
        return found

    def pairs(self, numbers: Column) -> tuple[Column, Column]:
        packed = self._pairs[numbers]
        return packed >> RIGHT_BITS, packed & ((1 << RIGHT_BITS) - 1)


class Places:
    """Where all processes stand, as one number: the first two together, these and the third, and so on."""

    def __init__(self, processes: int) -> None:
        self._joints = [Pairs() for _ in range(processes - 1)]

    def numbers(self, rows: Column) -> Column:
        joined = rows[:, 0]
        for place, joint in enumerate(self._joints, 1):
            joined = joint.numbers(joined, rows[:, place])
        return joined

    def rows(self, numbers: Column) -> Column:
        columns = []
        for joint in reversed(self._joints):
            numbers, last = joint.pairs(numbers)
            columns.append(last)
        return np.stack([numbers, *reversed(columns)], axis=1)


class Explorer:
    """Visits every state that the processes, whoever deletes packs, and whoever deletes old entries can reach.

    States are visited by their distance from the start, all of one distance at once. A state is one number, of its
    world and of where the processes stand; what one process does in one world is worked out once.
    """

    def __init__(self, processes: Sequence[Process], setting: Setting) -> None:
        self.model = Model(setting.mutation)
        self.processes = tuple(processes)
        self.setting = setting
        self._alive = cache(self._check_world)
        self._worlds: Numbered[World] = Numbered()
        self._locals: list[Numbered[Local]] = [Numbered() for _ in self.processes]
        self._places = Places(len(self.processes))
        self._step = cache(self._work_out_step)
        self._upkeep = cache(self._work_out_upkeep)

    def start(self) -> State:
        """Two chunks in one pack of which a backup needs one, and a pack that nobody needs."""
        model = self.model
        first = BackupId("first")
        model.needs = {first: frozenset("a")} | {
            each.backup: each.wants for each in self.processes if isinstance(each, Writer)
        }
        packs = model.pack("first", frozenset("ab")) | model.pack("dead", frozenset("c"))
        history: Numbers = (model.entry(model.next_entry((), entry_of(EntryKind.BACKUP, "first", first))),)
        locals_: list[Local] = [(0,) for _ in self.processes]
        if self.setting.asleep:
            locals_[-1] = (1, history)
            noted = model.next_entry(history, entry_of(EntryKind.VERIFIED, "drill", first))
            history = (*history, model.entry(noted))
        return (history, packs), tuple(locals_)

    def explore(self, states_max: int) -> Found:
        """Visit every state; more than ``states_max`` is an error."""
        world, locals_ = self.start()
        row = [numbered.number(local) for numbered, local in zip(self._locals, locals_, strict=True)]
        seen = self._key(np.array([self._worlds.number(world)]), self._places.numbers(np.array([row])))
        self._check(seen)
        reached = seen
        while len(reached):
            reached = np.setdiff1d(self._successors(reached), seen, assume_unique=True)
            self._check(reached)
            seen = np.sort(np.concatenate([seen, reached]), kind="stable")
            if len(seen) > states_max:
                raise RuntimeError(f"more than {states_max} states")
        return self._found(seen)

    @staticmethod
    def _key(worlds: Column, places: Column) -> Column:
        return worlds << PLACE_BITS | places

    @staticmethod
    def _split(keys: Column) -> tuple[Column, Column]:
        return keys >> PLACE_BITS, keys & ((1 << PLACE_BITS) - 1)

    def _successors(self, keys: Column) -> Column:
        """Return the states one step on, each once; in parts, so that memory is for states that differ."""
        parts = [self._steps_of(keys[start : start + PART]) for start in range(0, len(keys), PART)]
        return np.unique(np.concatenate(parts))

    def _steps_of(self, keys: Column) -> Column:
        worlds, places = self._split(keys)
        rows = self._places.rows(places)
        found = []
        for number in range(len(self.processes)):
            distinct, inverse = np.unique(worlds << PLACE_BITS | rows[:, number], return_inverse=True)
            after = np.array([self._step(number, pair) for pair in distinct.tolist()])[inverse]
            moves = after >= 0
            moved = rows[moves]
            next_worlds, moved[:, number] = self._split(after[moves])
            found.append(self._key(next_worlds, self._places.numbers(moved)))
        distinct, inverse = np.unique(worlds, return_inverse=True)
        upkeep = [self._upkeep(world) for world in distinct.tolist()]
        for place in range(max(map(len, upkeep))):
            after = np.array([worlds[place] if place < len(worlds) else -1 for worlds in upkeep])[inverse]
            found.append(self._key(after[after >= 0], places[after >= 0]))
        return np.unique(np.concatenate(found))

    def _work_out_step(self, number: int, pair: int) -> int:
        """Return where a process gets from a world and a place, both as in the key of a state; -1 is nowhere."""
        world, local = pair >> PLACE_BITS, pair & ((1 << PLACE_BITS) - 1)
        before = self._worlds.values[world]
        steps = list(self.processes[number].steps(self.model, self._locals[number].values[local], before))
        if not steps:
            return -1
        ((after, changed),) = steps
        self._check_change(before, changed)
        return self._worlds.number(changed) << PLACE_BITS | self._locals[number].number(after)

    def _work_out_upkeep(self, world: int) -> list[int]:
        """Return what anybody may do at any time: delete a condemned pack; delete an entry that is not needed."""
        before = self._worlds.values[world]
        changed = list(self._deletions(before))
        for after in changed:
            self._check_change(before, after)
        return [self._worlds.number(after) for after in changed]

    def _deletions(self, world: World) -> Iterator[World]:
        history, packs = world
        batch = self.model.deletable(history, packs)
        while batch:
            lowest = batch & -batch
            batch ^= lowest
            yield history, packs & ~lowest
        if not self.setting.age:
            return
        meaning = self.model.meaning(history)
        live = {number for number, _ in meaning.live}
        for each in history:
            number = self.model.entries[each].number
            if number < meaning.checkpoint and number not in live:
                yield tuple(other for other in history if other != each), packs

    def _found(self, keys: Column) -> Found:
        reported = {
            process.name for process, local in zip(self.processes, self._locals, strict=True) if DONE in local.values
        }
        checkpoints, freed = 0, False
        for history, _ in self._worlds.values:
            entries = [self.model.entries[each] for each in history]
            checkpoints = max(checkpoints, sum(entry.kind is EntryKind.PRUNE for entry in entries))
            freed = freed or entries[0].number > 1 or len(entries) < entries[-1].number
        return Found(len(keys), frozenset(reported), checkpoints, freed)

    def _check(self, keys: Column) -> None:
        """Check states: every world's chain and chunks, and that who reported success left its backup there."""
        worlds, places = self._split(keys)
        distinct, inverse = np.unique(worlds, return_inverse=True)
        alive = [self._alive(self._worlds.values[world]) for world in distinct.tolist()]
        rows = self._places.rows(places)
        for number, process in enumerate(self.processes):
            if not isinstance(process, Writer) or DONE not in self._locals[number].values:
                continue
            done = rows[:, number] == self._locals[number].number(DONE)
            gone = done & ~np.array([process.backup in live for live in alive], bool)[inverse]
            if gone.any():
                at = int(np.flatnonzero(gone)[0])
                locals_ = tuple(each.values[row] for each, row in zip(self._locals, rows[at].tolist(), strict=True))
                state = self._worlds.values[int(worlds[at])], locals_
                raise Violation(f"{process.name} reported success and its backup is not there: {self.told(state)}")

    def _check_world(self, world: World) -> frozenset[BackupId]:
        """Look as a reader does that comes for the first time; return the live backups."""
        history, packs = world
        if self.model.is_broken(history):
            raise Violation(f"the chain is broken: {self.told((world, ()))}")
        live = self.model.meaning(history).live_ids
        for backup in live:
            if not self.model.needs[backup] <= self.model.stored(packs):
                raise Violation(f"{backup} is live and has lost a chunk: {self.told((world, ()))}")
        return live

    def _check_change(self, before: World, after: World) -> None:
        lost = self._alive(before) - self._alive(after)
        new = set(after[0]) - set(before[0])
        expired = {
            backup
            for each in new
            if self.model.entries[each].kind is EntryKind.EXPIRE
            for backup in self.model.entries[each].backups
        }
        if not lost <= expired:
            raise Violation(f"{lost} went without being expired: {self.told((before, ()))} to {self.told((after, ()))}")

    def told(self, state: State) -> str:
        (history, packs), locals_ = state
        entries = [self.model.entries[each] for each in history]
        chain = [f"{entry.number} {entry.kind} by {entry.host}" for entry in entries]
        kept = [sorted(self.model.chunks[n]) for n in range(len(self.model.chunks)) if packs >> n & 1]
        return f"{chain}, packs {kept}, {locals_}"


WRITER_B = Writer("writer b", frozenset("b"))
WRITER_AC = Writer("writer ac", frozenset("ac"))
EXPIRER = Expirer("expirer", BackupId("first"))
PRUNER, PRUNER_2 = Pruner("pruner 1"), Pruner("pruner 2")
WRITER_A = Writer("writer a", frozenset("a"))
PLANNERS = (Pruner("pruner 1", deletes=False), Pruner("pruner 2", deletes=False))
STATES_MAX = 3_000_000


def explored(*processes: Process, setting: Setting = Setting()) -> Found:
    return Explorer(processes, setting).explore(STATES_MAX)


def names_of(*processes: Process) -> set[str]:
    return {process.name for process in processes}


@pytest.mark.parametrize(
    ("processes", "states_min"),
    [
        ((WRITER_B, PRUNER), 300),
        ((WRITER_B, WRITER_AC, PRUNER), 6_000),
        ((WRITER_B, EXPIRER, PRUNER), 15_000),
        ((WRITER_B, PRUNER, PRUNER_2), 250_000),
    ],
    ids=lambda value: "-".join(process.name for process in value) if isinstance(value, tuple) else "",
)
def test_no_interleaving_loses_a_chunk_or_a_backup(processes: tuple[Process, ...], states_min: int) -> None:
    found = explored(*processes)
    assert found.states > states_min
    # Everybody can get to the end, or the exploration would prove nothing.
    assert found.reported == names_of(*processes)
    assert found.checkpoints_max == sum(isinstance(process, Pruner) for process in processes)


@pytest.mark.parametrize("sleeper", [WRITER_B, EXPIRER, PRUNER_2], ids=lambda process: process.name)
def test_who_slept_while_its_number_was_freed_changes_nothing(sleeper: Process) -> None:
    found = explored(PRUNER, sleeper, setting=Setting(asleep=True))
    assert found.freed
    assert found.reported == names_of(PRUNER, sleeper)


@pytest.mark.parametrize(
    ("mutation", "processes", "asleep"),
    [
        (Mutation(writers_ignore_condemned=True), (WRITER_B, PRUNER), False),
        (Mutation(writers_look_once=True), (WRITER_B, PRUNER), False),
        (Mutation(writers_trust_their_put=True), (WRITER_B, EXPIRER, PRUNER), False),
        (Mutation(prunes_put_without_reading=True), (WRITER_B, PRUNER), False),
        (Mutation(checkpoints_forget=True), (WRITER_B, PRUNER, PRUNER_2), False),
        (Mutation(checkpoints_add_up=True), (WRITER_B, PRUNER, PRUNER_2), True),
    ],
    ids=[
        "a writer counts on condemned packs",
        "a writer does not look again behind another's entry",
        "a writer does not look behind its put",
        "a prune puts its entry behind entries it did not read",
        "a checkpoint does not condemn again what is still listed",
        "what was condemned below a checkpoint counts above it",
    ],
)
def test_the_exploration_finds_what_a_broken_rule_loses(
    mutation: Mutation, processes: tuple[Process, ...], asleep: bool
) -> None:
    with pytest.raises(Violation):
        explored(*processes, setting=Setting(mutation, asleep=asleep))


@pytest.mark.soak
def test_a_prune_that_slept_condemns_nothing_that_others_came_to_count_on() -> None:
    found = explored(WRITER_B, PRUNER, PRUNER_2, setting=Setting(asleep=True))
    print(f"{found.states} states")
    assert found.states > 500_000
    assert found.reported == names_of(WRITER_B, PRUNER, PRUNER_2)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("processes", "age", "states_min"),
    [
        ((WRITER_AC, PRUNER, PRUNER_2), True, 300_000),
        ((WRITER_B, WRITER_AC, EXPIRER, PRUNER), True, 800_000),
        ((WRITER_B, WRITER_A, *PLANNERS), False, 700_000),
        ((WRITER_B, EXPIRER, *PLANNERS), False, 750_000),
    ],
    ids=lambda value: "-".join(process.name for process in value) if isinstance(value, tuple) else "",
)
def test_no_interleaving_of_more_processes_loses_anything(
    processes: tuple[Process, ...], age: bool, states_min: int
) -> None:
    found = explored(*processes, setting=Setting(age=age))
    print(f"{found.states} states")
    assert found.states > states_min
    assert found.reported == names_of(*processes)


@pytest.mark.soak
def test_two_writers_an_expirer_and_two_prunes_lose_nothing_in_any_order() -> None:
    processes = (WRITER_B, WRITER_A, EXPIRER, *PLANNERS)
    found = Explorer(processes, Setting(age=False)).explore(40_000_000)
    print(f"{found.states} states")
    assert found.states > 27_000_000
    assert found.reported == names_of(*processes)
    assert found.checkpoints_max == 2
