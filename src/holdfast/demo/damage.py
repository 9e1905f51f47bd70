"""Damage on purpose: one bit of the largest pack of a copy, as a failing disk would flip it."""

from __future__ import annotations

from pathlib import Path

from holdfast.model.errors import NotFound
from holdfast.repository.format.names import parse_pack


def flip_bit(repository_folder: Path) -> Path:
    """Flip one bit in the middle of the largest pack and return the pack's file. Raises ``NotFound`` without any."""
    packs = [path for path in repository_folder.rglob("*") if _is_pack(path.relative_to(repository_folder))]
    if not packs:
        raise NotFound(f"there is no pack in {repository_folder}", hint="Report this: the demo backed up before.")
    victim = max(packs, key=lambda path: path.stat().st_size)
    with victim.open("r+b") as file:
        middle = victim.stat().st_size // 2
        file.seek(middle)
        byte = file.read(1)[0]
        file.seek(middle)
        file.write(bytes([byte ^ 0x10]))
    return victim


def _is_pack(path: Path) -> bool:
    return parse_pack(path.as_posix()) is not None
