"""Where this host keeps what it has seen. Imports the standard library only: `wal fetch` must begin in no time."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def state_path(environment: Mapping[str, str]) -> str:
    """Return the folder of this host's state: HOLDFAST_STATE_DIR, systemd's, the user's, in that order."""
    if "HOLDFAST_STATE_DIR" in environment:
        return environment["HOLDFAST_STATE_DIR"]
    if "STATE_DIRECTORY" in environment:
        return environment["STATE_DIRECTORY"].split(":")[0]
    if "XDG_STATE_HOME" in environment:
        return os.path.join(environment["XDG_STATE_HOME"], "holdfast")  # noqa: PTH118 - pathlib takes its time
    home = environment.get("HOME")
    return os.path.join(home, ".local/state/holdfast") if home else "/var/lib/holdfast"  # noqa: PTH118
