"""The reference page of the commands, written from the command line itself.

``python -m holdfast.interfaces.cli.reference >docs/reference/commands.md`` writes it anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from holdfast.interfaces.cli.main import PROGRAM, new_app
from holdfast.interfaces.cli.reference_text import ENDS, HEAD

_COMMON = {"config", "as_json", "quiet", "verbose", "help"}
_BRACKET = re.compile(r"\[([^\[\]]*)\]$")


def commands_page() -> str:
    """Return the page in Markdown."""
    program = typer.main.get_command(new_app())
    lines = [HEAD, "## Options of every command", "", *_options(_first(program), common=True)]
    lines += ["", "They stand after the command's name.", ""]
    for path, one in _walk(program, PROGRAM):
        lines += [*_section(path, one), ""]
    return "\n".join([*lines, ENDS]).rstrip() + "\n"


def _first(program: Any) -> Any:
    return next(one for _, one in _walk(program, PROGRAM))


def _walk(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from _walk(one, f"{path} {name}")
        else:
            yield f"{path} {name}", one


def _section(path: str, one: Any) -> list[str]:
    arguments = [parameter for parameter in one.params if parameter.param_type_name == "argument"]
    usage = " ".join([path, *(_usage(argument) for argument in arguments), "[OPTIONS]"])
    lines = [f"## `{usage}`", "", *(one.help or "").strip().splitlines()]
    options = _options(one, common=False)
    return [*lines, "", *options] if options else lines


def _usage(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    text = name if argument.required else f"[{name}]"
    return f"{text}..." if argument.nargs != 1 else text


def _options(one: Any, *, common: bool) -> list[str]:
    rows = []
    for parameter in one.params:
        if (parameter.name in _COMMON) is not common or parameter.name == "help":
            continue
        text = (parameter.help or "").strip()
        found = _BRACKET.search(text)
        default = found[1] if found else ""
        text = _BRACKET.sub("", text).strip()
        if not default and not parameter.required and _tells(parameter.default):
            default = getattr(parameter.default, "value", str(parameter.default))
        rows.append(f"| `{_spelled(parameter)}` | {_cell(text)} | {_cell(default)} |")
    return ["| | does | default |", "|---|---|---|", *rows] if rows else []


def _tells(default: object) -> bool:
    return default not in (None, False, (), []) and not callable(default)


def _spelled(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    name = max(parameter.opts, key=len)
    if parameter.is_flag:
        return str(name)
    choices = getattr(parameter.type_descriptor.annotation, "__members__", None)
    value = "\\|".join(member.value for member in choices.values()) if choices else parameter.metavar
    spelled = f"{name} {value}"
    return f"{name}[=PERCENT]" if value == "[PERCENT]" else spelled


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(commands_page(), end="")
