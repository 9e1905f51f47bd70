"""From a parsed file to its checked sections; pydantic's errors become sentences with a line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from holdfast.config.document import Document
from holdfast.config.fields import EXPLAINED
from holdfast.config.file_models import FileSection
from holdfast.config.problems import Location, Problem, did_you_mean, refusal, safe_to_show

_KINDS = ("postgres", "redis", "search", "bucket")
_MISSING_HINTS = {
    "application": "write its name: application: shop",
    "repositories": 'write where backups go: repositories: {primary: {url: "file:///backups/holdfast"}}',
    "keys": "write what opens the repositories: keys: {passphrase: {env: HOLDFAST_PASSPHRASE}}",
    "url": "write the address",
    "kind": f"write one of {', '.join(_KINDS)}",
}
_WANTED = {
    "string_type": "text is wanted; put it in quotes",
    "int_type": "a whole number is wanted",
    "bool_type": "true or false is wanted",
    "list_type": "a list is wanted: [one, two]",
    "dict_type": "names with keys below them are wanted",
    "model_type": "keys are wanted below it",
    "model_attributes_type": "keys are wanted below it",
}
_OTHER_WORDS = {
    "url": "dsn",
    "dsn": "url",
    "type": "kind",
    "encryption": "keys",
    "retention": "policy",
    "backup": "policy",
    "database": "dsn",
    "endpoint_url": "endpoint",
}
"""What other programs call the same thing."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """One of pydantic's errors; ``full`` is its location with what pydantic adds, ``location`` the file's."""

    detail: ErrorDetails
    full: Location
    location: Location
    document: Document

    @property
    def context(self) -> Mapping[str, Any]:
        return self.detail.get("ctx", {})

    @property
    def read(self) -> str:
        return _what_was_read(self.location, self.document)


def validate_document(document: Document) -> FileSection:
    """Return the file's sections. Raises ``ConfigInvalid`` listing every problem at once."""
    try:
        # JSON is the form in which pydantic's strict mode takes lists for tuples and text for everything written.
        return FileSection.model_validate_json(json.dumps(document.content))
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    # Outside the handler: pydantic's own error quotes the input, which may hold secrets.
    raise refusal(document.path, [_problem(detail, document) for detail in details])


def _problem(detail: ErrorDetails, document: Document) -> Problem:
    full = tuple(detail["loc"])
    location = _location_in_file(full)
    seen = _Seen(detail, full, location, document)
    say = _SENTENCES.get(detail["type"], _other_sentence)
    return Problem(location, document.line_of(location), say(seen))


def _location_in_file(full: Location) -> Location:
    """Return the location without what pydantic adds: the chosen kind, and the mark of a key."""
    location = tuple(part for part in full if part != "[key]")
    if len(location) > 2 and location[0] == "sources" and location[2] in _KINDS:
        return location[:2] + location[3:]
    return location


def _missing(seen: _Seen) -> str:
    return f"is missing; {_MISSING_HINTS.get(str(seen.location[-1]), 'write it')}"


def _unknown_key(seen: _Seen) -> str:
    word, known = str(seen.location[-1]), known_keys(seen.full[:-1])
    other = _OTHER_WORDS.get(word)
    right = f'did you mean "{other}"?' if other in known else did_you_mean(word, known)
    return f"is not a key that is known here; {right}"


def _unknown_kind(seen: _Seen) -> str:
    word = seen.document.written.get((*seen.location, "kind"), "")
    return f"kind is {safe_to_show((), word)}; {did_you_mean(word, _KINDS)}"


def _not_among(seen: _Seen) -> str:
    expected = re.findall(r"'([^']*)'", str(seen.context["expected"]))
    return f"read {seen.read}; write one of {', '.join(expected)}"


def _other_sentence(seen: _Seen) -> str:
    wanted = _WANTED.get(seen.detail["type"])
    if wanted is None:
        message = seen.detail["msg"].replace("Input should be", "it must be")
        wanted = message[:1].lower() + message[1:]
    return f"read {seen.read}; {wanted}"


_SENTENCES: dict[str, Callable[[_Seen], str]] = {
    EXPLAINED: lambda seen: str(seen.context["sentence"]),
    "missing": _missing,
    "extra_forbidden": _unknown_key,
    "union_tag_not_found": lambda _: f"kind is missing; {_MISSING_HINTS['kind']}",
    "union_tag_invalid": _unknown_kind,
    "literal_error": _not_among,
    "too_short": lambda _: "is empty; write at least one",
    "string_too_short": lambda _: "is empty; write a text",
}


def _what_was_read(location: Location, document: Document) -> str:
    if location in document.written:
        return safe_to_show(location, document.written[location])
    value: Any = document.content
    for part in location:
        value = value[part]
    return "a list" if isinstance(value, list) else "keys"


def known_keys(full: Location) -> list[str]:
    """Return the keys that may stand below a place, found in the JSON Schema; a source's place names its kind."""
    schema: Mapping[str, Any] = _schema()
    definitions = schema.get("$defs", {})
    for part in full:
        schema = _below(schema, str(part), definitions)
    return list(schema.get("properties", {}))


@cache
def _schema() -> Mapping[str, Any]:
    return FileSection.model_json_schema()


def _below(schema: Mapping[str, Any], part: str, definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    tags = schema.get("discriminator", {}).get("mapping", {})
    if part in tags:
        return _resolved({"$ref": tags[part]}, definitions)
    if part in schema.get("properties", {}):
        return _resolved(schema["properties"][part], definitions)
    named = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties"), schema.get("items")]
    return _resolved(next((below for below in named if isinstance(below, dict)), {}), definitions)


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    for choice in schema.get("anyOf", []):
        if "$ref" in choice:
            schema = choice
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    found: Mapping[str, Any] = definitions[name] if name else schema
    return found
