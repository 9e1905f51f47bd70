"""``holdfast wal fetch`` from words to exit code; where the segment is there already, the standard library does it.

0: complete; 1: certainly not stored; 255: anything else. PostgreSQL takes 1 to 125 for the end of the log, so that no
other path may end with them: not a wrong option, not an unreadable configuration, not an error nobody thought of.
"""

from __future__ import annotations

import os
import sys

from holdfast.interfaces.cli.wal_ahead import ahead_folder, is_helped, say_wanted, take_ahead

COMPLETE, ABSENT, UNKNOWN = 0, 1, 255
AHEAD = "--ahead"
SEGMENT_NAME_CHARACTERS = 24
_VALUES = ("--config", "--source", "--repository")
_FLAGS = ("--json", "--quiet", "--verbose", AHEAD)
_USAGE = "usage: holdfast wal fetch NAME PATH [--config PATH] [--source SOURCE] [--repository REPOSITORY]"
TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path


def run(words: list[str]) -> int:
    """Run the command with the words behind ``wal fetch``; never raises, and returns an exit code."""
    try:
        return _run(words)
    except BaseException as error:  # noqa: BLE001 - Python's own exit code 1 would mean: the log ends here
        _tell(f"{type(error).__name__}: {error}")
        return UNKNOWN


def _run(words: list[str]) -> int:
    parsed = _parse(words)
    if parsed is None:
        _tell(_USAGE)
        return UNKNOWN
    named, options = parsed
    config, source, repository = (options.get(name, "") for name in _VALUES)
    folder = ahead_folder(dict(os.environ), config, source, repository)
    if AHEAD in options:
        from holdfast.application.wal_ahead import run_ahead

        run_ahead(folder, config or None, source or None, repository or None)
        return COMPLETE
    name, target = named
    is_segment = len(name) == SEGMENT_NAME_CHARACTERS
    if is_segment and take_ahead(folder, name, target):
        return COMPLETE
    code = fetch_slowly(name, target, config or None, source or None, repository or None)
    if is_segment and code == COMPLETE and not is_helped(folder):
        say_wanted(folder, name)
        _spawn(options)
    return code


def _parse(words: list[str]) -> tuple[list[str], dict[str, str]] | None:
    named: list[str] = []
    options: dict[str, str] = {}
    coming = iter(words)
    for word in coming:
        option, equals, value = word.partition("=")
        if option in _VALUES:
            value = value if equals else next(coming, "")
            if not value:
                return None
            options[option] = value
        elif word in _FLAGS:
            options[word] = word
        elif word.startswith("-"):
            return None
        else:
            named.append(word)
    return (named, options) if len(named) == 2 or AHEAD in options else None


def fetch_slowly(
    name: str, target: str | Path, config: str | Path | None, source: str | None, repository: str | None
) -> int:
    """Fetch from the repository itself; returns an exit code, and tells what was wrong."""
    from pathlib import Path

    from holdfast.application.wal import FETCH_POLICY, WalOrder, opened, system_of
    from holdfast.config.loading import load_config
    from holdfast.interfaces.cli.failures import tell_error, without_secrets
    from holdfast.model.errors import HoldfastError

    try:
        settings = load_config(Path(config) if config else None, os.environ)
        with opened(settings, WalOrder(source, repository), FETCH_POLICY) as files:
            found = files.fetch(name, Path(target), system_of(Path.cwd()))
    except HoldfastError as error:
        tell_error(error, as_json=False)
        return UNKNOWN
    except Exception as error:  # noqa: BLE001 - see above
        _tell(without_secrets(f"unexpected {type(error).__name__}: {error}"))
        return UNKNOWN
    return COMPLETE if found else ABSENT


def _spawn(options: dict[str, str]) -> None:
    """Start the helper that fetches ahead; it ends by itself. Without it fetching is slower, not wrong."""
    import subprocess

    words = [word for name in _VALUES if name in options for word in (name, options[name])]
    subprocess.Popen(
        [sys.executable, "-m", "holdfast", "wal", "fetch", AHEAD, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _tell(text: str) -> None:
    sys.stderr.write(f"error: {text}\n")
