"""Lengths of time, sizes and rates as people write them: ``1h30m``, ``64MiB``, ``10MiB/s``."""

from __future__ import annotations

import re
from datetime import timedelta

from holdfast.model.errors import ConfigInvalid

DURATION_MAX = timedelta(days=36_500)
"""Longer than any retention; keeps every sum with a time of today inside what a datetime can hold."""

SIZE_BYTES_MAX = 2**60
SHOWN_CHARACTERS_MAX = 60

DURATION_HINT = "Write whole numbers with a unit, largest first: 30d, 15m, 1h30m, 5s, 2w, 500ms."
SIZE_HINT = "Write a whole number with a unit: 512B, 64KiB, 32MiB, 1GB."
RATE_HINT = "Write a size per second: 64KiB/s, 50MiB/s, 100MB/s."

_DURATION = re.compile(
    r"(?:(?P<weeks>\d{1,9})w)?(?:(?P<days>\d{1,9})d)?(?:(?P<hours>\d{1,9})h)?"
    r"(?:(?P<minutes>\d{1,9})m)?(?:(?P<seconds>\d{1,9})s)?(?:(?P<milliseconds>\d{1,9})ms)?",
    re.ASCII,
)
_SIZE = re.compile(r"(\d{1,19}) ?([KMGT]i?)?B", re.ASCII)
_PREFIXES = "KMGT"
_FACTORS: dict[str | None, int] = {
    None: 1,
    **{prefix: 1000**power for power, prefix in enumerate(_PREFIXES, 1)},
    **{f"{prefix}i": 1024**power for power, prefix in enumerate(_PREFIXES, 1)},
}
_DURATION_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))


def shown(text: str) -> str:
    """Return what was read, quoted and cut short, for a message."""
    cut = text if len(text) <= SHOWN_CHARACTERS_MAX else text[: SHOWN_CHARACTERS_MAX - 3] + "..."
    return f'"{cut}"'


def parse_duration(text: str) -> timedelta:
    """Read ``30d``, ``1h30m``, ``500ms``; zero is a duration. Raises ``ConfigInvalid``."""
    found = _DURATION.fullmatch(text)
    if not text or found is None:
        raise ConfigInvalid(f"{shown(text)} is not a duration", hint=DURATION_HINT)
    parts = {unit: int(number) for unit, number in found.groupdict().items() if number}
    try:
        duration = timedelta(**parts)
    except OverflowError:
        duration = DURATION_MAX + timedelta(days=1)
    if duration > DURATION_MAX:
        raise ConfigInvalid(f"{shown(text)} is longer than any duration here", hint=f"At most {DURATION_MAX.days}d.")
    return duration


def format_duration(duration: timedelta) -> str:
    """Return the form that ``parse_duration`` reads, to the millisecond. Raises ValueError for a negative one."""
    rest = duration // timedelta(milliseconds=1)
    if rest < 0:
        raise ValueError("a duration is never negative")
    parts = []
    for unit, factor in _DURATION_UNITS:
        number, rest = divmod(rest, factor)
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or "0s"


def parse_size(text: str) -> int:
    """Read ``64KiB`` or ``1GB`` as bytes; the unit is never left out. Raises ``ConfigInvalid``."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ConfigInvalid(f"{shown(text)} is not a size", hint=SIZE_HINT)
    size_bytes = int(found[1]) * _FACTORS[found[2]]
    if size_bytes > SIZE_BYTES_MAX:
        raise ConfigInvalid(f"{shown(text)} is larger than any size here", hint="1048576TiB is the most.")
    return size_bytes


def parse_rate(text: str) -> int:
    """Read ``50MiB/s`` as bytes per second. Raises ``ConfigInvalid``."""
    if not text.endswith("/s"):
        raise ConfigInvalid(f"{shown(text)} is not a rate", hint=RATE_HINT)
    try:
        return parse_size(text.removesuffix("/s"))
    except ConfigInvalid as error:
        raise ConfigInvalid(f"{shown(text)} is not a rate", hint=RATE_HINT) from error
