"""What a restore or a backup must not do is refused before anything is touched, with a word on what to do instead."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.postgres_capture.servers import value
from tests.integration.roundtrip.engine import SOURCE, Engine
from tests.integration.roundtrip.small import DIGEST, Small, facts_of_tree, open_to_server, start_copy_of
from tests.servers import PostgresServers

from holdfast.model.errors import ConfigInvalid, Conflict
from holdfast.sources.port import Tier

pytestmark = pytest.mark.parametrize("small", [18], indirect=True, ids=["pg18"])  # no version decides any of it


@pytest.mark.parametrize("delta", [False, True])
def test_r3_the_folder_of_a_running_server_is_no_target(small: Small, delta: bool) -> None:
    for place in (small.server.data_folder, small.server.data_folder / "base"):
        with pytest.raises(Conflict, match="runs on") as refused:
            small.engine.restore(small.backup, place, delta=delta)
        assert "stop" in refused.value.hint
    assert value(small.server, DIGEST) == small.digest


def test_a_folder_with_anything_in_it_is_no_target(small: Small, server_folder: Path) -> None:
    target = server_folder / "data"
    target.mkdir()
    (target / "letter").write_text("mine")
    with pytest.raises(ConfigInvalid, match="not empty"):
        small.engine.restore(small.backup, target)
    assert [path.name for path in server_folder.rglob("*")] == ["data", "letter"]


@pytest.mark.parametrize("delta", [False, True])
def test_the_source_s_own_tablespace_is_never_written_to(small: Small, server_folder: Path, delta: bool) -> None:
    target = server_folder / "data"
    before = facts_of_tree(small.place)
    with pytest.raises(Conflict, match="tablespace of"):
        small.engine.restore(small.backup, target, ((str(small.place), small.place),), delta=delta)
    assert not target.exists()
    assert facts_of_tree(small.place) == before


def test_a_tablespace_that_the_backup_does_not_have_cannot_be_mapped(small: Small, server_folder: Path) -> None:
    with pytest.raises(ConfigInvalid, match="no tablespace at /somewhere") as refused:
        small.engine.restore(small.backup, server_folder / "data", (("/somewhere", server_folder / "new"),))
    assert str(small.place) in refused.value.hint
    assert list(server_folder.iterdir()) == []


def test_r1_a_place_of_a_tablespace_that_is_not_empty_is_refused(small: Small, server_folder: Path) -> None:
    mapped = server_folder / "mapped"
    mapped.mkdir()
    (mapped / "letter").write_text("mine")
    with pytest.raises(ConfigInvalid, match="not empty"):
        small.engine.restore(small.backup, server_folder / "data", ((str(small.place), mapped),))
    assert not (server_folder / "data").exists()


def test_another_cluster_is_not_overwritten_by_a_delta(
    small: Small, postgres_servers: PostgresServers, server_folder: Path
) -> None:
    other = postgres_servers.start(small.major)
    other.stop()
    before = facts_of_tree(other.data_folder)
    with pytest.raises(Conflict, match="another cluster"):
        small.engine.restore(small.backup, other.data_folder, delta=True)
    assert facts_of_tree(other.data_folder) == before
    postgres_servers.drop(other)


def test_another_cluster_at_the_same_address_is_a_conflict(small: Small, postgres_servers: PostgresServers) -> None:
    other = postgres_servers.start(small.major)
    readdressed = Engine(small.engine.folder, {SOURCE: other.connection_string()})
    for tier in (Tier.FULL, Tier.INCREMENTAL):
        outcome = readdressed.backup(tier)
        assert outcome.summary is None
        assert isinstance(outcome.error, Conflict)
        assert "another system" in outcome.error.message
        assert f"holdfast adopt {SOURCE}" in outcome.error.hint
    assert [backup.id for backup in small.engine.application().backups()] == [small.backup]
    postgres_servers.drop(other)


def test_a_copy_may_be_restored_over_only_when_it_was_stopped(
    small: Small, postgres_servers: PostgresServers, server_folder: Path
) -> None:
    target = server_folder / "data"
    small.engine.restore(small.backup, target)
    copy = start_copy_of(postgres_servers, small.major, target)
    with pytest.raises(Conflict, match="runs on"):
        small.engine.restore(small.backup, target, delta=True)
    copy.kill()  # leaves its lock file behind
    small.engine.restore(small.backup, target, delta=True)
    open_to_server(target)
    copy.start()
    assert value(copy, DIGEST) == small.digest
