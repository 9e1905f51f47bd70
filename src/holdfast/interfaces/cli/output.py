"""What goes to the two outputs: text for people, JSON for programs, tables."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence

from holdfast.model.documents import JsonValue

WIDTH_WITHOUT_TERMINAL = 10_000
"""Columns where nobody looks: a table that goes into a file or a pipe is never folded or cut."""

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


def prepare_outputs() -> None:
    """Let names that are not UTF-8 go out as the bytes they are, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="surrogateescape" if stream.encoding.lower() == "utf-8" else "backslashreplace")


def clean(text: str) -> str:
    """Return a text from elsewhere with nothing in it that a terminal would obey."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def say(text: str = "") -> None:
    """Print a line of the result."""
    print(text)


def tell(text: str) -> None:
    """Print a line beside the result: errors, notices, progress."""
    print(text, file=sys.stderr, flush=True)


def say_json(document: JsonValue) -> None:
    """Print a whole result as JSON."""
    print(json.dumps(document, indent=2))


def say_event(document: JsonValue) -> None:
    """Print one line of JSON Lines, at once."""
    print(json.dumps(document), flush=True)


def tell_json(document: JsonValue) -> None:
    """Print a line of JSON beside the result."""
    tell(json.dumps(document))


def say_table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = (), styles: Sequence[str] = ()
) -> None:
    """Print rows below titles; columns in ``right`` hold numbers; ``styles`` colours each row on a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(Text(title), justify="right" if title in right else "left", overflow="fold")
    for number, row in enumerate(rows):
        table.add_row(*(Text(clean(cell)) for cell in row), style=styles[number] if styles else None)
    if console.is_terminal:
        console.print(table)
        return
    console = Console(highlight=False, width=WIDTH_WITHOUT_TERMINAL)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        say(line.rstrip())
