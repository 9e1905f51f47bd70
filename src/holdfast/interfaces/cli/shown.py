"""Sizes, times and durations as people read them."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size_text(size_bytes: float) -> str:
    """Return ``1.5 GiB``."""
    size = float(size_bytes)
    unit = 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size /= 1024
        unit += 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 or size >= 99.95 else f"{size:.1f} {_UNITS[unit]}"


def seconds_text(seconds: float) -> str:
    """Return ``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 h 05 min``, ``3 d 4 h``."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def time_text(moment: datetime, zone: tzinfo | None) -> str:
    """Return a time to the second in the configured zone, or in this machine's, with its offset."""
    return moment.astimezone(zone).isoformat(sep=" ", timespec="seconds")


def age_text(moment: datetime, now: datetime) -> str:
    """Return ``3 h 10 min ago``."""
    return f"{seconds_text(max(timedelta(0), now - moment).total_seconds())} ago"
