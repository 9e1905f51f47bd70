"""The history of an area: who may put what behind what, and what every reader makes of it."""

from __future__ import annotations

import threading
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.repository.repository_examples import (
    NOW,
    REPOSITORY,
    ROOT,
    RUN,
    area_keys,
    area_of,
    backup_entry,
    entry_like,
    memory,
    replace_object,
)

from holdfast.model.documents import JsonObject, encode_document
from holdfast.model.errors import Conflict, IntegrityBroken, NotFound
from holdfast.repository import history as histories
from holdfast.repository.area import Area
from holdfast.repository.format import names, rules
from holdfast.repository.format.container import ContainerBuilder, ObjectType
from holdfast.repository.format.entry import (
    CONDEMNED_PER_FRAME,
    Checkpoint,
    EntryKind,
    HistoryEntry,
    Mark,
    encode_entry,
    parse_entry,
)
from holdfast.repository.format.keys import RootKeys
from holdfast.repository.format.names import BackupId, PackName, StoreId
from holdfast.repository.format.rules import HistoryState
from holdfast.repository.history import History
from holdfast.repository.remembered import Remembered

A, B, C = (BackupId(letter * 32) for letter in "abc")


def read(area: Area, executor: Executor, remembered: Remembered | None = None) -> History:
    return histories.read_history(area, executor, remembered)


def put(area: Area, executor: Executor, *entries: HistoryEntry) -> History:
    history = read(area, executor)
    for entry in entries:
        history = histories.append(area, history, lambda _, entry=entry: entry)  # type: ignore[misc]
    return history


def entry_name(area: Area, number: int) -> str:
    return names.history_entry(area.keys.area, number)


def raw_entry(area: Area, number: int, document: JsonObject, *frames: bytes, epoch: int = 1) -> None:
    """Put any document under a number, sealed with the area's key: what a newer or a false writer could do."""
    claim = area.claim(ObjectType.HISTORY, area.store_id + number.to_bytes(8, "little"))
    builder = ContainerBuilder(claim, area.keys.of_epoch(epoch), epoch)
    for frame in (encode_document(document), *frames):
        builder.add_plain(frame)
    area.store.create(entry_name(area, number), bytes(builder.finish()[0]))


def document_of(number: int, kind: str, previous: bytes | None, **more: object) -> JsonObject:
    document: JsonObject = {"kind": kind, "number": number, "previous": previous.hex() if previous else None}
    document |= {"host": "there", "run": RUN, "at": "2026-03-01T12:00:00.000000Z", "store_offset_seconds": None}
    return document | more  # type: ignore[operator]


KINDS = [kind for kind in EntryKind if kind is not EntryKind.BACKUP]
IDS = st.text("0123456789abcdef", min_size=32, max_size=32).map(BackupId)


@given(
    kind=st.sampled_from(KINDS),
    backups=st.lists(IDS, min_size=1, max_size=3),
    reason=st.text(max_size=20),
    offset=st.one_of(st.none(), st.floats(-1e6, 1e6).map(lambda number: round(number, 3))),
    condemned=st.lists(st.binary(min_size=32, max_size=32).map(PackName), max_size=4),
    held=st.lists(IDS, max_size=2),
)
@settings(max_examples=100, deadline=None)
def test_an_entry_comes_back(
    kind: EntryKind,
    backups: list[BackupId],
    reason: str,
    offset: float | None,
    condemned: list[PackName],
    held: list[BackupId],
) -> None:
    entry = HistoryEntry(5, kind, bytes(32), "here", RUN, NOW, offset)
    if kind is EntryKind.PRUNE:
        live = tuple((number + 1, backup) for number, backup in enumerate(backups))
        point = Checkpoint(live, tuple(held), tuple(backups), (("id", "7"),) if held else None, tuple(condemned))
        point = replace(point, marks=(Mark(reason, NOW, {"lsn": "0/3000028"}),) if held else ())
        entry = replace(entry, checkpoint=point)
    elif kind is EntryKind.ADOPT:
        entry = replace(entry, identity=(("id", reason),), reason=reason)
    elif kind is EntryKind.MARK:
        entry = replace(entry, mark=Mark(reason, NOW, {"lsn": "0/3000028"}))
    elif kind is EntryKind.CONDEMN:
        entry = replace(entry, reason=reason)
    else:
        named = tuple(backups) if kind is EntryKind.EXPIRE else tuple(backups[:1])
        entry = replace(entry, backups=named, reason=reason)
    frames = encode_entry(entry)
    # A signature is the last frame of a prune; its condemned packs are what lies between.
    assert parse_entry("it", 5, 1, [*frames, bytes(64)]) == entry
    with pytest.raises(IntegrityBroken):
        parse_entry("it", 6, 1, [*frames, bytes(64)])


def test_more_condemned_packs_than_one_frame_holds_come_back() -> None:
    condemned = tuple(PackName(number.to_bytes(32, "big")) for number in range(CONDEMNED_PER_FRAME + 1))
    entry = replace(
        HistoryEntry(5, EntryKind.PRUNE, None, "here", RUN, NOW), checkpoint=Checkpoint(condemned=condemned)
    )
    frames = encode_entry(entry)
    assert len(frames) == 3
    assert parse_entry("it", 5, 1, [*frames, bytes(64)]).checkpoint.condemned == condemned


def test_entries_that_are_none_are_refused() -> None:
    for frames in ([], [b""], [b"[]"], [b"{}"], [encode_document(document_of(5, "backup", None))]):
        with pytest.raises(IntegrityBroken):
            parse_entry("it", 5, 1, frames)
    prune = document_of(5, "prune", None, live=[], held=[], verified=[], identity=None)
    with pytest.raises(IntegrityBroken):
        parse_entry("it", 5, 1, [encode_document(prune), bytes(33), bytes(64)])


def test_many_that_append_at_once_all_get_numbers_of_their_own(executor: Executor, tmp_path: Path) -> None:
    area, writers, each = area_of(), 8, 4
    barrier = threading.Barrier(writers, timeout=20)
    remembered = Remembered(tmp_path)

    def write(writer: int) -> None:
        history = read(area, executor)
        barrier.wait()
        for number in range(each):
            entry = backup_entry(area, f"{writer:016x}{number:016x}")
            history = histories.append(area, history, lambda _, entry=entry: entry, remembered)  # type: ignore[misc]

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, range(writers)))
    history = read(area, executor, remembered)
    assert history.head == writers * each
    assert len(history.state.live) == writers * each
    assert history.breaks == ()
    assert remembered.seen(area) == (history.head, history.head_hash)


def test_a_writer_whose_number_was_taken_reads_on_and_decides_again(executor: Executor) -> None:
    area = area_of()
    history = read(area, executor)
    put(area, executor, backup_entry(area, A), backup_entry(area, B))
    seen: list[HistoryState] = []

    def decide(state: HistoryState) -> HistoryEntry:
        seen.append(state)
        return backup_entry(area, C)

    after = histories.append(area, history, decide)
    assert [state.head for state in seen] == [0, 1, 2]
    assert [state.live_ids for state in seen] == [set(), {A}, {A, B}]
    assert [entry.backups for entry, _ in after.entries] == [(A,), (B,), (C,)]
    assert read(area, executor).entries == after.entries


def test_a_writer_may_change_its_mind_when_it_reads_on(executor: Executor) -> None:
    area = area_of()
    history = read(area, executor)
    put(area, executor, backup_entry(area, A))

    def decide(state: HistoryState) -> HistoryEntry:
        if state.live:
            raise Conflict("somebody was first")
        return backup_entry(area, B)

    with pytest.raises(Conflict, match="somebody was first"):
        histories.append(area, history, decide)
    assert read(area, executor).state.live_ids == {A}


def test_the_first_of_two_entries_of_one_backup_counts(executor: Executor) -> None:
    area = area_of()
    history = put(area, executor, backup_entry(area, A), backup_entry(area, A))
    assert history.state.live == ((1, A),)


def test_what_entries_mean_together(executor: Executor) -> None:
    area = area_of()
    history = put(
        area,
        executor,
        backup_entry(area, A),
        backup_entry(area, B),
        entry_like(EntryKind.HOLD, [A], reason="audit"),
        entry_like(EntryKind.VERIFIED, [B], reason="drill"),
        entry_like(EntryKind.ADOPT, identity=(("system_identifier", "8"),)),
        entry_like(EntryKind.EXPIRE, [B], reason="old"),
        backup_entry(area, C),
        entry_like(EntryKind.RELEASE, [A], reason="over"),
        entry_like(EntryKind.VOID, [C], reason="wrong"),
    )
    assert history.state == read(area, executor).state
    assert history.state.live == ((1, A),)
    assert (history.state.held, history.state.verified) == (frozenset(), {B})
    assert history.state.identity == (("system_identifier", "8"),)


def test_a_checkpoint_is_the_whole_truth_about_what_lies_below_it(executor: Executor) -> None:
    area = area_of()
    pack = PackName(bytes(32))
    point = Checkpoint(((1, A),), (A,), (A,), (("id", "9"),), (pack,))
    history = put(
        area, executor, backup_entry(area, A), backup_entry(area, B), entry_like(EntryKind.PRUNE, checkpoint=point)
    )
    assert history.state.live == ((1, A),)
    assert (history.state.held, history.state.verified, history.state.identity) == ({A}, {A}, (("id", "9"),))
    assert history.state.condemned == {pack}
    whole = read(area, executor)
    area.store.delete(entry_name(area, 2))
    assert read(area, executor).state == whole.state


def test_a_mark_is_kept_by_the_history_and_restated_by_a_checkpoint(executor: Executor) -> None:
    area = area_of()
    mark = Mark("before the deploy", NOW, {"lsn": "0/3000028"})
    history = put(area, executor, backup_entry(area, A), entry_like(EntryKind.MARK, mark=mark))
    assert read(area, executor).state.marks == (mark,)
    assert history.state.live == ((1, A),)
    point = rules.checkpoint_of(history.state, (), lambda pack: True)
    put(area, executor, entry_like(EntryKind.PRUNE, checkpoint=point))
    area.store.delete(entry_name(area, 2))
    assert read(area, executor).state.marks == (mark,)


def test_an_entry_below_the_checkpoint_may_be_missing_but_not_one_of_a_live_backup(executor: Executor) -> None:
    area = area_of()
    point = Checkpoint(live=((2, B),))
    put(area, executor, backup_entry(area, A), backup_entry(area, B), entry_like(EntryKind.PRUNE, checkpoint=point))
    area.store.delete(entry_name(area, 1))
    assert read(area, executor).state.live == ((2, B),)
    area.store.delete(entry_name(area, 2))
    with pytest.raises(IntegrityBroken, match="history entry 2 of a live backup is missing"):
        read(area, executor)


def test_a_hole_is_broken_and_nothing_is_written_behind_it(executor: Executor) -> None:
    area = area_of()
    history = put(area, executor, *(backup_entry(area, letter * 32) for letter in "abcd"))
    area.store.delete(entry_name(area, 2))
    with pytest.raises(IntegrityBroken, match="history entry 2 is missing"):
        read(area, executor)
    area.store.delete(entry_name(area, 3))
    with pytest.raises(IntegrityBroken, match="history entry 2 to 3 is missing"):
        read(area, executor)
    # A writer that had begun before knows the entries and finds its own number free.
    assert histories.append(area, history, lambda _: backup_entry(area, "e" * 32)).head == 5


def test_an_entry_that_does_not_continue_the_one_before_is_broken(executor: Executor) -> None:
    area = area_of()
    put(area, executor, backup_entry(area, A))
    raw_entry(area, 2, document_of(2, "hold", bytes(32), backup=A, reason=""))
    with pytest.raises(IntegrityBroken, match="history entry 2 does not continue entry 1"):
        read(area, executor)


def foreign_areas(area: Area) -> dict[str, Area]:
    repository = area_keys(repository=names.RepositoryId(bytes(16)))
    return {
        "another source": replace(area_of(area.store, "shop", "customers"), store=memory()),
        "another repository": replace(area, keys=repository, store=memory()),
        "another copy": replace(area, store_id=StoreId(bytes(16)), store=memory()),
    }


@pytest.mark.parametrize("origin", ["another source", "another repository", "another copy"])
def test_an_entry_that_was_written_elsewhere_is_refused(origin: str, executor: Executor) -> None:
    area = area_of()
    put(area, executor, backup_entry(area, A))
    foreign = foreign_areas(area)[origin]
    put(foreign, executor, backup_entry(foreign, A), backup_entry(foreign, B))
    area.store.create(entry_name(area, 2), foreign.store.get(entry_name(foreign, 2)))
    with pytest.raises(IntegrityBroken, match="does not open here"):
        read(area, executor)


def test_an_entry_under_another_number_is_refused(executor: Executor) -> None:
    area = area_of()
    put(area, executor, backup_entry(area, A))
    area.store.create(entry_name(area, 2), area.store.get(entry_name(area, 1)))
    with pytest.raises(IntegrityBroken, match="does not open here"):
        read(area, executor)


def test_a_writer_that_meets_what_it_cannot_read_gives_up(executor: Executor) -> None:
    area = area_of()
    history = put(area, executor, backup_entry(area, A))
    area.store.create(entry_name(area, 2), b"garbage")
    with pytest.raises(IntegrityBroken):
        histories.append(area, history, lambda _: backup_entry(area, B))


def rotated_area(area: Area) -> Area:
    roots = RootKeys(REPOSITORY, {1: ROOT, 2: bytes([9] * 32)}, 2)
    return replace(area, keys=roots.area_keys(area.keys.area))


def test_an_entry_of_an_older_epoch_behind_a_newer_one_is_broken(executor: Executor) -> None:
    old = area_of()
    new = rotated_area(old)
    put(old, executor, backup_entry(old, A))
    history = put(new, executor, backup_entry(new, B))
    assert history.head == 2
    raw_entry(new, 3, document_of(3, "hold", history.head_hash, backup=A, reason=""), epoch=1)
    with pytest.raises(IntegrityBroken, match="entry 3 is sealed with a key older than that of the one before"):
        read(new, executor)


def test_a_writer_with_an_old_key_finds_out_when_its_number_was_taken_under_the_new_one(executor: Executor) -> None:
    old = area_of()
    history = put(old, executor, backup_entry(old, A))
    new = rotated_area(old)
    put(new, executor, backup_entry(new, B))
    with pytest.raises(IntegrityBroken, match="under epoch 2"):
        histories.append(old, history, lambda _: backup_entry(old, C))
    assert read(new, executor).state.live_ids == {A, B}


@pytest.mark.parametrize("signature", [None, bytes(64), b"short"])
@pytest.mark.parametrize("kind", ["prune", "expire", "void"])
def test_what_takes_away_without_a_signature_has_its_place_and_no_meaning(
    kind: str, signature: bytes | None, executor: Executor
) -> None:
    area = area_of()
    history = put(area, executor, backup_entry(area, A))
    fields: dict[str, JsonObject] = {
        "prune": {"live": [], "held": [], "verified": [], "identity": None},
        "expire": {"backups": [A], "reason": ""},
        "void": {"backup": A, "reason": ""},
    }
    frames = [bytes(32)] if kind == "prune" else []
    frames += [signature] if signature is not None else []
    raw_entry(area, 2, document_of(2, kind, history.head_hash, **fields[kind]), *frames)
    after = read(area, executor)
    assert [entry.counts for entry, _ in after.entries] == [True, False]
    assert after.state.live == ((1, A),)
    assert (after.state.condemned, after.state.checkpoint) == (frozenset(), 0)
    assert put(area, executor, backup_entry(area, B)).state.live_ids == {A, B}


def test_a_signature_of_another_place_does_not_count(executor: Executor) -> None:
    area = area_of()
    history = put(area, executor, backup_entry(area, A), entry_like(EntryKind.EXPIRE, [A], reason="old"))
    assert history.state.live == ()
    expire = area.open(
        "it",
        area.claim(ObjectType.HISTORY, area.store_id + (2).to_bytes(8, "little")),
        area.store.get(entry_name(area, 2)),
    )
    put(area, executor, backup_entry(area, B))
    head = read(area, executor).head_hash
    raw_entry(area, 4, document_of(4, "expire", head, backups=[B], reason="old"), expire[-1])
    after = read(area, executor)
    assert after.entries[-1][0].counts is False
    assert after.state.live_ids == {B}


def test_an_unknown_kind_is_passed_over_unless_it_needs_to_be_known(executor: Executor) -> None:
    area = area_of()
    history = put(area, executor, backup_entry(area, A))
    raw_entry(area, 2, document_of(2, "remark", history.head_hash, text="hello"))
    history = put(area, executor, backup_entry(area, B))
    assert history.state.live_ids == {A, B}
    raw_entry(area, 4, document_of(4, "merge", history.head_hash, needs=["spans"]))
    after = read(area, executor)
    assert after.state.live_ids == {A, B}
    with pytest.raises(Conflict, match="history entry 4 needs what this version"):
        histories.append(area, after, lambda _: backup_entry(area, C))


def test_a_rollback_shows_on_a_host_that_saw_more(executor: Executor, tmp_path: Path) -> None:
    area, remembered = area_of(), Remembered(tmp_path)
    put(area, executor, backup_entry(area, A))
    first = bytes(area.store.get(entry_name(area, 1)))
    put(area, executor, backup_entry(area, B))
    assert read(area, executor, remembered).head == 2
    second = bytes(area.store.get(entry_name(area, 2)))
    area.store.delete(entry_name(area, 2))
    with pytest.raises(IntegrityBroken, match="ends at entry 1; this host has seen entry 2: it was rolled back"):
        read(area, executor, remembered)
    # Somebody goes on from the old state: another entry 2 than the one that was seen.
    put(area, executor, backup_entry(area, C))
    with pytest.raises(IntegrityBroken, match="has another entry 2 than it had"):
        read(area, executor, remembered)
    replace_object(area.store, entry_name(area, 2), second)
    assert read(area, executor, remembered).head == 2
    replace_object(area.store, entry_name(area, 1), first)
    assert read(area, executor, remembered).head == 2


def test_everything_removed_shows_too_and_another_copy_has_its_own_memory(executor: Executor, tmp_path: Path) -> None:
    area, remembered = area_of(), Remembered(tmp_path)
    put(area, executor, backup_entry(area, A))
    read(area, executor, remembered)
    other = replace(area, store=memory(), store_id=StoreId(bytes(16)))
    assert read(other, executor, remembered).head == 0
    area.store.delete(entry_name(area, 1))
    with pytest.raises(IntegrityBroken, match="ends at entry 0"):
        read(area, executor, remembered)


def test_a_seen_entry_may_be_gone_below_a_checkpoint(executor: Executor, tmp_path: Path) -> None:
    area, remembered = area_of(), Remembered(tmp_path)
    put(area, executor, backup_entry(area, A))
    read(area, executor, remembered)
    put(area, executor, entry_like(EntryKind.PRUNE))
    area.store.delete(entry_name(area, 1))
    assert read(area, executor, remembered).head == 2


def test_what_is_remembered_never_goes_back_and_damage_is_told(executor: Executor, tmp_path: Path) -> None:
    area, remembered = area_of(), Remembered(tmp_path)
    assert remembered.seen(area) is None
    remembered.remember(area, 5, bytes([5] * 32))
    remembered.remember(area, 4, bytes([4] * 32))
    assert remembered.seen(area) == (5, bytes([5] * 32))
    (path,) = [found for found in tmp_path.rglob("*") if found.is_file()]
    for content in (b"", b"{}", b"[]", b'{"number":"5","hash":"00"}', b"\xff"):
        path.write_bytes(content)
        with pytest.raises(IntegrityBroken, match="damaged"):
            remembered.seen(area)


def sleeping(area: Area, executor: Executor, point: Checkpoint) -> History:
    """Return a history as read before others went on, put a checkpoint, and removed what lies below."""
    put(area, executor, backup_entry(area, A))
    asleep = read(area, executor)
    put(area, executor, backup_entry(area, B), entry_like(EntryKind.PRUNE, checkpoint=point))
    area.store.delete(entry_name(area, 2))
    return asleep


def sleeper_entries(area: Area) -> list[HistoryEntry]:
    stale = Checkpoint(live=((1, A),), condemned=(PackName(bytes([7] * 32)),))
    return [
        backup_entry(area, C),
        entry_like(EntryKind.HOLD, [A], reason="audit"),
        entry_like(EntryKind.EXPIRE, [A], reason="old"),
        entry_like(EntryKind.PRUNE, checkpoint=stale),
    ]


@pytest.mark.parametrize("which", range(4), ids=["backup", "hold", "expire", "prune"])
def test_who_slept_and_took_a_freed_number_has_failed_and_changed_nothing(which: int, executor: Executor) -> None:
    area = area_of()
    asleep = sleeping(area, executor, Checkpoint(live=((1, A),)))
    before = read(area, executor).state
    entry = sleeper_entries(area)[which]
    with pytest.raises(Conflict, match="behind a checkpoint that does not know it"):
        histories.append(area, asleep, lambda _: entry)
    after = read(area, executor).state
    assert after == before
    assert rules.deletable(after, [PackName(bytes([7] * 32))]) == ()


@pytest.mark.parametrize("which", range(3), ids=["backup", "hold", "expire"])
def test_an_entry_that_the_next_ones_know_is_not_lost(which: int, executor: Executor) -> None:
    """Others may go on, even to a checkpoint, between a put and the look behind it."""
    area = area_of()
    put(area, executor, backup_entry(area, A))
    history = read(area, executor)
    entry = sleeper_entries(area)[which]

    class Overtaken:
        """A store behind whose create another writer is at once."""

        def __getattr__(self, name: str) -> object:
            return getattr(area.store, name)

        def create(self, name: str, data: bytes) -> None:
            area.store.create(name, data)
            state = read(area, executor).state
            put(area, executor, entry_like(EntryKind.PRUNE, checkpoint=rules.checkpoint_of(state, [], lambda _: True)))

    watched = replace(area, store=Overtaken())  # type: ignore[arg-type]
    after = histories.append(watched, history, lambda _: entry)
    assert after.head == 2
    assert read(area, executor).state.live_ids == ({A, C} if which == 0 else {A} if which == 1 else set())


def test_entries_removed_while_a_history_is_read_are_no_error(executor: Executor) -> None:
    area = area_of()
    put(area, executor, backup_entry(area, A), backup_entry(area, B))

    class Overtaken:
        """A store where a checkpoint is put, and what lies below removed, right behind the first listing."""

        listed = False

        def __getattr__(self, name: str) -> object:
            return getattr(area.store, name)

        def list(self, prefix: str, after: str = "") -> object:
            found = list(area.store.list(prefix, after))
            if not self.listed:
                self.listed = True
                put(area, executor, entry_like(EntryKind.PRUNE, checkpoint=Checkpoint(live=((2, B),))))
                area.store.delete(entry_name(area, 1))
            return iter(found)

    watched = replace(area, store=Overtaken())  # type: ignore[arg-type]
    history = read(watched, executor)
    assert (history.head, history.state.live) == (3, ((2, B),))


def test_reading_an_entry_that_is_not_there_is_not_found() -> None:
    with pytest.raises(NotFound):
        histories.read_entry(area_of(), 1)
