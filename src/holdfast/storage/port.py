"""The contract every store keeps: how bytes get a name and stay there, never what they mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

Data = bytes | bytearray | memoryview

VOLATILE_PREFIX = "volatile/"
"""The only part of a store where objects may be overwritten or deleted in normal work."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a listing tells of one object. ``modified_at`` is by the store's own clock, aware, UTC."""

    name: str
    size_bytes: int
    modified_at: datetime


class Store(Protocol):
    """Objects under names; each call is one try, retried and settled only by ``settled.SettledStore``.

    Names are relative, ``/``-separated, of the characters ``[a-z0-9._/-]``, never with ``.`` or ``..`` as a part.
    Every method may raise ``Denied``, ``Unavailable``, ``OutOfSpace`` or ``IntegrityBroken`` beside what it names.
    All methods may be called from several threads at once.
    """

    @property
    def url(self) -> str:
        """The address for messages; carries no secret."""
        ...

    def create(self, name: str, data: Data) -> None:
        """Put the whole object durably, only if the name is free.

        Raises ``AlreadyExists`` where the store says the name is taken (which may be our own earlier try) and
        ``OutcomeUnknown`` where nothing tells whether it was done. Never leaves a partial object under the name.
        """
        ...

    def put(self, name: str, data: Data | Path) -> None:
        """Put or replace an object below ``volatile/`` (a path is a local file, sent without loading it whole)."""
        ...

    def get(self, name: str, start: int = 0, end: int | None = None) -> Data:
        """Read bytes ``[start, end)`` of an object; ``end`` None means to its end.

        Raises ``NotFound``. An answer shorter than asked for is ``Unavailable`` unless the object itself is that
        short: then what there is comes back.
        """
        ...

    def head(self, name: str) -> ObjectInfo:
        """Facts of one object. Raises ``NotFound``."""
        ...

    def list(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """Every object whose name starts with ``prefix`` and sorts after ``after``, in name order.

        ``prefix`` is empty or ends with ``/``. A listing that cannot be completed raises; it is never silently short.
        """
        ...

    def delete(self, name: str) -> None:
        """Remove an object; one that is absent already is fine."""
        ...

    def local_path(self, name: str) -> Path | None:
        """The object's file where objects are local files that may be read in place, else None."""
        ...

    def close(self) -> None:
        """Give up connections. May be repeated."""
        ...
