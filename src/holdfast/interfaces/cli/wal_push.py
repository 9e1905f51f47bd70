"""``holdfast wal push`` from words to exit code; where a segment is durable already, the standard library does it.

Where PostgreSQL has more segments ready than the one it asks for, a helper stores them all in one run, and notes what
is durable; this process only compares the file with the note. Whatever is not as it should be goes the slow way, which
asks the repository and tells what is wrong.
"""

from __future__ import annotations

import os
import sys
import time

from holdfast.application.wal_notes import (
    forget,
    forget_old,
    is_helped,
    is_not,
    is_noted,
    is_segment,
    lock,
    notes_folder,
    ready_segments,
    say_not,
    say_wanted,
)

AHEAD = "--ahead"
DONE = 0
FAILED_MAX = 125
"""PostgreSQL takes what is above for the end of the archiver itself."""
WAIT_SECONDS_MAX = 20.0
"""How long the helper is waited for, before a segment is pushed without it."""
POLL_SECONDS = 0.003
COLLECT_EVERY_OBJECTS = 50_000
_VALUES = ("--config", "--source", "--repository")
_FLAGS = ("--json", "--quiet", "--verbose")
TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.interfaces.cli.stopping import StopRequest


def run(words: list[str]) -> int | None:
    """Run the command with the words behind ``wal push``; None for words that it does not understand."""
    if words[:1] == [AHEAD]:
        return _run_ahead(words[1:])
    parsed = _parse(words)
    if parsed is None:
        return None
    path, options, flags = parsed
    folder = None
    if not {"--json", "--verbose"} & flags and is_segment(os.path.basename(path)):  # noqa: PTH119
        try:
            folder = _folder(path, options)
            if folder is not None and _is_done(folder, path, options):
                return DONE
        except Exception:  # noqa: BLE001 - nothing that goes wrong here may keep the log from being archived
            folder = None
    code = _run_slowly(path, options, flags)
    if folder is not None and code == DONE:
        forget(folder, os.path.basename(path))  # noqa: PTH119
    return code


def _parse(words: list[str]) -> tuple[str, dict[str, str], set[str]] | None:
    named: list[str] = []
    options: dict[str, str] = {}
    flags: set[str] = set()
    coming = iter(words)
    for word in coming:
        option, equals, value = word.partition("=")
        if option in _VALUES:
            value = value if equals else next(coming, "")
            if not value or value.startswith("-"):
                return None
            options[option] = value
        elif word in _FLAGS:
            flags.add(word)
        elif word.startswith("-") or not word:
            return None
        else:
            named.append(word)
    return (named[0], options, flags) if len(named) == 1 else None


def _folder(path: str, options: dict[str, str]) -> str | None:
    """Return the folder of notes; None where PostgreSQL has not said that the segment is ready."""
    wal, name = os.path.split(path)
    if not os.path.exists(os.path.join(wal, "archive_status", f"{name}.ready")):  # noqa: PTH110, PTH118
        return None
    config, source, repository = (options.get(one, "") for one in _VALUES)
    return notes_folder(os.environ, wal, config, source, repository)


def _is_done(folder: str, path: str, options: dict[str, str]) -> bool:
    """Tell whether the segment is durable, without asking the repository; has a helper make it so where one helps."""
    wal, name = os.path.split(path)
    if is_noted(folder, path):
        say_wanted(folder, name)
        return True  # The note stays as long as the segment is ready: until then it may be asked for again.
    forget_old(folder, name)
    if os.path.exists(f"{folder}/{name}") or is_not(folder, name):  # noqa: PTH110
        return False
    say_wanted(folder, name)
    if not is_helped(folder):
        if not any(other != name for other in ready_segments(wal)):
            return False
        _spawn(folder, wal, options)
    begun = time.monotonic()
    while time.monotonic() - begun < WAIT_SECONDS_MAX:
        is_alive = is_helped(folder)  # before the note is looked for: it may write one and end
        if os.path.exists(f"{folder}/{name}"):  # noqa: PTH110
            return is_noted(folder, path)
        if is_not(folder, name):
            return False
        if not is_alive:
            break
        time.sleep(POLL_SECONDS)
    say_not(folder, name)  # so that the next try does not wait for a helper again
    return False


def _spawn(folder: str, wal: str, options: dict[str, str]) -> None:
    """Start the helper, which has the lock from its first moment on, and ends by itself."""
    held = lock(folder)
    if held is None:
        return
    try:
        import subprocess

        words = [word for name in _VALUES if name in options for word in (name, options[name])]
        subprocess.Popen(
            [sys.executable, "-m", "holdfast", "wal", "push", AHEAD, folder, wal or ".", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(held,),
        )
    finally:
        os.close(held)


def _run_ahead(words: list[str]) -> int:
    """Be the helper: words are the folder of notes, the folder of segments, and the options."""
    _prepare()
    from holdfast.application.wal_push_ahead import PushAhead, run_push_ahead

    parsed = _parse(words[1:])
    if parsed is None:
        return 2
    wal, options, _ = parsed
    config, source, repository = (options.get(name, "") for name in _VALUES)
    run_push_ahead(PushAhead(words[0], wal, config, source, repository))
    return DONE


def _prepare() -> None:
    """Do for a process with all modules what ``cli.main`` does."""
    import gc

    gc.set_threshold(COLLECT_EVERY_OBJECTS, 20, 20)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _run_slowly(path: str, options: dict[str, str], flags: set[str]) -> int:
    """Push into the repository itself; tells what was done and what was wrong, as every command does."""
    _prepare()
    from pathlib import Path

    from holdfast.interfaces.cli.failures import ended
    from holdfast.interfaces.cli.output import prepare_outputs
    from holdfast.interfaces.cli.stopping import StopRequest

    prepare_outputs()
    stop = StopRequest()
    stop.listen()
    config, source, repository = (options.get(name) for name in _VALUES)
    wish = PushWish(Path(path), Path(config) if config else None, source, repository)
    as_json, verbose = "--json" in flags, "--verbose" in flags
    return ended(lambda: push_slowly(wish, stop, as_json, verbose), as_json=as_json, verbose=verbose)


class PushWish:
    """What is pushed, and whither. No dataclass: those take a while to import."""

    __slots__ = ("config", "path", "repository", "source")

    def __init__(self, path: Path, config: Path | None, source: str | None, repository: str | None) -> None:
        self.path, self.config, self.source, self.repository = path, config, source, repository


def push_slowly(wish: PushWish, stop: StopRequest, as_json: bool, verbose: bool) -> int:
    """Push a file of the log; raises ``HoldfastError`` with an exit code that PostgreSQL understands."""
    from holdfast.application.wal import PUSH_POLICY, WalOrder, opened
    from holdfast.config.loading import load_config
    from holdfast.interfaces.cli.output import say, say_json
    from holdfast.model.errors import HoldfastError

    stop.polled = True  # A put is not broken off half way: the server would have it again at once.
    try:
        settings = load_config(wish.config, os.environ)
        with opened(settings, WalOrder(wish.source, wish.repository), PUSH_POLICY) as files:
            done = files.push(wish.path)
    except HoldfastError as error:
        error.exit_code = min(error.exit_code, FAILED_MAX)
        raise
    if as_json:
        say_json({"file": wish.path.name, "done": done})
    elif verbose:
        say(done)
    return DONE
