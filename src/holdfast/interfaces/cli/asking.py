"""Questions to whoever sits at the terminal. Without one, the caller says which option is missing instead."""

from __future__ import annotations

import getpass
import sys

from holdfast.model.errors import ConfigInvalid
from holdfast.model.secrets import Secret

TRIES_MAX = 3


def ask(question: str, default: str = "") -> str:
    """Ask for a line on standard error; an empty answer is the default."""
    shown = f" [{default}]" if default else ""
    sys.stderr.write(f"{question}{shown}: ")
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise ConfigInvalid("the input ended before the question was answered", hint="Give the answer as an option.")
    return line.strip() or default


def agree(question: str, *, default: bool) -> bool:
    """Ask for yes or no."""
    for _ in range(TRIES_MAX):
        answer = ask(f"{question} (yes/no)", "yes" if default else "no").lower()
        if answer in {"y", "yes", "n", "no"}:
            return answer.startswith("y")
    raise ConfigInvalid("neither yes nor no was answered", hint="Nothing was changed; run the command again.")


def ask_new_passphrase(question: str) -> Secret | None:
    """Ask twice for a passphrase, without showing it; None where it was left empty."""
    for _ in range(TRIES_MAX):
        first = getpass.getpass(f"{question}: ")
        if not first:
            return None
        if getpass.getpass("The same again: ") == first:
            return Secret(first)
        sys.stderr.write("The two differ.\n")
    raise ConfigInvalid("the two passphrases differ", hint="Nothing was changed; run the command again.")
