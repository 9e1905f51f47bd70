"""Folders to restore into: which of them may be."""

from __future__ import annotations

from pathlib import Path

from holdfast.model.errors import ConfigInvalid


def refuse_occupied(place: Path) -> None:
    """Raise ``ConfigInvalid`` where a folder to restore into holds anything or cannot be looked into."""
    try:
        occupied = any(item.name != "lost+found" for item in place.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigInvalid(
            f"{place} cannot be restored into: {(error.strerror or str(error)).lower()}",
            hint="Name a folder that is empty or does not exist yet, and that this user may write to.",
        ) from error
    if occupied:
        raise ConfigInvalid(
            f"{place} is not empty",
            hint="Restore into an empty or new folder, or bring an earlier or damaged copy up to the backup with "
            "--delta, which rewrites what differs and removes what does not belong.",
        )
