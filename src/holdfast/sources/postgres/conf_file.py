"""Reads and writes the grammar of PostgreSQL's configuration files (guc-file.l), as bytes that survive untouched."""

from __future__ import annotations

import re
from dataclasses import dataclass

INCLUDES = frozenset({"include", "include_if_exists", "include_dir"})

_LINE = re.compile(
    r"""\s*(?P<name>[A-Za-z_\u0080-\U0010ffff][\w$.\u0080-\U0010ffff]*)
        (?:\s*=\s*|\s+|(?='))
        (?P<value>'(?:[^'\\]|\\.|'')*'|[^\s\#'=]+)
        \s*(?:\#.*)?""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\([0-7]{1,3}|.)|''")
_NAMED_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True, slots=True)
class ConfLine:
    """One line: its text without the newline, and the setting it makes (None for comments and blank lines).

    A line that PostgreSQL would not understand has no name either.
    """

    text: str
    name: str | None = None
    value: str = ""


def parse_conf(content: bytes) -> tuple[ConfLine, ...]:
    """Return every line of a configuration file; names are in lower case, values unquoted."""
    text = content.decode("utf-8", "surrogateescape")
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return tuple(_parse_line(line) for line in lines)


def format_conf(lines: tuple[ConfLine, ...]) -> bytes:
    """Return the file of these lines; the inverse of ``parse_conf`` (but for a missing last newline)."""
    return "".join(f"{line.text}\n" for line in lines).encode("utf-8", "surrogateescape")


def setting_line(name: str, value: str) -> ConfLine:
    """Return the line that gives a setting any value, quotes and backslashes included.

    Raises ValueError for a value that a configuration file cannot hold.
    """
    if "\0" in value:
        raise ValueError(f"{name} cannot hold a zero byte")
    quoted = value.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n").replace("\r", "\\r")
    return ConfLine(f"{name} = '{quoted}'", name, value)


def comment_lines(text: str) -> tuple[ConfLine, ...]:
    """Return a text as lines of comment."""
    return tuple(ConfLine(f"# {line}".rstrip()) for line in text.splitlines())


def _parse_line(line: str) -> ConfLine:
    found = _LINE.fullmatch(line)
    if found is None:
        return ConfLine(line)
    value = found["value"]
    if value.startswith("'"):
        value = _ESCAPE.sub(_unescape, value[1:-1])
    return ConfLine(line, found["name"].lower(), value)


def _unescape(found: re.Match[str]) -> str:
    code = found[1]
    if code is None:
        return "'"
    if code[0] in "01234567":
        return chr(int(code, 8) & 0xFF)
    return _NAMED_ESCAPES.get(code, code)
