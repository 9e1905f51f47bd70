"""Families of commands, and their help: grouped by purpose, on one screen."""

from __future__ import annotations

import re
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

_PYTHON_TYPE = re.compile(r" <(?:list\[)?str\]?>")


class PlainCommand(TyperCommand):
    """A command whose help speaks of values, not of Python's types."""

    def get_help(self, ctx: Any) -> str:
        """Return the help's text."""
        return _PYTHON_TYPE.sub("", super().get_help(ctx))


class GroupedCommands(TyperGroup):
    """A group whose help lists its commands under the titles they were given."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one list for each title, all with the same column."""
        sections: dict[str, list[tuple[str, str]]] = {}
        width = max(len(name) for name in self.commands)
        limit = formatter.width - 6 - width
        for name, command in self.commands.items():
            if not command.hidden:
                title = getattr(command, "rich_help_panel", None) or "Commands"
                sections.setdefault(title, []).append((name.ljust(width), command.get_short_help_str(limit)))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)


def new_group(help_text: str, **settings: Any) -> typer.Typer:
    """Return an empty group of commands; it prints its help when called without one."""
    return typer.Typer(
        cls=GroupedCommands,
        help=help_text,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
        **settings,
    )
