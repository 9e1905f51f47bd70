"""``holdfast``: the entry point. Puts the commands together and tells what was wrong with a command line."""

from __future__ import annotations

import gc
import os
import sys
from typing import Annotated

import typer
from typer.exceptions import TyperException

from holdfast.interfaces.cli.commands import (
    adopt,
    backup,
    backups,
    check,
    config,
    contents,
    demo,
    doctor,
    follow,
    init,
    keys,
    mark,
    restore,
    runs,
    wal,
    windows,
)
from holdfast.interfaces.cli.failures import tell_error
from holdfast.interfaces.cli.groups import new_group
from holdfast.interfaces.cli.output import prepare_outputs, tell
from holdfast.model.errors import ConfigInvalid
from holdfast.version import __version__

PROGRAM = "holdfast"
_PURPOSE = "Protects a whole application, brings it back to one moment, and proves that it can."
_EPILOG = "Every command: --config PATH, --json, --quiet, --verbose, --help. Tab completion: --install-completion."
COLLECT_EVERY_OBJECTS = 50_000
_FAMILIES = (
    init,
    doctor,
    config,
    demo,
    backup,
    follow,
    wal,
    mark,
    backups,
    windows,
    contents,
    runs,
    restore,
    check,
    adopt,
    keys,
)


def _print_version(value: bool) -> None:
    if value:
        print(f"{PROGRAM} {__version__}")
        raise typer.Exit


def _main(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Take what stands before a command."""


def new_app() -> typer.Typer:
    """Return the command line, complete."""
    app = new_group(_PURPOSE, epilog=_EPILOG)
    app.callback()(_main)
    for family in _FAMILIES:
        family.add_to(app)
    return app


def run() -> None:
    """Run the command line of this process and end it with the exit code."""
    # Modules make many objects that stay: looking for garbage among them costs a tenth of a short command.
    gc.set_threshold(COLLECT_EVERY_OBJECTS, 20, 20)
    # Vector arithmetic is used, matrices are not: without this a thread a core spins through the start.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    prepare_outputs()
    arguments = sys.argv[1:]
    if arguments[:1] == ["check"]:
        arguments = check.with_percent(arguments)
    program = typer.main.get_command(new_app())
    for parameter in program.params:
        if "completion" in (parameter.name or ""):
            parameter.hidden = True  # type: ignore[attr-defined]
    try:
        code = program.main(arguments, prog_name=PROGRAM, standalone_mode=False)
    except TyperException as error:
        code = _tell_usage(error, as_json="--json" in arguments)
    except typer.Abort:
        code = 130
    sys.exit(code or 0)


def _tell_usage(error: TyperException, *, as_json: bool) -> int:
    text = error.format_message()
    if text.startswith("Usage:") and not as_json:
        tell(text)  # called without a command: the help says all
        return error.exit_code
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else PROGRAM
    hint = f"See `{path} --help`."
    if path == PROGRAM:
        hint += " Options stand after the command's name."
    message = text.rstrip(".")
    usage = ConfigInvalid(message[:1].lower() + message[1:], hint=hint)
    usage.kind = "usage"
    tell_error(usage, as_json=as_json)
    return error.exit_code
