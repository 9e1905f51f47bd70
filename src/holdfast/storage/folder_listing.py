"""Listing a folder store: files in the order of their whole names, as an object store would tell them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from holdfast.storage.folder_errors import translate_os_error
from holdfast.storage.names import STAGING_PREFIX, is_name
from holdfast.storage.port import ObjectInfo


def walk(root: Path, prefix: str, after: str) -> Iterator[ObjectInfo]:
    """Yield the objects below ``prefix`` that sort after ``after``, in name order.

    Other people's files and staging files are passed over, what disappears meanwhile too. The entries of one folder
    for each level are in memory at a time. Folders that cannot be read raise.
    """
    if prefix == STAGING_PREFIX:
        return
    for key, entry in _sorted_entries(root, prefix):
        name = prefix + key
        if name.endswith("/"):
            if name > after or after.startswith(name):
                yield from walk(root, name, after)
        elif name > after and is_name(name):
            info = _describe_entry(root, name, entry)
            if info is not None:
                yield info


def describe(name: str, facts: os.stat_result) -> ObjectInfo:
    """Return a file's facts under its name."""
    return ObjectInfo(name, facts.st_size, datetime.fromtimestamp(facts.st_mtime_ns / 1e9, UTC))


def _sorted_entries(root: Path, prefix: str) -> list[tuple[str, os.DirEntry[str]]]:
    """Return files and folders of one folder; a folder counts with its slash, which yields the order of whole names."""
    entries: list[tuple[str, os.DirEntry[str]]] = []
    try:
        with os.scandir(root / prefix) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    if is_name(f"{prefix}{entry.name}/x"):
                        entries.append((entry.name + "/", entry))
                elif entry.is_file(follow_symlinks=False):
                    entries.append((entry.name, entry))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise translate_os_error(f"{root.as_uri()}/{prefix}", error) from error
    entries.sort(key=lambda pair: pair[0])
    return entries


def _describe_entry(root: Path, name: str, entry: os.DirEntry[str]) -> ObjectInfo | None:
    try:
        return describe(name, entry.stat(follow_symlinks=False))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise translate_os_error(f"{root.as_uri()}/{name}", error) from error
