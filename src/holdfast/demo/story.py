"""The demo's chapters up to the disaster: a live server, a repository, two backups under load, a table dropped."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from holdfast.application.results import BackupSummary
from holdfast.demo import database
from holdfast.demo.aftermath import Recorded, bring_back, show_damage, show_reader
from holdfast.demo.figures import megabytes
from holdfast.demo.load import WriteLoad, write_load
from holdfast.demo.stage import Stage
from holdfast.demo.vault import SOURCE, Vault, copy_vault, make_vault, remove_remote
from holdfast.model.errors import Denied, SourceFailed, Unavailable
from holdfast.sandbox import ThrowawayPostgres
from holdfast.sources.port import Tier

LOG_LINES_MAX = 8


def play(stage: Stage) -> None:
    """Tell the whole story; every server is stopped when this returns or raises."""
    with live_server(stage) as server:
        vault = _prepare(stage, server)
        try:
            recorded = _back_up(stage, server, vault)
            _drop_table(stage, server)
            bring_back(stage, server, vault, recorded)
            copy = copy_vault(vault, server, stage.folder / "copy")
            show_reader(stage, server, copy, recorded)
            show_damage(stage, copy)
        finally:
            if not stage.order.keep:
                remove_remote(vault)


@contextmanager
def live_server(stage: Stage) -> Iterator[ThrowawayPostgres]:
    """Run the server that will suffer; when the demo fails, tell what the server wrote in its log last."""
    order = stage.order
    stage.begin(f"a throwaway PostgreSQL {stage.programs.version} with an application's data in it")
    server = database.make_server(stage.programs, stage.folder / "live")
    try:
        with stage.timed("make and fill a server") as sizes:
            server.start()
            sizes.size_bytes = database.fill(server, order.scale, order.orders)
        stage.report.line(
            f"{megabytes(sizes.size_bytes)} on 127.0.0.1:{server.port}, with page checksums; it does not wait for the "
            "disk (fsync = off), holdfast does"
        )
        yield server
    except (SourceFailed, Denied, Unavailable):
        for line in server.log_excerpt().splitlines()[-LOG_LINES_MAX:]:
            stage.report.line(f"the server's log: {line}")
        raise
    finally:
        server.close()


def _prepare(stage: Stage, server: ThrowawayPostgres) -> Vault:
    stage.begin("the least role that can back up, and an encrypted repository")
    password = secrets.token_urlsafe(18)
    stage.report.line(database.make_role(server, password))
    with stage.timed("create the repository"):
        vault = make_vault(stage.order, stage.folder, server, password, stage.watcher)
    stage.report.line(f"{vault.repository.url}, opened by the passphrase in a file of its own")
    return vault


def _back_up(stage: Stage, server: ThrowawayPostgres, vault: Vault) -> Recorded:
    with database.connect(server) as session:
        tables = database.read_untouched(session)
        timeline = database.read_timeline(session)
    with write_load(server, stage.folder / "pgbench.log") as load:
        stage.begin("a full backup over the network, while pgbench writes")
        _take(stage, server, vault, load, Tier.FULL)
        stage.begin("the next backup: everything is read, only what changed is stored")
        before, after, summary = _take(stage, server, vault, load, Tier.INCREMENTAL)
    return Recorded(tables, timeline, before, after, summary)


def _take(
    stage: Stage, server: ThrowawayPostgres, vault: Vault, load: WriteLoad, tier: Tier
) -> tuple[int, int, BackupSummary]:
    """Take a backup; return the transactions that were committed when it began, when it ended, and what it is."""
    stage.report.line(f"$ holdfast backup {SOURCE} --tier {tier}")
    before = _count(server)
    with stage.timed(f"{tier} backup") as sizes:
        outcome = vault.application().backup([SOURCE], tier)[0]
        if outcome.error is not None:
            raise outcome.error
        if outcome.summary is None or outcome.damage:
            raise SourceFailed(f"the {tier} backup found damage in a server that has none: {outcome.damage}")
        sizes.size_bytes, sizes.stored_bytes = outcome.summary.size_bytes, outcome.summary.stored_bytes
    load.require_running()
    after = _count(server)
    stage.transactions = after
    stage.report.line(
        f"backup {outcome.summary.id[:12]}: {megabytes(sizes.size_bytes)} read, {megabytes(sizes.stored_bytes)} "
        f"stored; {after - before:,} transactions were committed meanwhile"
    )
    return before, after, outcome.summary


def _count(server: ThrowawayPostgres) -> int:
    with database.connect(server) as session:
        return database.count_transactions(session)


def _drop_table(stage: Stage, server: ThrowawayPostgres) -> None:
    stage.begin("the disaster")
    with database.connect(server) as session:
        session.query("DROP TABLE public.orders")
        session.query("CHECKPOINT")
        is_gone = session.query("SELECT to_regclass('public.orders') IS NULL") == [("t",)]
    stage.report.line(f"shop=# DROP TABLE orders;   -- {stage.order.orders:,} rows")
    stage.prove("the table orders is gone from the live server", holds=is_gone)
