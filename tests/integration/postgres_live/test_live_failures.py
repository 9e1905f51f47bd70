"""What others do while a restore goes on, or did before it, is told, and stands in nobody's way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from tests.integration.postgres_capture.servers import execute, value
from tests.integration.postgres_live import shop
from tests.integration.postgres_live.conftest import Live
from tests.integration.postgres_live.kept_folder import INDEX, FolderContent, keep
from tests.servers import PostgresServers

from holdfast.model.errors import HoldfastError, IntegrityBroken, NotFound, Unavailable
from holdfast.sources.port import StoredEntry
from holdfast.sources.postgres.logical import swap
from holdfast.sources.postgres.logical.names import WITNESS
from holdfast.sources.postgres.logical.refill import PostgresServerRefill


@dataclass(frozen=True, slots=True)
class Broken:
    """A content one entry of which cannot be read to its end."""

    content: FolderContent
    path: str

    @property
    def entries(self) -> Sequence[StoredEntry]:
        return self.content.entries

    def open(self, index: int) -> Iterator[bytes]:
        whole = b"".join(self.content.open(index))
        if not self.entries[index].entry.path.endswith(self.path):
            yield whole
            return
        yield whole[: len(whole) // 2]
        raise IntegrityBroken("a chunk is broken", hint="Run `holdfast check`.")


def at(wanted: str, act: Callable[[], None]) -> PostgresServerRefill:
    """Do something as a step begins."""

    def at_step(step: str) -> None:
        if step == wanted:
            act()

    return PostgresServerRefill(at_step=at_step)


def with_witness(live: Live, folder: Path, change: Callable[[dict[str, object]], None]) -> Live:
    """Return the same backup with another witness of the shop."""
    document = json.loads(live.content.witness.read_text())
    change(next(each for each in document["databases"] if each["name"] == "shop"))
    folder.mkdir()
    (folder / "witness").write_text(json.dumps(document))
    rows = [row for row in json.loads((live.folder / INDEX).read_text()) if row[0] != WITNESS]
    rows.append([WITNESS, (folder / "witness").stat().st_size, str(folder / "witness")])
    (folder / INDEX).write_text(json.dumps(rows))
    return Live(live.server, folder)


def test_databases_that_only_look_like_ours_are_left_and_stand_in_nobodys_way(live: Live) -> None:
    described, filled = "holdfast_loading_0000abcd", "holdfast_loading_1000abcd"
    execute(live.server, f"CREATE DATABASE {described}", f"COMMENT ON DATABASE {described} IS 'mine'")
    execute(live.server, f"CREATE DATABASE {filled}")
    execute(live.server, "CREATE TABLE precious (id int)", database=filled)
    report = live.restore(live.target("beside"))
    assert shop.databases(live.server) == {"shop", "beside", described, filled}
    for name in (described, filled):
        assert any(name in note for note in report.notes), report.notes


def test_a_left_over_that_may_not_be_dropped_stands_in_nobodys_way(live: Live) -> None:
    # It is a superuser's; who restores now is an ordinary role.
    name = "holdfast_loading_2000abcd"
    execute(live.server, f"CREATE DATABASE {name}", "CREATE ROLE small LOGIN CREATEDB")
    mark = "holdfast: loading 2000abcd of x for shop"
    execute(live.server, f"COMMENT ON DATABASE {name} IS '{mark}'", "CREATE DATABASE plain OWNER small")
    execute(live.server, "SET ROLE small", "CREATE TABLE t AS SELECT 1 AS id", database="plain")
    plain = Live(live.server, keep(shop.settings_of(live.server), live.folder.parent / "plain", "plain"))
    report = plain.restore(plain.target("beside", only="plain", role="small"))
    assert report.differences == ()
    assert any(name in note and "stays" in note for note in report.notes), report.notes
    assert name in shop.databases(live.server)


def test_a_name_taken_meanwhile_stays_with_who_took_it_and_nothing_of_ours_is_left(live: Live) -> None:
    def take() -> None:
        execute(live.server, "CREATE DATABASE beside")
        execute(live.server, "CREATE TABLE precious (id int)", database="beside")

    with pytest.raises(HoldfastError, match="beside"):
        live.restore(live.target("beside"), at("compare", take))
    assert shop.databases(live.server) == {"shop", "beside"}
    assert value(live.server, "SELECT to_regclass('precious')::text", "beside") == "precious"


def test_a_lock_that_is_not_to_be_had_leaves_the_old_and_the_next_run_uses_what_is_loaded(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "LOCK_SECONDS_MAX", 1)
    monkeypatch.setattr(swap, "ATTEMPTS_MAX", 2)
    with psycopg.connect(live.server.connection_string()) as holder:
        holder.execute("COMMENT ON DATABASE shop IS 'held'")
        with pytest.raises(Unavailable, match="holds a lock on database shop") as raised:
            live.restore(live.target("shop", in_place=True))
        holder.rollback()
    left = shop.databases(live.server) - {"shop"}
    assert len(left) == 1
    assert next(iter(left)) in raised.value.hint
    report = live.restore(live.target("shop", in_place=True))
    assert any("it is used" in note for note in report.notes)
    assert report.differences == ()
    assert not left & shop.databases(live.server)


def test_roles_that_a_failed_restore_made_are_named(live: Live, postgres_servers: PostgresServers) -> None:
    server = postgres_servers.start_copy(15)
    other = Live(server, live.folder)
    content, target, refill = Broken(live.content, "public/orders.sql"), other.target("beside"), PostgresServerRefill()
    with pytest.raises(IntegrityBroken) as raised:
        refill.run(content, target, refill.plan(content, target))
    roles = value(server, "SELECT array_agg(rolname::text) FROM pg_roles WHERE rolname LIKE '%clerk'")
    assert shop.databases(server) == set()
    assert sorted(roles) == ["clerk", "odd clerk"]
    assert "clerk, odd clerk" in raised.value.hint
    postgres_servers.drop(server)


def test_a_missing_extension_is_found_before_anything_is_written(live: Live, tmp_path: Path) -> None:
    def add(database: dict[str, object]) -> None:
        database["extensions"] = {"plpgsql": "1.0", "postgis_of_tests": "3.4"}

    lacking = with_witness(live, tmp_path / "lacking", add)
    steps: list[str] = []
    with pytest.raises(NotFound, match="postgis_of_tests") as raised:
        lacking.restore(lacking.target("beside"), PostgresServerRefill(at_step=steps.append))
    assert "packages" in raised.value.hint
    assert steps == []
    assert shop.databases(live.server) == {"shop"}
