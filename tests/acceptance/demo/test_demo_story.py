"""The demo's story on a small cluster: what it proves, what it measures, and that nothing of it stays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.acceptance.demo.told import Told
from tests.servers import PostgresServers, processes_below

from holdfast.application.application import open_application
from holdfast.demo import DemoOrder, DemoOutcome, Measured, run_demo
from holdfast.model.errors import HoldfastError, Interrupted, OutOfSpace, SourceFailed

SCALE = 2


@dataclass(frozen=True)
class Played:
    outcome: DemoOutcome
    told: Told
    folder: Path

    def measured(self, step: str) -> Measured:
        return next(row for row in self.outcome.measured if row.step == step)


@pytest.fixture(scope="module")
def played(postgres_servers: PostgresServers) -> Iterator[Played]:
    folder, told = postgres_servers.new_folder("demo"), Told()
    yield Played(run_demo(DemoOrder(scale=SCALE, folder=folder), told), told, folder)
    postgres_servers.drop_folder(folder)


def nothing_stays(folder: Path) -> bool:
    return not processes_below(folder) and not list(folder.iterdir())


def test_every_proof_holds_and_is_told(played: Played) -> None:
    assert all(proof.holds for proof in played.outcome.proofs)
    told = "\n".join(played.told.lines)
    for words in (
        "orders: 10,000 rows with digest",
        "customers: 1,250 rows with digest",
        "accounts, tellers, branches and history all sum up to",
        "transactions are there",
        "on timeline 2; the live server is on 1",
        "pg_verifybackup",
        "the flipped bit is found",
    ):
        assert f"proved: {words}" in told or any(words in proof.text for proof in played.outcome.proofs), words


def test_pgbench_wrote_during_the_backups(played: Played) -> None:
    assert played.outcome.transactions > 0
    assert any("transactions were committed meanwhile" in line for line in played.told.lines)
    assert played.told.progress_count > 0


def test_the_second_backup_reads_all_and_stores_less(played: Played) -> None:
    full, second = played.measured("full backup"), played.measured("incremental backup")
    assert full.size_bytes is not None
    assert second.size_bytes is not None
    assert second.size_bytes > 0.9 * full.size_bytes
    assert full.stored_bytes is not None
    assert second.stored_bytes is not None
    assert second.stored_bytes < full.stored_bytes < full.size_bytes


def test_the_table_has_a_row_for_each_step_and_one_for_all(played: Played) -> None:
    ((columns, rows),) = played.told.tables
    assert columns == ("step", "time", "bytes", "rate", "stored", "ratio")
    assert [row[0] for row in rows] == [row.step for row in played.outcome.measured] + ["all of it"]
    assert all(len(row) == len(columns) for row in rows)


def test_it_says_what_to_try_next(played: Played) -> None:
    assert played.told.steps[-1] == "what to try next"
    assert any(line.startswith("$ holdfast init --application") for line in played.told.lines)


def test_nothing_is_left_running_or_lying_around(played: Played) -> None:
    assert played.outcome.folder is None
    assert nothing_stays(played.folder)
    assert "nothing is left running, and the demo's folder is removed" in played.told.lines


def test_what_is_kept_can_be_used_and_runs_no_server(server_folder: Path) -> None:
    outcome = run_demo(DemoOrder(scale=1, folder=server_folder, keep=True), Told())
    assert not processes_below(server_folder)
    assert outcome.folder is not None
    backups = open_application(outcome.folder / "holdfast.yaml").backups()
    assert [backup.tier for backup in backups] == ["full", "incremental"]


@pytest.mark.parametrize(
    ("at", "failure"),
    [
        ("$ holdfast backup shop --tier full", KeyboardInterrupt()),
        ("the next backup", SourceFailed("the disk burns")),
        ("compared with", KeyboardInterrupt()),
    ],
)
def test_a_demo_that_fails_or_is_interrupted_leaves_nothing(
    server_folder: Path, at: str, failure: BaseException
) -> None:
    with pytest.raises(type(failure)):
        run_demo(DemoOrder(scale=1, folder=server_folder), Told(at, failure))
    assert nothing_stays(server_folder)


def test_the_end_of_the_servers_log_is_told_when_a_step_fails(server_folder: Path) -> None:
    told = Told("the disaster", SourceFailed("the disk burns"))
    with pytest.raises(SourceFailed, match="the disk burns"):
        run_demo(DemoOrder(scale=1, folder=server_folder), told)
    assert any(line.startswith("the server's log: ") for line in told.lines)


def test_a_wish_to_stop_ends_the_backup_that_runs(server_folder: Path) -> None:
    told = Told()
    with pytest.raises(Interrupted):
        run_demo(
            DemoOrder(scale=1, folder=server_folder),
            told,
            lambda: any(line.startswith("$ holdfast backup") for line in told.lines),
        )
    assert nothing_stays(server_folder)


def test_too_small_a_disk_is_refused_before_anything_is_made(
    server_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1_000_000_000}))
    with pytest.raises(OutOfSpace, match=r"needs 2\.\d GB"):
        run_demo(DemoOrder(folder=server_folder), Told())
    assert nothing_stays(server_folder)


def test_the_package_is_named_where_postgresql_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.sandbox.programs.USUAL_PLACES", ())
    with pytest.raises(HoldfastError) as caught:
        run_demo(DemoOrder(environment={"PATH": ""}), Told())
    assert "apt-get install postgresql" in caught.value.hint
