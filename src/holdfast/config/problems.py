"""What is wrong with a configuration: one line for each problem, all of them at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.model.durations import shown
from holdfast.model.errors import ConfigInvalid

PROBLEMS_SHOWN_MAX = 50

Location = tuple[str | int, ...]
"""Keys and list positions from the top of the file to one value."""

_SECRET_KEYS = frozenset(
    {"password", "passphrase", "access_key", "secret_key", "env", "file", "command", "clear", "notify", "dsn"}
)
_URL_CREDENTIALS = re.compile(r"(://)[^/?#\s]*@")
_SECRET_PARAMETER = re.compile(r"(?i)\b([a-z_]*(?:password|passwd|secret|token|key)[a-z_]*\s*[=:]\s*)(\S+)")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to correct: where it is, and a sentence that says what was read and what would be right."""

    location: Location
    line: int
    sentence: str


def key_of(location: Location) -> str:
    """Return ``sources.orders.capture[0]`` for a location."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def refusal(path: Path, problems: Iterable[Problem]) -> ConfigInvalid:
    """Return the one error that lists every problem, in the order of the file."""
    ordered = sorted(set(problems), key=lambda problem: (problem.line, key_of(problem.location)))
    lines = [
        f"{path}:{problem.line}: " + (f"{key_of(problem.location)}: " if problem.location else "") + problem.sentence
        for problem in ordered[:PROBLEMS_SHOWN_MAX]
    ]
    if len(ordered) > PROBLEMS_SHOWN_MAX:
        lines.append(f"and {len(ordered) - PROBLEMS_SHOWN_MAX} more")
    message = lines[0] if len(lines) == 1 else "\n  ".join([f"{len(ordered)} problems in the configuration:", *lines])
    return ConfigInvalid(message, hint="Correct the file, then look again with `holdfast config check`.")


def sentence_of(error: ConfigInvalid) -> str:
    """Return an error's message and hint as one line."""
    return f"{error.message}. {error.hint}" if error.hint else error.message


def safe_to_show(location: Location, text: str) -> str:
    """Return what was read, quoted, with nothing in it that may be a secret."""
    if any(part in _SECRET_KEYS for part in location):
        return "something that is not shown here"
    return shown(_SECRET_PARAMETER.sub(r"\1***", _URL_CREDENTIALS.sub(r"\1***@", text)))


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return ``did you mean "x"?``, or the list of what is known where nothing is near."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{near[0]}"?'
    return f"known here: {', '.join(known)}" if known else "nothing goes here"
