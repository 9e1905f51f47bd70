"""An answer shorter or longer than the object: asked for again first, and only then called broken."""

from __future__ import annotations

from holdfast.model.errors import Unavailable


class WrongLength(Unavailable):
    """A read brought another number of bytes than the store itself had announced.

    Retried as any ``Unavailable``; once its tries are used up ``SettledStore`` turns it into ``IntegrityBroken``.
    """


def check_length(name: str, expected_bytes: int, received_bytes: int) -> None:
    """Raise WrongLength unless all the bytes announced have come."""
    if received_bytes != expected_bytes:
        raise WrongLength(
            f"{name}: {received_bytes} bytes came where {expected_bytes} were announced",
            hint="The answer was cut off, or the object is damaged; `holdfast check --read-data` tells which.",
        )
