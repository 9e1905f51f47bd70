"""A restore in a process of its own, which dies by SIGKILL at a named step.

``python restore_child.py FOLDER ADDRESS PROGRAMS DATABASE STEP``; FOLDER is what ``kept_folder.keep`` made.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path


def main(folder: str, address: str, programs: str, database: str, last: str) -> None:
    from tests.integration.postgres_live.kept_folder import FolderContent

    from holdfast.sources.postgres.logical.names import Selection
    from holdfast.sources.postgres.logical.refill import PostgresServerRefill, ServerTarget
    from holdfast.sources.postgres.settings import settings_from_dsn

    def at_step(step: str) -> None:
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    settings = replace(settings_from_dsn(address), programs=Path(programs), query_seconds_max=30.0)
    target = ServerTarget(settings, database, Selection(database), in_place=True)
    refill = PostgresServerRefill(at_step=at_step)
    content = FolderContent(Path(folder))
    refill.run(content, target, refill.plan(content, target))


if __name__ == "__main__":
    main(*sys.argv[1:])
