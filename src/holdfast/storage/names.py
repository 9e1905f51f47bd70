"""Which names a store takes: the one rule that folder and object stores share."""

from __future__ import annotations

import re

from holdfast.model.errors import Denied
from holdfast.storage.port import VOLATILE_PREFIX

NAME_LENGTH_MAX = 512
PART_LENGTH_MAX = 200

STAGING_PREFIX = VOLATILE_PREFIX + "staging/"
"""Where a folder store writes before a name is given. No object may be named so, and no listing shows it."""

_NAME = re.compile(r"[a-z0-9._-]+(?:/[a-z0-9._-]+)*")


def is_name(name: str) -> bool:
    """Tell whether an object may bear this name."""
    if len(name) > NAME_LENGTH_MAX or _NAME.fullmatch(name) is None or name.startswith(STAGING_PREFIX):
        return False
    return all(part not in {".", ".."} and len(part) <= PART_LENGTH_MAX for part in name.split("/"))


def check_name(name: str) -> None:
    """Raise Denied unless an object may bear this name."""
    if not is_name(name):
        raise Denied(
            f"{name[:NAME_LENGTH_MAX]!r} is not a name that a store takes",
            hint="Names come from holdfast itself: run `holdfast check`, and report this if it finds nothing.",
        )


def check_volatile(name: str) -> None:
    """Raise Denied unless this is a name below ``volatile/``, where objects may be replaced."""
    check_name(name)
    if not name.startswith(VOLATILE_PREFIX):
        raise Denied(
            f"refused to replace {name!r}: it does not lie below {VOLATILE_PREFIX}",
            hint="Everything outside volatile/ is written once; this is a fault of the program, please report it.",
        )


def check_prefix(prefix: str) -> None:
    """Raise Denied unless a listing may begin with this: empty, or the name of a folder and a slash."""
    if prefix and not (prefix.endswith("/") and is_name(prefix + "x")):
        raise Denied(
            f"{prefix[:NAME_LENGTH_MAX]!r} is not a prefix that can be listed",
            hint="Prefixes come from holdfast itself and end with a slash; please report this.",
        )
