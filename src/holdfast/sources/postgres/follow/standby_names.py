"""Whether ``synchronous_standby_names`` makes commits wait for a standby of some name. Pure.

Source: PostgreSQL's src/backend/replication/syncrep_gram.y.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([(),*])|([^\s(),"*]+))')


@dataclass(frozen=True, slots=True)
class StandbyNames:
    """Who is waited for: ``count`` of ``names``, the first ones or (``is_any``) whichever answers first."""

    count: int
    names: tuple[str, ...]
    is_any: bool

    def names_one(self, application_name: str) -> bool:
        """Tell whether commits may wait for a standby of that name: those named before it may be down."""
        return any(name == "*" or name.lower() == application_name.lower() for name in self.names)


def parse_standby_names(text: str) -> StandbyNames | None:
    """Return what the setting says; None where it is empty or not understood."""
    tokens = [(match[1], match[2] or match[3] or "") for match in _TOKEN.finditer(text)]
    if not tokens:
        return None
    words = [quoted.replace('""', '"') if quoted is not None else plain for quoted, plain in tokens]
    is_any = words[0].upper() == "ANY" and len(words) > 1
    if words[0].upper() in ("ANY", "FIRST") and len(words) > 1:
        words = words[1:]
    count = 1
    if len(words) > 1 and words[0].isdigit() and words[1] == "(":
        count, words = int(words[0]), words[1:]
    names = tuple(word for word in words if word not in ("(", ")", ","))
    return StandbyNames(count, names, is_any) if names else None
