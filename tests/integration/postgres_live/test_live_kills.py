"""A restore in place that is killed at any step leaves the application its database, old or new, and no riddles."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psycopg
from tests.integration.postgres_capture.servers import execute
from tests.integration.postgres_live import restore_child, shop
from tests.integration.postgres_live.conftest import Live

from holdfast.sources.postgres.logical.refill import PostgresServerRefill

ROOT = Path(__file__).resolve().parents[3]
CLIENTS = 4
CHILD_SECONDS_MAX = 60
CLIENT_SECONDS_MAX = 120


def killed_at(live: Live, step: str) -> int:
    """Run a restore in place as a process of its own that dies as the step begins; returns how it ended."""
    command = [sys.executable, restore_child.__file__, str(live.folder), live.server.connection_string()]
    command += [str(live.server.programs.folder), "shop", step]
    surroundings = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PATH": "/usr/bin:/bin", "HOME": str(live.folder)}
    return subprocess.run(command, env=surroundings, timeout=CHILD_SECONDS_MAX, check=False).returncode


def steps_of(live: Live) -> list[str]:
    steps: list[str] = []
    live.restore(live.target("shop", in_place=True), PostgresServerRefill(at_step=steps.append))
    return steps


class Clients:
    """An application that asks its database again and again, and connects anew when a connection ends."""

    def __init__(self, live: Live) -> None:
        self._address = live.server.connection_string("shop")
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(CLIENTS)]
        self.answers = Counter[str]()
        self.missing_twice: list[str] = []

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(CLIENT_SECONDS_MAX)

    def _ask(self) -> None:
        missing = ""
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._address, autocommit=True, connect_timeout=20) as connection:
                    missing = ""
                    while not self._stop.is_set():
                        row = connection.execute("SELECT to_regclass('public.only_old') IS NULL").fetchone()
                        self.answers["new" if row and row[0] else "old"] += 1
                        time.sleep(0.002)
            except psycopg.OperationalError as error:
                if "does not exist" not in str(error):
                    continue
                # One that waited for the swap is told so once, by a server that looked the name up before.
                if missing:
                    self.missing_twice.append(str(error))
                missing = str(error)


def make_old(live: Live) -> None:
    execute(live.server, "CREATE TABLE IF NOT EXISTS only_old (id int)", database="shop")


def state_of(live: Live) -> str:
    return "old" if live.value("SELECT to_regclass('public.only_old')::text") else "new"


def test_a_kill_at_every_step_leaves_the_old_or_the_new_and_the_next_run_finishes(live: Live) -> None:
    steps = steps_of(live)
    assert {"create", "rows", "compare", "swap", "swapped"} <= set(steps)
    belongings = shop.belongs(live.server, "shop")
    for step in steps:
        live.tidy()
        make_old(live)
        assert killed_at(live, step) == -9, step
        assert state_of(live) == ("new" if step == "swapped" else "old"), step
        left = shop.databases(live.server) - {"shop"}
        assert len(left) == (0 if step in ("look", "create") else 1), (step, left)
        make_old(live)
        report = live.restore(live.target("shop", in_place=True))
        assert report.differences == (), step
        assert state_of(live) == "new", step
        assert shop.belongs(live.server, "shop") == belongings, step
        kept = shop.databases(live.server) - {"shop"}
        assert all(name.startswith("shop_before_") for name in kept), (step, kept)
        assert report.kept_as in kept, step
        if step not in ("look", "create", "swapped"):
            assert any(next(iter(left)) in note for note in report.notes), (step, left, report.notes)


def test_clients_see_the_old_and_then_the_new_and_never_none(live: Live) -> None:
    make_old(live)
    with Clients(live) as clients:
        report = live.restore(live.target("shop", in_place=True))
        seen = clients.answers["new"]
        deadline = time.monotonic() + CLIENT_SECONDS_MAX
        while clients.answers["new"] < seen + 20 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert clients.answers["old"] > 0
    assert clients.answers["new"] > seen
    assert clients.missing_twice == []
    assert report.kept_as is not None
    assert live.value("SELECT to_regclass('public.only_old')::text", report.kept_as) == "only_old"


def test_a_kill_between_the_two_renames_leaves_the_old(live: Live) -> None:
    # The server is all that knows of the transaction then: its backend is killed as a machine's death would.
    make_old(live)
    problems: list[BaseException] = []
    with psycopg.connect(live.server.connection_string(), autocommit=True) as holder:
        refill = PostgresServerRefill()
        content, target = live.content, live.target("shop", in_place=True)
        plan = refill.plan(content, target)

        def run() -> None:
            try:
                refill.run(content, target, plan)
            except BaseException as error:  # noqa: BLE001 it is looked at below
                problems.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        ended = False
        deadline = time.monotonic() + CHILD_SECONDS_MAX
        while not ended and thread.is_alive() and time.monotonic() < deadline:
            ended = bool(
                holder.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                    "AND backend_xid IS NOT NULL AND query LIKE 'ALTER DATABASE%RENAME TO%' AND datname <> 'shop'"
                ).fetchall()
            )
        thread.join(CHILD_SECONDS_MAX)
    names = shop.databases(live.server)
    assert "shop" in names
    if problems:
        assert state_of(live) == "old"
        assert all(name.startswith("holdfast_loading_") for name in names - {"shop"})
        assert any(name in getattr(problems[0], "hint", "") for name in names - {"shop"})
    else:
        assert state_of(live) == "new"
