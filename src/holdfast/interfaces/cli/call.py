"""What every command is given: the options all of them take, added to their parameters in one place."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.interfaces.cli.failures import ended
from holdfast.interfaces.cli.groups import PlainCommand
from holdfast.interfaces.cli.stopping import StopRequest

if TYPE_CHECKING:
    from holdfast.config.settings import Config

Body = Callable[..., int | None]


class Section(StrEnum):
    """Under which title a command stands in the help."""

    SET_UP = "Set up"
    PROTECT = "Protect"
    LOOK = "Look"
    BRING_BACK = "Bring back"
    LOOK_AFTER = "Look after"


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a command: what the common options say, the environment, and whether to stop."""

    config_path: Path | None
    json: bool
    quiet: bool
    verbose: bool
    environment: Mapping[str, str] = field(repr=False)
    stop: StopRequest = field(repr=False)

    @property
    def may_ask(self) -> bool:
        """Whether somebody is there to answer questions."""
        return not self.json and sys.stdin.isatty() and sys.stderr.isatty()

    def config(self) -> Config:
        """Load the configuration; raises ``ConfigInvalid``."""
        from holdfast.config.loading import load_config

        return load_config(self.config_path, self.environment)


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="PATH",
        help="The configuration. [$HOLDFAST_CONFIG, ./holdfast.yaml, /etc/holdfast/holdfast.yaml]",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON: the result, errors, progress.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print only what was asked for, and errors.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", help="Print more, and where an error comes from.")]

_COMMON: tuple[tuple[str, Any, Any], ...] = (
    ("config", ConfigOption, None),
    ("as_json", JsonOption, False),
    ("quiet", QuietOption, False),
    ("verbose", VerboseOption, False),
)


def command(app: typer.Typer, name: str, section: Section | None = None) -> Callable[[Body], Body]:
    """Make a function a command. Its first parameter is the ``Call``; the common options are added to the others.

    The function's docstring is the help. It returns the exit code (None is 0); what it raises is told as an error.
    """

    def register(body: Body) -> Body:
        def run(config: Path | None, as_json: bool, quiet: bool, verbose: bool, **values: Any) -> int:
            stop = StopRequest()
            stop.listen()
            call = Call(config, as_json, quiet, verbose, os.environ, stop)
            return ended(lambda: body(call, **values), as_json=as_json, verbose=verbose)

        parameters = list(inspect.signature(body, eval_str=True).parameters.values())[1:]
        parameters += [
            inspect.Parameter(word, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for word, annotation, default in _COMMON
        ]
        # What Typer reads: the signature for the parameters, the annotations for their types.
        run.__signature__ = inspect.Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__name__, run.__doc__ = body.__name__, body.__doc__
        app.command(name, cls=PlainCommand, rich_help_panel=section)(run)
        return body

    return register
