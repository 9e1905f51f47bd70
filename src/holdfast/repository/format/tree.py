"""The tree of a backup: one JSON line an entry (docs/format.md, section 6)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from holdfast.model.documents import JsonObject, encode_document
from holdfast.repository.format.container import broken
from holdfast.repository.format.lists import ContentRef, parse_ref

LINE_BYTES_MAX = 1 << 16
TYPES = ("file", "folder", "link")
LAYOUTS = ("pages", "content")


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """One file, folder or link of a backup. ``modified_at`` is in whole seconds since 1970, UTC."""

    path: str
    type: str
    mode: int | None = None
    modified_at: int | None = None
    link: str | None = None
    layout: str = "content"
    ref: ContentRef | None = None


def encode_line(entry: TreeEntry) -> bytes:
    """Return the entry's line with its end; raises ``IntegrityBroken`` for a path no reader would take."""
    check_path(f"entry {entry.path!r}", entry.path)
    document: JsonObject = {"type": entry.type}
    _put_name(document, "path", entry.path)
    if entry.mode is not None:
        document["mode"] = entry.mode
    if entry.modified_at is not None:
        document["mtime"] = entry.modified_at
    if entry.link is not None:
        _put_name(document, "link", entry.link)
    if entry.ref is not None:
        document["layout"] = entry.layout
        document["ref"] = entry.ref.to_document()
    return encode_document(document) + b"\n"


def _put_name(document: JsonObject, key: str, name: str) -> None:
    # JSON has no place for bytes that are not UTF-8, and parsers differ in what they make of surrogates.
    try:
        name.encode()
    except UnicodeEncodeError:
        document[f"{key}_hex"] = name.encode(errors="surrogateescape").hex()
    else:
        document[key] = name


def _get_name(document: dict[str, object], key: str) -> object:
    in_hex = document.get(f"{key}_hex")
    if isinstance(in_hex, str):
        return bytes.fromhex(in_hex).decode(errors="surrogateescape")
    return document.get(key)


def check_path(what: str, path: str) -> None:
    """Refuse a path that could leave the folder it is put into; raises ``IntegrityBroken``."""
    if not path or path.startswith("/") or "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise broken(what, f"the path {path!r} is not a plain relative one")


def check_tree(what: str, entries: Iterable[TreeEntry]) -> None:
    """Refuse a tree in which a path occurs twice, or lies below a file; raises ``IntegrityBroken``."""
    types: dict[str, str] = {}
    for entry in entries:
        if entry.path in types:
            raise broken(what, f"the path {entry.path!r} occurs twice in its tree")
        types[entry.path] = entry.type
    for path in types:
        parent = path.rpartition("/")[0]
        if types.get(parent) == "file":
            raise broken(what, f"the path {path!r} lies below a file of its tree")


def parse_line(what: str, line: bytes) -> TreeEntry:
    """Read one line; raises ``IntegrityBroken``."""
    try:
        document = json.loads(line)
    except ValueError as error:
        raise broken(what, "a line of its tree is not JSON") from error
    if not isinstance(document, dict):
        raise broken(what, "a line of its tree is no entry")
    try:
        path, kind, link = _get_name(document, "path"), document.get("type"), _get_name(document, "link")
    except ValueError as error:
        raise broken(what, "a name in its tree is not hexadecimal") from error
    mode, modified_at, layout = document.get("mode"), document.get("mtime"), document.get("layout", "content")
    if not isinstance(path, str):
        raise broken(what, "a line of its tree has no path")
    sound = (
        kind in TYPES
        and layout in LAYOUTS
        and (mode is None or (isinstance(mode, int) and 0 <= mode <= 0o7777))
        and (modified_at is None or isinstance(modified_at, int))
        and ((kind == "link") == isinstance(link, str))
    )
    if not sound:
        raise broken(what, f"the entry {path!r} of its tree is impossible")
    check_path(what, path)
    ref = parse_ref(what, document.get("ref")) if kind == "file" else None
    return TreeEntry(path, str(kind), mode, modified_at, link if isinstance(link, str) else None, layout, ref)
