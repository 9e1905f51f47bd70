"""``holdfast config``: the configuration file, looked at without connecting to anything."""

from __future__ import annotations

import typer

from holdfast.interfaces.cli.call import Call, Section, command
from holdfast.interfaces.cli.groups import new_group
from holdfast.interfaces.cli.output import clean, say, say_json


def add_to(app: typer.Typer) -> None:
    """Add the family of commands."""
    group = new_group("Check the configuration file; print its JSON Schema.")
    command(group, "check")(check)
    command(group, "schema")(schema)
    app.add_typer(group, name="config", rich_help_panel=Section.SET_UP)


def check(call: Call) -> None:
    """Read and check the configuration; connects to nothing, fetches no secret."""
    from holdfast.config.findings import objectives_findings

    config = call.config()
    warnings = objectives_findings(config)
    if call.json:
        say_json(
            {
                "path": str(config.path),
                "application": config.application,
                "repositories": [repository.name for repository in config.repositories],
                "sources": [source.name for source in config.sources],
                "warnings": [{"message": finding.message, "hint": finding.hint} for finding in warnings],
            }
        )
        return
    if call.quiet:
        return
    say(f"{config.path} is sound: application {config.application}")
    say(f"  repositories: {', '.join(repository.name for repository in config.repositories)}")
    say(f"  sources: {', '.join(f'{source.name} ({source.kind})' for source in config.sources) or 'none'}")
    for finding in warnings:
        say(clean(f"  warning: {finding.message}"))
        say(clean(f"    {finding.hint}"))


def schema(call: Call) -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    from holdfast.config.schema import config_schema

    say_json(config_schema())
