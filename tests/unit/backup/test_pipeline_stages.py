"""The pipeline keeps order, stores every chunk once, and ends whole or with the first error and no thread left."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
from tests.unit.repository.repository_examples import (
    File,
    area_of,
    contents,
    flipped,
    replace_object,
    settled,
    slices,
    take,
)

from holdfast.backup import packer, pipeline, slabs, taking
from holdfast.backup.dedup import Deduplicator
from holdfast.backup.pipeline import PACKS_WAITING_MAX, UPLOADERS, Pipeline, PipelineSettings, Poured
from holdfast.backup.slabs import SLABS_MAX, Slab
from holdfast.model.errors import Denied, IntegrityBroken, OutOfSpace, SourceFailed
from holdfast.model.events import Progress
from holdfast.repository.area import Area
from holdfast.repository.format import names
from holdfast.repository.format.names import PackName
from holdfast.repository.format.tree import parse_line
from holdfast.repository.index.lookup import ChunkIndex, open_index
from holdfast.repository.index.rows import PackFacts
from holdfast.repository.reading import ChunkReader, read_content
from holdfast.sources.port import SINK_STREAMS_MAX, Entry, Layout, StreamSink, Tier
from holdfast.storage.faulty import Fault, FaultKind, FaultyStore
from holdfast.storage.opening import open_store
from holdfast.storage.port import Data
from holdfast.storage.settings import StoreSettings

MEBIBYTE = 1 << 20
Feed = Callable[[StreamSink], None]


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@contextmanager
def opened(area: Area) -> Iterator[ChunkIndex]:
    with ThreadPoolExecutor(2) as pool:
        index = open_index(area, frozenset(), pool)
        try:
            yield index
        finally:
            index.close()


def ignore(_: Progress) -> None:
    pass


def pour(area: Area, feed: Feed, settings: PipelineSettings = PipelineSettings(workers=2)) -> Poured:  # noqa: B008
    with opened(area) as index, Pipeline(area, index, settings, ignore) as sink:
        feed(sink)
        return sink.finish()


def put(sink: StreamSink, path: str, content: bytes, layout: Layout = Layout.PAGES) -> None:
    stream = sink.open(Entry(path, layout=layout))
    stream.write(content)
    stream.close()


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Every test here ends without a thread of its own and with the interpreter's switch interval as it was."""
    before, interval = set(threading.enumerate()), sys.getswitchinterval()
    yield
    left = [thread for thread in threading.enumerate() if thread not in before and thread.is_alive()]
    assert not left
    assert sys.getswitchinterval() == interval


@pytest.fixture
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packer, "PACK_BYTES", MEBIBYTE)
    monkeypatch.setattr(packer, "PACK_SLACK_BYTES", MEBIBYTE)


@pytest.mark.parametrize("workers", [2, 5])
def test_everything_comes_back(workers: int, executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.os, "cpu_count", lambda: workers)
    area = area_of()
    files: dict[str, File | bytes] = {
        "pages": File(noise(3 * MEBIBYTE + 17), Layout.PAGES, 8192),
        "content": File(noise(9 * MEBIBYTE, 2), Layout.CONTENT, 777_777),
        "empty": b"",
        "one": b"1",
        "zeros": File(bytes(20 * MEBIBYTE), Layout.PAGES),
    }
    files |= {f"many/{number}": bytes([number]) * number for number in range(200)}
    record = take(area, files, executor).record
    back = contents(area, record, executor)
    assert list(back) == list(files)
    assert back == {path: file.content if isinstance(file, File) else file for path, file in files.items()}
    assert record.entries == len(files) + 1
    assert record.size_bytes == sum(map(len, back.values()))
    assert record.stored_bytes == sum(area.list_packs().values())
    assert take(area, files, executor).record.stored_bytes == 0


def test_the_same_chunk_is_stored_once_in_a_run() -> None:
    area = area_of()
    block = noise(131072)

    def feed(sink: StreamSink) -> None:
        put(sink, "a", block * 80)
        put(sink, "b", block * 80)

    poured = pour(area, feed)
    assert poured.size_bytes == 160 * len(block)
    assert poured.stored_bytes < 2 * len(block)


def test_many_that_ask_for_the_same_chunk_at_once_hear_once_that_it_is_theirs_to_store() -> None:
    area = area_of()
    chunks = [area.keys.chunk_id(number.to_bytes(4, "big"), data=True) for number in range(300)]
    with opened(area) as index:
        dedup = Deduplicator(area, index, 0.0, random.Random(1))
        barrier = threading.Barrier(8, timeout=20)

        def ask(_: int) -> list[bool]:
            barrier.wait()
            return [dedup.must_store([chunk])[0] for chunk in chunks]

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(8)))
    assert [sum(column) for column in zip(*answers, strict=True)] == [1] * len(chunks)
    assert dedup.must_store([chunks[0], chunks[0]]) == [False, False]


def test_a_chunk_twice_in_one_question_is_stored_once() -> None:
    area = area_of()
    chunk = area.keys.chunk_id(b"x", data=True)
    with opened(area) as index:
        assert Deduplicator(area, index, 0.0, random.Random(1)).must_store([chunk, chunk]) == [True, False]


@pytest.mark.usefixtures("small_packs")
def test_packs_follow_the_order_of_the_stream() -> None:
    area = area_of()
    order: list[PackName] = []

    def feed(sink: StreamSink) -> None:
        put(sink, "a", noise(12 * MEBIBYTE))

    with opened(area) as index:
        with Pipeline(area, index, PipelineSettings(workers=4), ignore) as sink:
            ship = sink._packer._data._ship

            def watched(pack: packer.FullPack) -> None:
                order.append(pack.facts.name)
                ship(pack)

            sink._packer._data._ship = watched
            feed(sink)
            sink.finish()
        content = noise(12 * MEBIBYTE)
        chunks = [area.keys.chunk_id(content[at : at + 131072], data=True) for at in range(0, len(content), 131072)]
        found = index.find(chunks)
    places = [(order.index(at.pack.name), at.frame.counter) for at in found if at is not None]
    assert len(places) == len(chunks)
    assert places == sorted(places)
    assert len(order) > 10


class Held:
    """A store whose creates wait until they are let go."""

    def __init__(self, area: Area) -> None:
        self._inner = area.store
        self.waiting = 0
        self.go = threading.Event()
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def create(self, name: str, data: Data) -> None:
        with self._lock:
            self.waiting += 1
        assert self.go.wait(60)
        self._inner.create(name, data)


@pytest.mark.usefixtures("small_packs")
def test_a_slow_store_holds_the_source_up_and_memory_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Slab] = []

    def counted() -> Slab:
        made.append(Slab())
        return made[-1]

    monkeypatch.setattr(slabs, "Slab", counted)
    area = area_of()
    store = Held(area)
    slow = replace(area, store=store)  # type: ignore[arg-type]
    written = 0

    def feed(sink: StreamSink) -> None:
        nonlocal written
        stream = sink.open(Entry("a", layout=Layout.PAGES))
        for number in range(120):
            stream.write(noise(MEBIBYTE, number))
            written += 1
        stream.close()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(pour, slow, feed)
        before = -1
        while before != written or not store.waiting:  # until nothing moves any more
            before = written
            time.sleep(0.5)
        # What is under way: slabs, the packs waiting and being sent, the one being filled, and a little beside.
        bound = SLABS_MAX * 8 + (PACKS_WAITING_MAX + UPLOADERS + 2) * 2 + 2
        assert 0 < written <= bound < 120
        assert store.waiting == UPLOADERS
        store.go.set()
        poured = running.result(60)
    assert poured.size_bytes == 120 * MEBIBYTE
    assert len(made) == SLABS_MAX


class Unlike(Exception):
    """An error that no other stage raises."""


def test_an_error_of_the_source_is_the_one_raised() -> None:
    area = area_of()

    def feed(sink: StreamSink) -> None:
        put(sink, "a", noise(20 * MEBIBYTE))
        raise SourceFailed("the server went away")

    with pytest.raises(SourceFailed, match="the server went away"):
        pour(area, feed)


def test_leaving_without_finishing_abandons_everything() -> None:
    area = area_of()
    with opened(area) as index, Pipeline(area, index, PipelineSettings(workers=2), ignore) as sink:
        put(sink, "a", noise(MEBIBYTE))


@pytest.mark.usefixtures("small_packs")
@pytest.mark.parametrize(("kind", "error"), [(FaultKind.NO_SPACE, OutOfSpace), (FaultKind.EXPIRED, Denied)])
@pytest.mark.parametrize("skip", [0, 3])
def test_an_error_of_an_upload_comes_up_through_the_source(kind: FaultKind, error: type[Exception], skip: int) -> None:
    faulty = FaultyStore(open_store(StoreSettings("memory://")), (Fault(kind, "create", "packs/", skip=skip),))
    area = area_of(settled(faulty))
    reached = 0

    def feed(sink: StreamSink) -> None:
        nonlocal reached
        for number in range(300):
            put(sink, str(number), noise(MEBIBYTE, number))
            reached = number

    with pytest.raises(error):
        pour(area, feed)
    assert reached < 250


def test_an_error_of_the_last_upload_is_not_missed() -> None:
    faulty = FaultyStore(open_store(StoreSettings("memory://")), (Fault(FaultKind.NO_SPACE, "create", "packs/"),))
    with pytest.raises(OutOfSpace):
        pour(area_of(settled(faulty)), lambda sink: put(sink, "a", b"small"))


def test_an_error_of_an_inspection_is_raised_even_where_the_source_raises_another() -> None:
    def inspect(_: memoryview, offset: int) -> None:
        if offset:
            raise Unlike("a page is not right")

    def feed(sink: StreamSink) -> None:
        stream = sink.open(Entry("a", layout=Layout.PAGES), inspect)
        try:
            for number in range(300):
                stream.write(noise(MEBIBYTE, number))
        except Unlike as error:
            raise SourceFailed("the copy broke off") from error

    with pytest.raises(Unlike, match="a page is not right"):
        pour(area_of(), feed)


def test_a_source_that_swallows_an_error_gets_it_again_at_the_end() -> None:
    def inspect(_: memoryview, __: int) -> None:
        raise Unlike("once")

    def feed(sink: StreamSink) -> None:
        stream = sink.open(Entry("a", layout=Layout.PAGES), inspect)
        stream.write(noise(1000))
        stream.close()

    with pytest.raises(Unlike):
        pour(area_of(), feed)


def test_inspection_sees_every_byte_once_and_pages_aligned() -> None:
    seen: dict[int, bytes] = {}
    lock = threading.Lock()

    def inspect(view: memoryview, offset: int) -> None:
        assert offset % 8192 == 0
        with lock:
            assert offset not in seen
            seen[offset] = bytes(view)

    content = noise(20 * MEBIBYTE + 8192)

    def feed(sink: StreamSink) -> None:
        put(sink, "before", b"x" * 5000, Layout.CONTENT)
        stream = sink.open(Entry("a", layout=Layout.PAGES), inspect)
        for at in range(0, len(content), 777_777):
            stream.write(content[at : at + 777_777])
        stream.close()
        sink.drain()
        assert sum(map(len, seen.values())) == len(content)

    pour(area_of(), feed)
    assert b"".join(seen[offset] for offset in sorted(seen)) == content


def test_an_empty_backup_has_an_empty_tree() -> None:
    area = area_of()
    poured = pour(area, lambda _: None)
    assert (poured.tree.size, poured.entries, poured.packs, area.list_packs()) == (0, 0, {}, {})


def test_progress_ends_at_what_was_written() -> None:
    area, told = area_of(), list[Progress]()
    with opened(area) as index, Pipeline(area, index, PipelineSettings(workers=2), told.append) as sink:
        sink.expect(5)
        put(sink, "a", b"12345")
        sink.finish()
    assert (told[-1].done_bytes, told[-1].expected_bytes) == (5, 5)


@pytest.fixture
def taken(executor: Executor) -> tuple[Area, bytes, list[str]]:
    """An area with one backup whose data lie in several packs, and the names of those."""
    area, content = area_of(), noise(6 * MEBIBYTE)
    take(area, {"a": File(content, Layout.PAGES)}, executor)
    data = [name for name, size in area.list_packs().items() if size > MEBIBYTE // 2]
    return area, content, [names.pack(area.keys.area, name) for name in data]


@pytest.mark.usefixtures("small_packs")
def test_a_sample_that_is_broken_is_stored_again_and_told(
    taken: tuple[Area, bytes, list[str]], executor: Executor
) -> None:
    area, content, packs = taken
    assert len(packs) > 3
    for name in packs:
        data = bytes(area.store.get(name))
        replace_object(area.store, name, flipped(data, 8 * (len(data) // 2)))
    settings = PipelineSettings(workers=2, sample=1.0)
    poured = pour(area, lambda sink: put(sink, "a", content), settings)
    assert {names.pack(area.keys.area, name) for name in poured.distrusted} == set(packs)
    assert not set(poured.packs) & set(poured.distrusted)
    assert poured.stored_bytes > len(content)
    assert set(poured.distrusted.values()) == {"its bytes changed since they were written"}


@pytest.mark.usefixtures("small_packs")
def test_without_a_sample_nothing_is_read_back(taken: tuple[Area, bytes, list[str]]) -> None:
    area, content, packs = taken
    watched = FaultyStore(area.store)
    poured = pour(
        replace(area, store=watched), lambda sink: put(sink, "a", content), PipelineSettings(workers=2, sample=0.0)
    )
    assert poured.stored_bytes < 1000  # the tree alone
    assert not any(point == f"before get {name}" for point in watched.points for name in packs)


@pytest.mark.usefixtures("small_packs")
def test_a_full_backup_through_the_program_stores_broken_packs_again_and_says_so(
    taken: tuple[Area, bytes, list[str]], executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    area, content, packs = taken
    monkeypatch.setattr(taking, "PipelineSettings", partial(PipelineSettings, sample=1.0))
    name = packs[0]
    data = bytes(area.store.get(name))
    replace_object(area.store, name, flipped(data, 8 * (len(data) // 2)))
    full = take(area, {"a": File(content, Layout.PAGES)}, executor, Tier.FULL)
    assert any("was read back and is broken" in notice for notice in full.notices)
    assert contents(area, full.record, executor) == {"a": content}
    area.store.delete(name)
    assert contents(area, full.record, executor) == {"a": content}


@pytest.mark.usefixtures("small_packs")
def test_a_sampled_pack_that_is_gone_or_another_is_not_counted_on(taken: tuple[Area, bytes, list[str]]) -> None:
    area, _, packs = taken
    with opened(area) as index:
        dedup = Deduplicator(area, index, 1.0, random.Random(1))
        facts = {names.pack(area.keys.area, pack.name): pack for _, segment in index.segments for pack in segment.packs}
        area.store.delete(packs[0])
        replace_object(area.store, packs[1], bytes(area.store.get(packs[2])))
        answers = [dedup._trust(facts[name]) for name in packs[:3]]
        assert answers == [False, False, True]
        assert [dedup._trust(facts[name]) for name in packs[:3]] == answers
        assert set(dedup.packs) == {facts[packs[2]].name}


def test_a_pack_that_arrived_is_counted_on_and_its_chunks_are_known() -> None:
    area = area_of()
    with opened(area) as index:
        dedup = Deduplicator(area, index, 1.0, random.Random(1))
        chunk = area.keys.chunk_id(b"x", data=True)
        assert dedup.must_store([chunk]) == [True]
        builder = area.builder(area.pack_claim(is_list=False))
        frame = builder.add_plain(b"x")
        data, digest = builder.finish(chunk)
        facts = PackFacts(PackName(digest), len(data), False)
        index.add_pack(facts, [frame], chunk)
        dedup.arrived(facts, chunk)
        assert dedup.must_store([chunk]) == [False]
        assert dedup.packs == {facts.name: facts.size}


def test_a_tree_larger_than_its_buffer_comes_back(executor: Executor) -> None:
    area, long = area_of(), noise(500).hex()
    files: dict[str, File | bytes] = {f"folder/{number:06d}-{long}": b"" for number in range(11_000)}
    record = take(area, files, executor).record
    assert record.tree.size > packer.TREE_BUFFER_BYTES
    assert record.tree.depth == 1
    assert list(contents(area, record, executor)) == list(files)


def test_the_slow_replacement_of_the_chunker_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyfastcdc

    class Slow:
        __module__ = "pyfastcdc.py.fastcdc"

    monkeypatch.setattr(pyfastcdc, "FastCDC", Slow)
    with pytest.raises(IntegrityBroken, match="slow replacement"):
        slabs.content_cutter(1)


def read_back(area: Area, poured: Poured, executor: Executor) -> dict[str, bytes]:
    with opened(area) as index:
        reader = ChunkReader(area, index)
        plain = b"".join(read_content(reader, poured.tree, executor))
        entries = [parse_line("the tree", line) for line in plain.splitlines()]
        return {
            entry.path: b"".join(read_content(reader, entry.ref, executor))
            for entry in entries
            if entry.ref is not None
        }


def test_streams_written_by_several_threads_come_back_each_in_order(executor: Executor) -> None:
    area = area_of()
    files = {f"{number}": noise(3 * MEBIBYTE * number + 5, number) for number in range(12)}

    def feed(sink: StreamSink) -> None:
        def one(path: str) -> None:
            stream = sink.open(Entry(path))
            for part in slices(files[path], [65_537]):
                stream.write(part)
            stream.close()

        with ThreadPoolExecutor(SINK_STREAMS_MAX) as threads:
            list(threads.map(one, files))

    poured = pour(area, feed)
    assert read_back(area, poured, executor) == files
    assert poured.entries == len(files)


def test_more_open_streams_than_the_contract_allows_are_refused() -> None:
    area = area_of()

    def feed(sink: StreamSink) -> None:
        for number in range(SINK_STREAMS_MAX + 1):
            sink.open(Entry(f"{number}"))

    with pytest.raises(SourceFailed, match="are open at once"):
        pour(area, feed)


def test_a_stream_that_was_not_ended_yields_no_backup() -> None:
    with pytest.raises(SourceFailed, match="not ended"):
        pour(area_of(), lambda sink: sink.open(Entry("a")).write(b"x"))
