"""Where the configuration file is looked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from holdfast.model.errors import ConfigInvalid

CONFIG_VARIABLE = "HOLDFAST_CONFIG"
LOCAL_NAME = "holdfast.yaml"
SYSTEM_PATH = Path("/etc/holdfast/holdfast.yaml")


def find_config(path: Path | None, environment: Mapping[str, str], folder: Path) -> Path:
    """Return the file to read: the one given, else ``$HOLDFAST_CONFIG``, ``folder``'s own, the system's.

    A file that was named must exist; of the other two the first that does is taken. Raises ``ConfigInvalid``.
    """
    named = path or (Path(environment[CONFIG_VARIABLE]) if environment.get(CONFIG_VARIABLE) else None)
    if named is not None:
        if not named.exists():
            origin = "--config" if path is not None else f"${CONFIG_VARIABLE}"
            raise ConfigInvalid(
                f"the configuration {named} does not exist",
                hint=f"Correct {origin}, or write the file with `holdfast init --config {named}`.",
            )
        return named
    for candidate in (folder / LOCAL_NAME, SYSTEM_PATH):
        if candidate.exists():
            return candidate
    raise ConfigInvalid(
        f"there is no configuration: neither {folder / LOCAL_NAME} nor {SYSTEM_PATH} exists",
        hint=f"Write one with `holdfast init`, or say where it is with --config or ${CONFIG_VARIABLE}.",
    )


def config_to_write(path: Path | None, environment: Mapping[str, str], folder: Path) -> Path:
    """Return where ``init`` writes: the file given, else ``$HOLDFAST_CONFIG``, else ``folder``'s own."""
    if path is not None:
        return path
    return Path(environment[CONFIG_VARIABLE]) if environment.get(CONFIG_VARIABLE) else folder / LOCAL_NAME
