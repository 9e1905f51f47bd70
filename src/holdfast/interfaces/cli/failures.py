"""How a command ends: errors said once, as text or JSON, and the exit code that tells a script."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable

from holdfast.interfaces.cli.output import clean, tell, tell_json
from holdfast.model.documents import JsonObject
from holdfast.model.errors import HoldfastError, Interrupted

PARTLY = 3
READER_GONE = 141
"""128 and SIGPIPE, as a shell reports a program whose reader went away."""

TEXT_CHARACTERS_MAX = 300
_CREDENTIALS = re.compile(r"(://)[^/?#\s@]*@")
_SECRET = re.compile(r"(?i)\b([a-z_]*(?:password|passwd|passphrase|secret|token)[a-z_]*\s*[=:]\s*)(\S+)")


class PartlyDone(HoldfastError):
    """Some of what was asked for is done, some is not, or what was made is damaged at its source."""

    kind = "partly_done"
    exit_code = PARTLY


def error_view(error: HoldfastError) -> JsonObject:
    """Return an error as it is printed with --json."""
    return {"kind": error.kind, "message": error.message, "hint": error.hint, "exit_code": error.exit_code}


def tell_error(error: HoldfastError, *, as_json: bool, about: str = "") -> None:
    """Print an error and what to do about it; ``about`` names what it happened to."""
    if as_json:
        tell_json({"error": error_view(error)})
        return
    subject = f"{about}: " if about else ""
    tell("\n".join(clean(line) for line in f"error: {subject}{error.message}".splitlines()))
    if error.hint:
        tell(f"hint: {clean(error.hint)}")


def ended(action: Callable[[], int | None], *, as_json: bool, verbose: bool) -> int:
    """Run a command's action and return its exit code; whatever goes wrong is told here, and only here."""
    try:
        code = action() or 0
        sys.stdout.flush()
    except HoldfastError as error:
        tell_error(error, as_json=as_json)
        if verbose:
            _tell_traceback(error)
        return error.exit_code
    except KeyboardInterrupt:
        interrupted = Interrupted("stopped by the operator", hint="Run the command again when you want.")
        tell_error(interrupted, as_json=as_json)
        return interrupted.exit_code
    except BrokenPipeError:
        # Nobody reads any more: what is still buffered must not raise again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    except Exception as error:  # noqa: BLE001 the end of every command: nothing may escape as a traceback
        tell_error(_unexpected(error), as_json=as_json)
        if verbose:
            _tell_traceback(error)
        return 1
    return code


def without_secrets(text: str) -> str:
    """Return a text of unknown origin with whatever looks like a credential struck out."""
    return _SECRET.sub(r"\1***", _CREDENTIALS.sub(r"\1***@", text))


def _unexpected(error: Exception) -> HoldfastError:
    text = without_secrets(str(error)).replace("\n", " ")[:TEXT_CHARACTERS_MAX]
    return HoldfastError(
        f"unexpected {type(error).__name__}" + (f": {text}" if text else ""),
        hint="This is a fault of holdfast. Run it again with --verbose, and report what it prints.",
    )


def _tell_traceback(error: Exception) -> None:
    tell(without_secrets("".join(traceback.format_exception(error)).rstrip()))
