"""Decides where tablespaces go: beside the target, or where the operator says; never where the source has them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.model.errors import ConfigInvalid
from holdfast.sources.port import FolderTarget
from holdfast.sources.postgres.details import Tablespace

BESIDE_SUFFIX = ".tablespaces"


@dataclass(frozen=True, slots=True)
class PlacedTablespace:
    """A tablespace of the source, and its new folder."""

    oid: int
    old: str
    new: Path


def absolute(path: Path) -> Path:
    """Return a path from the root, without ``.`` and ``..``; links are left as they are."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve would follow links


def beside(folder: Path) -> Path:
    """Return the folder beside a target that holds the tablespaces nobody mapped."""
    return folder.with_name(folder.name + BESIDE_SUFFIX)


def place_tablespaces(target: FolderTarget, tablespaces: Sequence[Tablespace]) -> tuple[PlacedTablespace, ...]:
    """Return the new folder of every tablespace, by oid.

    Raises ``ConfigInvalid`` for a mapping of a place that the backup does not have, or to a place that is not a
    folder of its own.
    """
    folder = absolute(target.folder)
    mapping = _mapping(target, {space.location.rstrip("/") for space in tablespaces})
    placed = tuple(
        PlacedTablespace(
            space.oid,
            space.location,
            mapping.get(space.location.rstrip("/"), beside(folder) / str(space.oid)),
        )
        for space in sorted(tablespaces, key=lambda space: space.oid)
    )
    _refuse_overlap(folder, placed)
    return placed


def refuse_impossible_locations(target: FolderTarget) -> None:
    """Raise ``ConfigInvalid`` for a mapping that is wrong whatever the backup holds."""
    folder = absolute(target.folder)
    placed = tuple(PlacedTablespace(0, old, new) for old, new in _mapping(target, None).items())
    _refuse_overlap(folder, placed)


def _mapping(target: FolderTarget, known: set[str] | None) -> dict[str, Path]:
    mapping: dict[str, Path] = {}
    for old, new in target.locations:
        plain = old.rstrip("/")
        if not plain.startswith("/") or not new.is_absolute():
            raise ConfigInvalid(
                f"tablespace mapping {old}={new} is not between two absolute paths",
                hint="write --tablespace /old/place=/new/place",
            )
        if plain in mapping:
            raise ConfigInvalid(f"tablespace {old} is mapped twice", hint="give each tablespace one new place")
        if known is not None and plain not in known:
            there = ", ".join(sorted(known)) or "none"
            raise ConfigInvalid(
                f"the backup has no tablespace at {old}", hint=f"the tablespaces of this backup are: {there}"
            )
        mapping[plain] = absolute(new)
    return mapping


def _refuse_overlap(folder: Path, placed: Sequence[PlacedTablespace]) -> None:
    for index, space in enumerate(placed):
        others = (folder, *(other.new for other in placed[:index]))
        for other in others:
            if space.new == other or space.new.is_relative_to(other) or other.is_relative_to(space.new):
                raise ConfigInvalid(
                    f"tablespace {space.old} cannot go to {space.new}: it overlaps {other}",
                    hint="give the target and each tablespace a folder of its own, none inside another",
                )
