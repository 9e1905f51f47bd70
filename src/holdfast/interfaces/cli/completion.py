"""Names for tab completion, read from the configuration without checking it; silent when anything is wrong."""

from __future__ import annotations

import os
from typing import Annotated

import typer


def complete_source(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the sources that begin so."""
    return _names(ctx, "sources", incomplete)


def complete_repository(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the repositories that begin so."""
    return _names(ctx, "repositories", incomplete)


def _names(ctx: typer.Context, section: str, incomplete: str) -> list[str]:
    from pathlib import Path

    from holdfast.config.document import read_document
    from holdfast.config.location import find_config
    from holdfast.model.errors import ConfigInvalid

    chosen = ctx.params.get("config")
    try:
        path = find_config(Path(chosen) if chosen else None, os.environ, Path.cwd())
        content = read_document(path).content
    except ConfigInvalid:
        return []  # the command itself will say what is wrong
    named = content.get(section) if isinstance(content, dict) else None
    return [name for name in named if name.startswith(incomplete)] if isinstance(named, dict) else []


Sources = Annotated[
    list[str] | None,
    typer.Argument(metavar="SOURCE", help="Names of sources; all when none is given.", autocompletion=complete_source),
]
SourceOption = Annotated[
    list[str] | None,
    typer.Option("--source", metavar="NAME", help="Only this source; may be repeated.", autocompletion=complete_source),
]
RepositoryOption = Annotated[
    str | None,
    typer.Option(
        "--repository",
        metavar="NAME",
        help="Another copy than the first repository.",
        autocompletion=complete_repository,
    ),
]
