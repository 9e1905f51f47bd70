"""Where a secret is kept, as the file says it; fetched only when it is needed."""

from __future__ import annotations

import re
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from holdfast.model.errors import ConfigInvalid, Unavailable
from holdfast.model.secrets import Secret

SECRET_BYTES_MAX = 64 * 1024
SECRET_COMMAND_SECONDS_MAX = 30.0
REFERENCE_HINT = "Write {env: NAME}, {file: PATH} or {command: [PROGRAM, ARGUMENT]}; {clear: TEXT} only if you must."

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_OTHERS_MAY_READ = stat.S_IRGRP | stat.S_IROTH


@dataclass(frozen=True, slots=True)
class SecretReference:
    """Exactly one of the four is set. Holds no secret, except where the file gives one in clear."""

    env: str | None = None
    file: str | None = None
    command: tuple[str, ...] = ()
    clear: Secret | None = None

    def __str__(self) -> str:
        if self.env is not None:
            return f"${self.env}"
        if self.file is not None:
            return f"the file {self.file}"
        return f"the command {self.command[0]}" if self.command else "the configuration"


def read_reference(value: object) -> SecretReference:
    """Read one of the four forms. Raises ``ConfigInvalid``, showing nothing of what was read."""
    if not isinstance(value, dict):
        raise ConfigInvalid("a secret is not written here in clear", hint=REFERENCE_HINT)
    if len(value) != 1:
        raise ConfigInvalid("a secret comes from exactly one place", hint=REFERENCE_HINT)
    (form, content), *_ = value.items()
    if form == "command":
        if not isinstance(content, list) or not content or not all(isinstance(word, str) and word for word in content):
            raise ConfigInvalid("a command is a list: the program, then its arguments", hint=REFERENCE_HINT)
        return SecretReference(command=tuple(content))
    if form not in {"env", "file", "clear"}:
        raise ConfigInvalid(f'a secret does not come from "{form}"', hint=REFERENCE_HINT)
    if not isinstance(content, str) or not content:
        raise ConfigInvalid(f"what stands after {form}: is no text", hint=f"Put it in quotes. {REFERENCE_HINT}")
    if form == "env":
        if not _VARIABLE.fullmatch(content):
            raise ConfigInvalid("what stands after env: is not the name of a variable", hint=REFERENCE_HINT)
        return SecretReference(env=content)
    return SecretReference(file=content) if form == "file" else SecretReference(clear=Secret(content))


def fetch_secret(reference: SecretReference, purpose: str, environment: Mapping[str, str], folder: Path) -> Secret:
    """Fetch the secret now; ``purpose`` names what it is for, ``folder`` is where relative paths begin.

    One line end at the end of a file or of a command's output is not part of it. May be repeated. Raises
    ``ConfigInvalid`` where it is missing or empty, ``Unavailable`` where a command does not end in time.
    """
    if reference.clear is not None:
        return reference.clear
    if reference.env is not None:
        text = environment.get(reference.env, "")
        if not text:
            raise ConfigInvalid(
                f"{purpose} is missing: the environment variable {reference.env} is not set",
                hint=f"Set {reference.env}, or let the configuration take it from a file or a command.",
            )
        return Secret(text)
    if reference.file is not None:
        data = _file_content(secret_path(reference.file, environment, folder), purpose)
    else:
        data = _command_output(reference.command, purpose, environment, folder)
    return _secret_of(data, f"{purpose}, from {reference},")


def secret_path(text: str, environment: Mapping[str, str], folder: Path) -> Path:
    """Return the path that the file means: ``~`` is the user's home, relative ones begin at ``folder``."""
    if (text == "~" or text.startswith("~/")) and environment.get("HOME"):
        return Path(environment["HOME"] + text[1:])
    return folder / text


def is_open_to_others(path: Path) -> bool:
    """Whether users other than the owner may read the file; an absent one is not open."""
    try:
        return bool(path.stat().st_mode & _OTHERS_MAY_READ)
    except OSError:
        return False


def _file_content(path: Path, purpose: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(SECRET_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigInvalid(
            f"{purpose} is missing: {path} cannot be read: {error.strerror}",
            hint="Write the file, readable by this user alone (chmod 600), or correct its path.",
        ) from error


def _command_output(command: tuple[str, ...], purpose: str, environment: Mapping[str, str], folder: Path) -> bytes:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SECRET_COMMAND_SECONDS_MAX,
            env=dict(environment),
            cwd=folder,
            check=False,
        )
    except OSError as error:
        raise ConfigInvalid(
            f"{purpose} is missing: the command {command[0]} cannot be run: {error.strerror}",
            hint="Correct the program's name or path in the configuration.",
        ) from error
    except subprocess.TimeoutExpired:
        # Not chained: the exception carries what the command printed.
        raise Unavailable(
            f"{purpose} is missing: the command {command[0]} did not end within {SECRET_COMMAND_SECONDS_MAX:.0f} s",
            hint="Run it by hand, and see what it waits for; it gets no input.",
        ) from None
    if done.returncode != 0:
        raise ConfigInvalid(
            f"{purpose} is missing: the command {command[0]} ended with {done.returncode}",
            hint="Run it by hand to see why; its output is never shown here.",
        )
    return done.stdout


def _secret_of(data: bytes, subject: str) -> Secret:
    if len(data) > SECRET_BYTES_MAX:
        raise ConfigInvalid(f"{subject} is longer than 64 KiB", hint="Is it the right place?")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        # Not chained: the exception carries the bytes.
        raise ConfigInvalid(f"{subject} is not UTF-8 text", hint="Encode it, for example as base64.") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ConfigInvalid(f"{subject} is empty", hint="Write the secret there, on one line.")
    return Secret(text)
