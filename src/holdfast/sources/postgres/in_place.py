"""Refuses tablespaces that lie inside the data folder where a restored copy would not start.

Such tablespaces (allow_in_place_tablespaces, for developers) are no links, and recovery stops with PANIC on meeting
one unless that setting is on. PostgreSQL 15 does not list them in a base backup at all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from holdfast.model.errors import Denied, SourceFailed, Unavailable
from holdfast.sources.port import EntryType
from holdfast.sources.postgres.connection import Session
from holdfast.sources.postgres.details import Tablespace
from holdfast.sources.postgres.server import ServerFacts

SETTING = "allow_in_place_tablespaces"
FIRST_MAJOR_LISTING_THEM = 16

_FIND = "SELECT spcname FROM pg_tablespace WHERE oid >= 16384 AND pg_tablespace_location(oid) NOT LIKE '/%'"
_PLACE = re.compile(r"pg_tblspc/\d+")


class InPlaceRule:
    """Whether one server's tablespaces inside its data folder may be captured. ``allowed`` is how it is configured."""

    def __init__(self, server: ServerFacts, allowed: bool) -> None:
        self._permitted = allowed and server.major >= FIRST_MAJOR_LISTING_THEM

    def check_server(self, sql: Session | None) -> None:
        """Ask before anything is read, where the role may ask."""
        if sql is None or self._permitted:
            return
        try:
            rows = sql.query(_FIND)
        except (Denied, SourceFailed, Unavailable):
            return  # The stream itself is looked at too, only later.
        if rows:
            raise _refusal(str(rows[0][0]))

    def check_listed(self, tablespaces: Sequence[Tablespace]) -> None:
        """Look at what the server tells at the start of a base backup."""
        for space in tablespaces:
            if not space.location.startswith("/") and not self._permitted:
                raise _refusal(str(space.oid))

    def check_member(self, path: str, kind: EntryType) -> None:
        """Look at a member of base.tar: every tablespace outside is a link there."""
        if kind is EntryType.FOLDER and not self._permitted and _PLACE.fullmatch(path):
            raise _refusal(path)


def _refusal(name: str) -> SourceFailed:
    return SourceFailed(
        f"tablespace {name} lies inside the data folder: a restored copy would not start",
        hint="Move its tables to an ordinary tablespace (ALTER TABLE ... SET TABLESPACE) and drop it. From PostgreSQL "
        f"{FIRST_MAJOR_LISTING_THEM} on, {SETTING} = on in the server's configuration lets it be captured.",
    )
