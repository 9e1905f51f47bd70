"""What a PostgreSQL backup knows about itself: the typed form of the document kept beside its streams."""

from __future__ import annotations

import re
from dataclasses import dataclass

from holdfast.model.documents import JsonObject, JsonValue
from holdfast.model.errors import IntegrityBroken

FORMAT = 1
"""The version of the document; a higher one was written by a later holdfast."""

WAL_SEGMENT_SIZES = frozenset(1 << power for power in range(20, 31))
"""1 MiB to 1 GiB, the powers of two that initdb accepts."""

_LSN = re.compile(r"[0-9A-F]{1,8}/[0-9A-F]{1,8}")


def parse_lsn(text: str) -> int:
    """Return the byte position that ``16/B374D848`` names; raises ValueError."""
    if not _LSN.fullmatch(text.upper()):
        raise ValueError(f"{text!r} is not a log position")
    high, low = text.split("/")
    return (int(high, 16) << 32) | int(low, 16)


def format_lsn(position: int) -> str:
    """Return a byte position as PostgreSQL prints it."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


@dataclass(frozen=True, slots=True)
class Tablespace:
    """A tablespace of the source: its oid, its folder there, and its size (None where it was not told)."""

    oid: int
    location: str
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class BackupDetails:
    """The facts of one physical backup.

    ``start_lsn`` is the redo position to replay from, ``stop_lsn`` the first byte after the last record needed.
    ``settings`` are pairs of a name and its value as SHOW prints it (with its unit), of the settings that are not at
    their default, and always of ``recovery.MINIMUM_SETTINGS``; a role that may not see one leaves it out. None is
    unknown. ``collations`` are pairs of provider (``libc``, ``icu``) or database and version.
    """

    system_identifier: str
    server_version_num: int
    server_version: str
    catalog_version: int | None
    block_size: int
    wal_segment_size: int
    checksums: bool | None
    start_lsn: str
    stop_lsn: str
    start_timeline: int
    stop_timeline: int
    tablespaces: tuple[Tablespace, ...] = ()
    in_recovery: bool = False
    settings: tuple[tuple[str, str], ...] = ()
    configuration_outside: bool | None = None
    collations: tuple[tuple[str, str], ...] = ()
    server_encoding: str | None = None

    @property
    def major(self) -> int:
        """The major version: 15 to 18."""
        return self.server_version_num // 10000

    def setting(self, name: str) -> str | None:
        """Return the recorded value of a setting, None where it was not recorded."""
        return next((value for known, value in self.settings if known == name), None)

    def to_document(self) -> JsonObject:
        """Return the document that ``from_document`` reads."""
        return {
            "format": FORMAT,
            "system_identifier": self.system_identifier,
            "server_version_num": self.server_version_num,
            "server_version": self.server_version,
            "catalog_version": self.catalog_version,
            "block_size": self.block_size,
            "wal_segment_size": self.wal_segment_size,
            "checksums": self.checksums,
            "start_lsn": self.start_lsn,
            "stop_lsn": self.stop_lsn,
            "start_timeline": self.start_timeline,
            "stop_timeline": self.stop_timeline,
            "tablespaces": [
                {"oid": space.oid, "location": space.location, "size_bytes": space.size_bytes}
                for space in self.tablespaces
            ],
            "in_recovery": self.in_recovery,
            "settings": _pairs_document(self.settings),
            "configuration_outside": self.configuration_outside,
            "collations": _pairs_document(self.collations),
            "server_encoding": self.server_encoding,
        }

    @classmethod
    def from_document(cls, document: JsonObject) -> BackupDetails:
        """Read what ``to_document`` wrote; unknown keys are passed over.

        Raises ``IntegrityBroken`` naming the key that is missing or does not make sense.
        """
        if (written := _integer(document, "format")) > FORMAT:
            raise IntegrityBroken(
                f"the backup's details have format {written}, this holdfast reads up to {FORMAT}",
                hint="restore with the holdfast that made the backup, or a newer one",
            )
        details = cls(
            system_identifier=_text(document, "system_identifier"),
            server_version_num=_integer(document, "server_version_num"),
            server_version=_text(document, "server_version"),
            catalog_version=_integer_or_none(document, "catalog_version"),
            block_size=_integer(document, "block_size"),
            wal_segment_size=_integer(document, "wal_segment_size"),
            checksums=_flag_or_none(document, "checksums"),
            start_lsn=_text(document, "start_lsn"),
            stop_lsn=_text(document, "stop_lsn"),
            start_timeline=_integer(document, "start_timeline"),
            stop_timeline=_integer(document, "stop_timeline"),
            tablespaces=tuple(_tablespace(item) for item in _array(document, "tablespaces")),
            in_recovery=bool(_flag_or_none(document, "in_recovery")),
            settings=_pairs(document, "settings"),
            configuration_outside=_flag_or_none(document, "configuration_outside"),
            collations=_pairs(document, "collations"),
            server_encoding=_text_or_none(document, "server_encoding"),
        )
        details._refuse_impossible()
        return details

    def _refuse_impossible(self) -> None:
        if self.wal_segment_size not in WAL_SEGMENT_SIZES:
            raise _unreadable("wal_segment_size")
        if self.start_timeline < 1 or self.stop_timeline < self.start_timeline:
            raise _unreadable("stop_timeline")
        for name, text in (("start_lsn", self.start_lsn), ("stop_lsn", self.stop_lsn)):
            if not _LSN.fullmatch(text):
                raise _unreadable(name)
        if parse_lsn(self.stop_lsn) <= parse_lsn(self.start_lsn):
            raise _unreadable("stop_lsn")


def _unreadable(key: str) -> IntegrityBroken:
    return IntegrityBroken(
        f"the backup's details have no usable {key}", hint="run `holdfast check`; restore from another backup meanwhile"
    )


def _value(document: JsonObject, key: str) -> JsonValue:
    if key not in document:
        raise _unreadable(key)
    return document[key]


def _integer_or_none(document: JsonObject, key: str) -> int | None:
    value = _value(document, key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise _unreadable(key)
    return value


def _integer(document: JsonObject, key: str) -> int:
    value = _integer_or_none(document, key)
    if value is None:
        raise _unreadable(key)
    return value


def _text_or_none(document: JsonObject, key: str) -> str | None:
    value = _value(document, key)
    if value is not None and not isinstance(value, str):
        raise _unreadable(key)
    return value


def _text(document: JsonObject, key: str) -> str:
    value = _text_or_none(document, key)
    if not value:
        raise _unreadable(key)
    return value


def _flag_or_none(document: JsonObject, key: str) -> bool | None:
    value = _value(document, key)
    if value is not None and not isinstance(value, bool):
        raise _unreadable(key)
    return value


def _array(document: JsonObject, key: str) -> list[JsonValue]:
    value = _value(document, key)
    if not isinstance(value, list):
        raise _unreadable(key)
    return value


def _tablespace(item: JsonValue) -> Tablespace:
    if not isinstance(item, dict):
        raise _unreadable("tablespaces")
    return Tablespace(_integer(item, "oid"), _text(item, "location"), _integer_or_none(item, "size_bytes"))


def _pairs_document(pairs: tuple[tuple[str, str], ...]) -> list[JsonValue]:
    return [[name, value] for name, value in pairs]


def _pairs(document: JsonObject, key: str) -> tuple[tuple[str, str], ...]:
    pairs: list[tuple[str, str]] = []
    for item in _array(document, key):
        match item:
            case [str() as name, str() as value]:
                pairs.append((name, value))
            case _:
                raise _unreadable(key)
    return tuple(pairs)
