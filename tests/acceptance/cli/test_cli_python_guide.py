"""The script of docs/guide/python.md runs as it stands there."""

from __future__ import annotations

import subprocess
import sys

from tests.acceptance.cli.cli_program import Program
from tests.docs.pages import ROOT, blocks
from tests.servers import PostgresServers

MAJOR = 17


def test_the_script_of_the_python_page_runs(postgres_servers: PostgresServers) -> None:
    server = postgres_servers.start_copy(MAJOR)
    program = Program(postgres_servers.new_folder("python-guide"))
    program.init(source=f"orders=postgresql://postgres@127.0.0.1:{server.port}/postgres")
    page = (ROOT / "docs/guide/python.md").read_text(encoding="utf-8")
    script = "\n".join(block.text for block in blocks(page) if block.language == "python")
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=program.folder,
        env=program.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    postgres_servers.drop(server)
    assert ended.returncode == 0, ended.stderr
    assert (program.folder / "restored/PG_VERSION").exists()
    assert "bytes new" in ended.stdout
