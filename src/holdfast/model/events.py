"""What happens while a command works, as values for whoever watches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a long work is, in bytes. ``expected_bytes`` is 0 while unknown, ``stored_bytes`` what was added."""

    done_bytes: int
    expected_bytes: int
    stored_bytes: int = 0


OnProgress = Callable[[Progress], None]
