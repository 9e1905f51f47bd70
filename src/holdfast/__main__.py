"""``python -m holdfast`` and ``holdfast``: both begin here. What a recovery calls for every segment begins at once."""

from __future__ import annotations

import sys

_FETCH = ["wal", "fetch"]
_PUSH = ["wal", "push"]
_PUSH_FAILED_MAX = 125
"""Above, PostgreSQL takes its archiver itself for dead."""


def run() -> None:
    """Run the command line of this process and end it with the exit code."""
    words = sys.argv[1:]
    if words[:2] == _FETCH and not {"--help", "-h"} & set(words):
        from holdfast.interfaces.cli.wal_fetch import run as fetch

        sys.exit(fetch(words[2:]))
    from holdfast.interfaces.cli.main import run as run_any

    if words[:2] != _PUSH:
        run_any()
    try:
        run_any()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        sys.exit(min(code, _PUSH_FAILED_MAX))


if __name__ == "__main__":
    run()
