"""The commands on the pages that users read are run, page by page, in the order in which they stand there."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from tests.contract.storage.moto_server import ACCESS_KEY, REGION, SECRET_KEY, make_bucket, running_moto
from tests.docs.pages import Block, blocks, shown, user_pages
from tests.docs.stage import PASSPHRASE, Stage
from tests.integration.postgres_capture.servers import execute, value
from tests.servers import PostgresServers, quick_settings

from holdfast.sandbox import server_account
from holdfast.sandbox.folders import make_private_folder
from holdfast.sandbox.ports import free_port

MAJOR = 17
BUCKETS = ("shop-backups",)
HBA_LINES = (
    "local all all trust",
    "host all postgres 127.0.0.1/32 trust",
    "host all,replication holdfast 127.0.0.1/32 scram-sha-256",
)
PAGES_ELSEWHERE = {"docs/guide/demo.md": "tests/acceptance/demo runs the demo"}
SET_UP = """
mkdir -p /etc/holdfast
printf '%s\\n' '{passphrase}' > /etc/holdfast/passphrase
chmod 600 /etc/holdfast/passphrase
holdfast init --quiet --application shop --repository file:///backups/holdfast \\
    --source orders=postgresql://holdfast@db.internal/shop --passphrase-file /etc/holdfast/passphrase
"""


def _with_role(stage: Stage) -> None:
    stage.give_role()


def _with_configuration(stage: Stage) -> None:
    stage.give_role()
    stage.run_before(SET_UP.format(passphrase=PASSPHRASE))


def _with_backup(stage: Stage) -> None:
    _with_configuration(stage)
    stage.run_before("holdfast backup --quiet")


def _with_logical_backup(stage: Stage) -> None:
    _with_configuration(stage)
    execute(stage.server, "GRANT pg_read_all_data TO holdfast")
    place = stage.folder / "etc/holdfast/holdfast.yaml"
    written = place.read_text(encoding="utf-8")
    captured = written.replace("kind: postgres,", "kind: postgres, capture: [physical, logical],")
    assert captured != written
    place.write_text(captured, encoding="utf-8")
    stage.run_before("holdfast backup --quiet")


def _with_follower(stage: Stage) -> None:
    """A follower that has taken its first base backup, and a moment that lies behind that."""
    _with_configuration(stage)
    stage.follow()
    stage.run_before("until holdfast windows --quiet --json | grep -q end_position; do sleep 0.5; done; sleep 5")


def _with_tablespace(stage: Stage) -> None:
    place = stage.folder / "srv/fast"
    make_private_folder(place, server_account())
    execute(stage.server, f"CREATE TABLESPACE fast LOCATION '{place}'")
    execute(stage.server, "ALTER TABLE orders SET TABLESPACE fast", database="shop")
    _with_configuration(stage)


def _with_disaster(stage: Stage) -> None:
    """A backup; then rows that no backup holds, and a file of a table that the disk lost."""
    _with_backup(stage)
    execute(stage.server, "CREATE TABLE later AS SELECT 1 AS id", "CHECKPOINT", database="shop")
    path = stage.server.data_folder / value(stage.server, "SELECT pg_relation_filepath('orders')", database="shop")
    with path.open("r+b") as file:
        file.seek(3 * 8192)
        file.write(bytes(8192))


BEFORE: dict[str, Callable[[Stage], None]] = {
    "docs/guide/getting-started.md": lambda stage: None,
    "docs/guide/logical.md": _with_logical_backup,
    "docs/guide/point-in-time.md": _with_follower,
    "docs/guide/postgresql.md": _with_tablespace,
    "docs/guide/repositories.md": _with_backup,
    "docs/runbooks/restore.md": _with_disaster,
}


@pytest.fixture
def stage(postgres_servers: PostgresServers, server_folder: Path) -> Iterator[Stage]:
    settings = replace(quick_settings({"unix_socket_directories": "/tmp"}), hba_lines=HBA_LINES)
    server = postgres_servers.start_copy(MAJOR, settings)
    made = Stage(server_folder, server, free_port(random.SystemRandom()))
    made.set(HOLDFAST_CONFIG=str(server_folder / "etc/holdfast/holdfast.yaml"))
    try:
        yield made
    finally:
        made.close()
        postgres_servers.drop(server)


def _pages_run() -> list[Path]:
    return [path for path in user_pages() if shown(path) not in PAGES_ELSEWHERE]


@pytest.mark.parametrize("path", _pages_run(), ids=shown)
def test_commands_of_a_page_do_what_it_says(path: Path, stage: Stage) -> None:
    page = [block for block in blocks(path.read_text(encoding="utf-8")) if block.runs]
    with ExitStack() as around:
        if any("s3://" in block.text for block in page):
            _offer_buckets(stage, around.enter_context(running_moto()))
        BEFORE.get(shown(path), _with_role)(stage)
        ran = stage.run(page)
        for block, output in zip(page, ran.outputs, strict=False):
            _print(path, block, output)
        assert ran.exit_code == 0, f"the block in line {page[len(ran.outputs) - 1].line} of {shown(path)} fails"
        assert len(ran.outputs) == len(page)
    for block, output in zip(page, ran.outputs, strict=True):
        missing = first_missing(stage.moved(block.shows), output)
        assert missing is None, f"the block in line {block.line} of {shown(path)} does not print {missing!r}"


def first_missing(shows: str, output: str) -> str | None:
    """Return the first line of what a page shows that is not in the output, in order; ``...`` stands for anything."""
    rest = iter(output.splitlines())
    for line in filter(None, map(str.strip, shows.splitlines())):
        parts = (r"\s+".join(map(re.escape, part.split())) for part in line.split("..."))
        pattern = re.compile(r"\s*" + r".*".join(parts) + r"\s*")
        if line != "..." and not any(pattern.fullmatch(printed) for printed in rest):
            return line
    return None


def _offer_buckets(stage: Stage, endpoint: str) -> None:
    for bucket in BUCKETS:
        make_bucket(endpoint, bucket)
    stage.set(
        AWS_ENDPOINT_URL=endpoint,
        AWS_ACCESS_KEY_ID=ACCESS_KEY,
        AWS_SECRET_ACCESS_KEY=SECRET_KEY,
        AWS_REGION=REGION,
    )


def _print(path: Path, block: Block, output: str) -> None:
    print(f"==== {shown(path)}:{block.line}\n{block.text}\n----\n{output}")
