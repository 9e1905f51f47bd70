"""Threads that do not keep a process from ending."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from holdfast.backup.following_threads import DaemonThreads


def test_work_is_done_by_no_more_threads_than_allowed() -> None:
    threads = DaemonThreads(3, "work")
    gate, names = threading.Barrier(3), set()

    def work(number: int) -> int:
        names.add(threading.current_thread().name)
        if number < 3:
            gate.wait(20)  # three at once
        return number

    assert [future.result(20) for future in [threads.submit(work, number) for number in range(30)]] == [*range(30)]
    assert names == {"work-0", "work-1", "work-2"}
    threads.shutdown()
    assert not any(thread.name.startswith("work-") for thread in threading.enumerate())


def test_what_work_raises_is_told_by_its_future_and_the_thread_goes_on() -> None:
    threads = DaemonThreads(1, "work")

    def end() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        threads.submit(end).result(20)
    assert threads.submit(lambda: 5).result(20) == 5
    threads.shutdown()
    with pytest.raises(RuntimeError, match="were closed"):
        threads.submit(lambda: 5)


def test_what_was_not_begun_is_cancelled() -> None:
    threads = DaemonThreads(1, "work")
    begun, gate = threading.Event(), threading.Event()

    def hold() -> bool:
        begun.set()
        return gate.wait(20)

    first = threads.submit(hold)
    assert begun.wait(20)
    second = threads.submit(lambda: 5)
    threads.shutdown(wait=False, cancel_futures=True)
    assert second.cancelled()
    gate.set()
    assert first.result(20)


def test_a_process_ends_while_its_threads_hang() -> None:
    code = (
        "import time; from holdfast.backup.following_threads import DaemonThreads; "
        "DaemonThreads(1, 'work').submit(time.sleep, 600)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd="src")
