"""The reference page of the commands, written from the command line itself.

``python -m holdfast.interfaces.cli.reference >docs/reference/commands.md`` writes it anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from holdfast.interfaces.cli.main import PROGRAM, new_app

_COMMON = {"config", "as_json", "quiet", "verbose", "help"}
_HEAD = """\
# Commands

This page is generated from the command line. `holdfast --help` and `holdfast COMMAND --help` say the same.
"""
_ENDS = """\
## Exit codes

| code | means |
|---|---|
| 0 | done |
| 1 | failed; `doctor`: something is broken |
| 2 | usage or configuration: unknown source, backup, command or option, a target that is not empty, a missing passphrase variable |
| 3 | partly done: some sources failed while others did not, a backup is damaged at its source, a copy was not brought along |
| 10 | there is no repository |
| 11 | another run holds the lease |
| 12 | the key is missing or wrong |
| 13 | integrity is broken; `check`: something was found |
| 130 | interrupted |
| 141 | whoever read the output went away (`holdfast cat ... \\| head`) |

`backup` of several sources ends with 3 where some failed, and with the code of the first error where all did.

## Errors

An error is two lines on standard error, `error: ...` and `hint: ...`: what is wrong, and what to do. With `--json` it is
one line with one object:

```json
{"error": {"kind": "key_invalid", "message": "...", "hint": "...", "exit_code": 12}}
```

`kind` is one of `usage`, `config_invalid`, `not_found`, `repository_absent`, `already_exists`, `denied`, `key_invalid`,
`unavailable`, `outcome_unknown`, `out_of_space`, `conflict`, `lease_held`, `integrity_broken`, `source_failed`,
`interrupted`, `partly_done` and `failed`.

SIGINT (Ctrl-C) or SIGTERM asks a command to stop: it leaves nothing half done and ends with 130. A second one ends it at
once; what was stored so far is found again by the next run.

## Ids

Ids of backups, runs and key slots may be shortened to what is unambiguous. For backups and runs `latest` is the newest;
where several sources have backups, name the source with it.

## JSON

Times are ISO 8601 in UTC, sizes are bytes. Keys are added, never renamed; read past those you do not know.

`backup`, `restore`, `check` and `demo` print JSON Lines; everything else prints one document. Every line has an `event`:

| event | printed by | keys |
|---|---|---|
| `progress` | all of them, about once a second | `verb`, `source`, `done_bytes`, `expected_bytes`, `stored_bytes`, `percent`, `bytes_per_second`, `seconds_left` (null while unknown) |
| `notice` | all of them | `message`: a retry, or something worth knowing |
| `backup` | `backup`, last, one for each source | the keys of `backups`, and `notices`, `damage` [`path`, `count`, `detail`], `duration_seconds`, `error` (null, or an error; then `id` is null) |
| `plan` | `restore`, first, one for each source | `source`, `backup` (as in `backups`), `repository`, `target`, `delta`, `tablespaces` [`from`, `to`] |
| `restore` | `restore`, last, one for each source | `source`, `id`, `target`, `tablespaces`, `files`, `size_bytes`, `written_bytes`, `kept_bytes`, `removed`, `duration_seconds`, `start`, `notes`, `error` |
| `check` | `check`, last | `sound`, `read_percent`, `touched` (full ids of the backups that damage touches), `areas` [`title`, `backups`, `packs`, `stored_bytes`, `read_bytes`, `index_rebuilt`, `findings` [`subject`, `message`, `backups`]] |
| `step`, `line`, `table` | `demo` | what it tells |
| `demo` | `demo`, last | `measured`, `proofs`, `transactions`, `retries`, `duration_seconds`, `folder` |

| command | prints |
|---|---|
| `backups` | a list, newest last: `id`, `source`, `kind`, `tier`, `form`, `started_at`, `ended_at`, `size_bytes`, `stored_bytes`, `verified`, `held`, `expires_at` (null: never), `position`, `damaged`, `parent` |
| `ls` | `backup`, `entries` [`path`, `type`, `mode`, `size_bytes`, `modified_at` (seconds since 1970), `link`] |
| `runs` | a list, oldest first: `id`, `source`, `verb`, `tier`, `form`, `started_at`, `ended_at`, `outcome` (done, partly, failed, interrupted), `exit_code`, `figures`, `messages`, `error`; with an id that run alone |
| `doctor` | `broken` (a count), `subjects` [`subject`, `findings` [`topic`, `severity` (ok, notice, warning, broken), `message`, `hint`]] |
| `init` | `config`, `config_written`, `repositories` [`name`, `url`, `id`, `made`], `key_file`, `notices`, `kit` |
| `key list` | a list: `id`, `kind`, `scope`, `created_at`, `opens`, `label`, `epochs` |
| `key add`, `remove`, `rotate`, `export` | `slots`, `epoch`, `left_behind`, `failures` [`repository`, `error`], `kit` |
| `config check` | `path`, `application`, `repositories`, `sources`, `warnings` |
| `config schema` | a JSON Schema |
"""
_BRACKET = re.compile(r"\[([^\[\]]*)\]$")


def commands_page() -> str:
    """Return the page in Markdown."""
    program = typer.main.get_command(new_app())
    lines = [_HEAD, "## Options of every command", "", *_options(_first(program), common=True)]
    lines += ["", "They stand after the command's name.", ""]
    for path, one in _walk(program, PROGRAM):
        lines += [*_section(path, one), ""]
    return "\n".join([*lines, _ENDS]).rstrip() + "\n"


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
