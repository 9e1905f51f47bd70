"""A secret that shows itself only when asked: passwords, keys and tokens on their way to a vendor library."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import NoReturn

HIDDEN = "Secret(hidden)"


class Secret:
    """Wraps a text so that printing, logging, formatting or an exception never shows it.

    Made from the text, or from a callable that reads it again on every ``reveal`` (a file or a command whose content
    rotates). Compares in constant time, hashes without looking at the text, cannot be pickled.
    """

    __slots__ = ("_source",)

    def __init__(self, source: str | Callable[[], str]) -> None:
        self._source = source

    def reveal(self) -> str:
        """Return the text. Raises whatever the callable given raises."""
        return self._source if isinstance(self._source, str) else self._source()

    def __repr__(self) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        # Variables of the environment may hold bytes that are not UTF-8.
        mine, theirs = (secret.reveal().encode("utf-8", "surrogateescape") for secret in (self, other))
        return hmac.compare_digest(mine, theirs)

    def __hash__(self) -> int:
        return hash(Secret)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled")
