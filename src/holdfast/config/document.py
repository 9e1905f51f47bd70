"""A YAML file as plain values that remember the line they stand on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from holdfast.config.problems import Location, Problem, refusal
from holdfast.model.documents import JsonValue
from holdfast.model.errors import ConfigInvalid

FILE_BYTES_MAX = 1024 * 1024
NODES_MAX = 20_000
"""More values than any configuration has; stops aliases that multiply."""
DEPTH_MAX = 24

_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = frozenset({f"{_TAG}str", f"{_TAG}timestamp", f"{_TAG}value"})


@dataclass(slots=True)
class Document:
    """The content of one file. ``lines`` holds the line of each key (or list item), counted from 1."""

    path: Path
    content: JsonValue = None
    lines: dict[Location, int] = field(default_factory=dict)
    written: dict[Location, str] = field(default_factory=dict)
    """Scalars as the file spells them."""

    def line_of(self, location: Location) -> int:
        """Return the line of a location, or of the nearest thing above it that is in the file."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)

    def has(self, location: Location) -> bool:
        """Whether the file says anything there."""
        return location in self.lines


def read_document(path: Path) -> Document:
    """Read and parse the file. Raises ``ConfigInvalid`` with every problem of its form."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigInvalid(
            f"the configuration {path} cannot be read: {error.strerror}",
            hint="Correct the path or the file's permissions.",
        ) from error
    if len(data) > FILE_BYTES_MAX:
        raise ConfigInvalid(f"the configuration {path} is larger than 1 MiB", hint="Is it the right file?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigInvalid(
            f"the configuration {path} is not UTF-8 text (byte {error.start})", hint="Save it as UTF-8."
        ) from error
    return parse_document(text, path)


def parse_document(text: str, path: Path) -> Document:
    """Parse the text of a file that is, or will be, at ``path``. Raises ``ConfigInvalid``."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        parts = [part for part in (error.context, error.problem) if part]
        line = mark.line + 1 if mark else 1
        raise refusal(path, [Problem((), line, f"this is not YAML: {', '.join(parts)}")]) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise refusal(path, [Problem((), 1, "this is not YAML: it holds characters or nesting it must not")]) from error
    if node is None:
        raise refusal(path, [Problem((), 1, "the file is empty; `holdfast init` writes a commented one")])
    reader = _Reader(Document(path))
    reader.document.content = reader.value(node, ())
    if reader.problems:
        raise refusal(path, reader.problems)
    return reader.document


class _Reader:
    """Walks the nodes of one file, collecting values, lines and problems."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []
        self._nodes = 0

    def value(self, node: yaml.Node, location: Location) -> JsonValue:
        self.document.lines.setdefault(location, node.start_mark.line + 1)
        self._nodes += 1
        if self._nodes > NODES_MAX or len(location) > DEPTH_MAX:
            raise refusal(self.document.path, [Problem((), node.start_mark.line + 1, "too many or too deep values")])
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            return self._mapping(node, location)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            return [self.value(item, (*location, number)) for number, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, location)
        self._refuse(node, location, f"the tag {node.tag} means nothing here; remove it")
        return None

    def _mapping(self, node: yaml.MappingNode, location: Location) -> JsonValue:
        content: dict[str, JsonValue] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._refuse(key_node, location, "a key is a plain word")
                continue
            key = str(key_node.value)
            line, place = key_node.start_mark.line + 1, (*location, key)
            if key_node.tag == f"{_TAG}merge":
                self._refuse(key_node, location, "merge keys (<<) are not read; a partial policy merges by itself")
            elif key in content:
                self._refuse(key_node, place, f"is written twice, first on line {self.document.lines[place]}; keep one")
            else:
                self.document.lines[place] = line
                content[key] = self.value(value_node, place)
        return content

    def _scalar(self, node: yaml.ScalarNode, location: Location) -> JsonValue:
        text = str(node.value)
        self.document.written[location] = text
        if node.tag in _TEXT_TAGS:
            return text
        if node.tag == f"{_TAG}null":
            self._refuse(node, location, "has no value; write one, or remove the key")
            return None
        if node.tag == f"{_TAG}bool":
            return text.lower() in {"yes", "true", "on"}
        if node.tag in {f"{_TAG}int", f"{_TAG}float"}:
            # Only plain decimal numbers count as numbers: 15:30 and 0755 have surprising values in YAML.
            return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else text
        self._refuse(node, location, f"the tag {node.tag} means nothing here; remove it")
        return None

    def _refuse(self, node: yaml.Node, location: Location, sentence: str) -> None:
        self.problems.append(Problem(location, node.start_mark.line + 1, sentence))
