"""A small process that stops a server whose parent died without stopping it (kill -9, a crash, power to the shell)."""

from __future__ import annotations

import subprocess
from pathlib import Path

RELEASE_SECONDS_MAX = 5.0

# It waits for a word on its standard input. When we die the kernel closes the pipe and the word is empty. Only the
# process that the data folder's lock file names is touched, looked up anew before each signal: a process id may be
# somebody else's by then. 20 half seconds are the bound of each wait.
SCRIPT = """
pid=$1 lock=$2
read -r word
[ "$word" = released ] && exit 0
is_ours() { read -r holder rest 2>/dev/null <"$lock" && [ "$holder" = "$pid" ]; } 2>/dev/null
wait_while() { turns=0; while "$@" && [ $turns -lt 20 ]; do sleep 0.5; turns=$((turns + 1)); done; }
is_starting() { ! is_ours && kill -0 "$pid"; } 2>/dev/null
wait_while is_starting
for signal in INT QUIT KILL; do
    is_ours || exit 0
    kill -$signal "$pid" 2>/dev/null
    wait_while is_ours
done
"""


class Lifeline:
    """Guards one server from its start until ``release``, which is called once."""

    def __init__(self, pid: int, lock_path: Path) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", SCRIPT, "holdfast-lifeline", str(pid), str(lock_path)],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def release(self) -> None:
        """Say that the server is stopped: the guard ends without doing anything."""
        try:
            self._process.communicate(b"released\n", timeout=RELEASE_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
