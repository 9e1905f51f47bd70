"""Figures as the demo shows them, and its closing table."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.demo.order import Measured

COLUMNS = ("step", "time", "bytes", "rate", "stored", "ratio")
NONE = "-"


def megabytes(size_bytes: int) -> str:
    """Return ``612 MB``, with a decimal below ten."""
    size = size_bytes / 1e6
    return f"{size:,.0f} MB" if size >= 10 else f"{size:.1f} MB"


def ratio(size_bytes: int, stored_bytes: int) -> str:
    """Return how many times smaller what was stored is."""
    return f"{size_bytes / max(1, stored_bytes):.1f} : 1"


def table_rows(measured: Sequence[Measured], seconds: float) -> list[tuple[str, ...]]:
    """Return a row for each step, and one for the whole."""
    return [*(_row(row) for row in measured), ("all of it", f"{seconds:.1f} s", NONE, NONE, NONE, NONE)]


def _row(row: Measured) -> tuple[str, ...]:
    size, stored = row.size_bytes, row.stored_bytes
    return (
        row.step,
        f"{row.seconds:.1f} s",
        NONE if size is None else megabytes(size),
        NONE if size is None else f"{size / 1e6 / max(row.seconds, 0.001):,.0f} MB/s",
        NONE if stored is None else megabytes(stored),
        NONE if size is None or stored is None else ratio(size, stored),
    )
