"""The JSON Schema of the configuration file, for editors and for checks outside holdfast."""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise
from typing import Any

from holdfast.config import file_models
from holdfast.config.file_models import FileSection

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def config_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12). It says less than ``load_config``: combinations are not in it."""
    schema: dict[str, Any] = _plain(FileSection.model_json_schema())
    descriptions = _descriptions()
    for name, section in [(FileSection.__name__, schema), *schema["$defs"].items()]:
        for key, value in section["properties"].items():
            value["description"] = descriptions[name][key]
    return {"$schema": DIALECT, **schema, "title": "holdfast.yaml"}


def _descriptions() -> dict[str, dict[str, str]]:
    """Return what stands below each key in ``file_models``, by section.

    Read here and not by pydantic, which would parse the module for each section at every start of a command.
    """
    sections: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(file_models)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
        found = {key: text for base in bases for key, text in sections.get(base, {}).items()}
        for first, second in pairwise(node.body):
            if isinstance(first, ast.AnnAssign) and isinstance(first.target, ast.Name) and isinstance(second, ast.Expr):
                found[first.target.id] = inspect.cleandoc(str(ast.literal_eval(second.value)))
        sections[node.name] = found
    return sections


def _plain(node: Any) -> Any:
    """Return a part of the schema as the file means it: a key is written with a value, or not at all."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {key: _plain(value) for key, value in node.items() if not (key == "default" and value is None)}
    choices = [choice for choice in plain.get("anyOf", []) if choice != {"type": "null"}]
    if len(choices) == 1:
        del plain["anyOf"]
        plain = choices[0] | plain
    if "patternProperties" in plain and "properties" not in plain:
        # A name that does not fit its pattern would go unchecked: say it as a rule for names instead.
        ((pattern, below),) = plain.pop("patternProperties").items()
        plain |= {"propertyNames": {"pattern": pattern}, "additionalProperties": below}
    if "properties" in plain and isinstance(plain["properties"], dict):
        for value in plain["properties"].values():
            if isinstance(value, dict):
                value.pop("title", None)
    return plain
