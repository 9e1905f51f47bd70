"""The reference page of the configuration file, written from its schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from holdfast.config.schema import config_schema
from holdfast.model.durations import format_duration
from holdfast.model.policy import DEFAULT_POLICY
from holdfast.model.schedules import Schedule

_HEAD = """\
# The configuration file

One YAML file for one application. It is looked for at `--config`, then `$HOLDFAST_CONFIG`, `./holdfast.yaml` and
`/etc/holdfast/holdfast.yaml`. `holdfast config check` reads it without connecting to anything and lists every problem
with its line; `holdfast config schema` prints a JSON Schema for editors. This page is generated from that schema.

## Forms of values

| form | examples |
|---|---|
| duration | `30d`, `15m`, `1h30m`, `5s`, `2w`, `500ms`: whole numbers with units, largest first |
| rate | `64KiB/s`, `50MiB/s`, `100MB/s` |
| size | `500MiB`, `20GiB` |
| schedule | `hourly`, `daily`, `weekly`, `monthly`, `never`, or five cron fields: `"30 2 * * *"` |
| name | a-z, 0-9, `-` and `_`, beginning with a letter or digit, at most 48 |
| secret | `{env: NAME}`, `{file: PATH}`, `{command: [PROGRAM, ARGUMENT]}`; `{clear: TEXT}` if you insist |

Secrets are fetched when they are needed, and only then. One line end at the end of a file or of a command's output is
not part of the secret. A command gets no input, must end within 30 seconds, and its output is never shown. Passwords
inside a `dsn` or `url` are refused. Relative paths begin at the folder of the configuration file.

A key without a value is an error, and so are unknown keys and keys written twice.
"""


def reference_page() -> str:
    """Return the page in Markdown."""
    schema = config_schema()
    definitions = schema["$defs"]
    lines = [_HEAD, "## Top of the file\n", *_table(schema)]
    for name, title in _sections(schema, definitions):
        section = definitions[name]
        lines += [f"\n## `{title}`\n", f"{section['description']}\n", *_table(section)]
    lines += ["\n## The default policy\n", "```yaml", *default_policy_lines(), "```"]
    return "\n".join(lines) + "\n"


def default_policy_lines() -> list[str]:
    """Return the default policy as it would be written in the file."""
    lines = ["policy:"]
    for name in DEFAULT_POLICY.__dataclass_fields__:
        value = getattr(DEFAULT_POLICY, name)
        if isinstance(value, int):
            lines.append(f"  {name}: {value}")
            continue
        pairs = [f"{key}: {_written(getattr(value, key))}" for key in value.__dataclass_fields__]
        lines.append(f"  {name}: {{{', '.join(pairs)}}}")
    return lines


def _written(value: object) -> str:
    if isinstance(value, Schedule):
        return value.text
    return format_duration(value) if isinstance(value, timedelta) else json.dumps(value)


def _sections(schema: dict[str, Any], definitions: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Walk the schema from the top, naming each section once by its path."""
    seen: set[str] = set()
    waiting = [("", schema)]
    while waiting:
        path, node = waiting.pop(0)
        for key, value in node.get("properties", {}).items():
            for name, below in _referred(value, f"{path}{key}"):
                if name not in seen:
                    seen.add(name)
                    yield name, below
                    waiting.append((f"{below}.", definitions[name]))


def _referred(value: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    below = value.get("additionalProperties")
    if isinstance(below, dict):
        value, path = below, f"{path}.NAME"
    if "$ref" in value:
        yield value["$ref"].rpartition("/")[2], path
    for kind, reference in value.get("discriminator", {}).get("mapping", {}).items():
        yield reference.rpartition("/")[2], f"{path} (kind: {kind})"


def _table(section: dict[str, Any]) -> list[str]:
    required = section.get("required", [])
    lines = ["| key | form | default | meaning |", "|---|---|---|---|"]
    for key, value in section["properties"].items():
        default = "required" if key in required else _default(value.get("default"))
        lines.append(f"| `{key}` | {_form(value)} | {default} | {value.get('description', '')} |")
    return lines


def _default(value: object) -> str:
    return "" if value in (None, {}, [], "") else f"`{json.dumps(value)}`"


def _form(value: dict[str, Any]) -> str:
    if "$comment" in value:
        return str(value["$comment"])
    if "const" in value or "enum" in value:
        return ", ".join(f"`{word}`" for word in value.get("enum", [value.get("const")]))
    if value.get("type") == "array":
        return f"list of {_form(value['items'])}"
    if value.get("type") == "integer":
        return f"{value['minimum']} to {value['maximum']}"
    plain = {"object": "names with keys", "boolean": "`true`, `false`", "string": "text"}
    return plain.get(value.get("type", ""), "keys")
