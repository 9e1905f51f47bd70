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
    if words[:2] == _PUSH:
        sys.exit(_push(words[2:]))
    from holdfast.interfaces.cli.main import run as run_any

    run_any()


def _push(words: list[str]) -> int:
    """Return an exit code that PostgreSQL understands. Help, and what is wrong with words, are told as everywhere."""
    from holdfast.interfaces.cli.wal_push import run as push

    code = push(words)
    if code is not None:
        return min(code, _PUSH_FAILED_MAX)
    from holdfast.interfaces.cli.main import run as run_any

    try:
        run_any()
    except SystemExit as end:
        found = end.code if isinstance(end.code, int) else 1
        return min(found, _PUSH_FAILED_MAX)
    return 0


if __name__ == "__main__":
    run()
