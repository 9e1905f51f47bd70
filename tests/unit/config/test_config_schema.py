"""The published schema accepts what loads, refuses what does not, and the reference page is made from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from config_examples import SMALL, WHOLE, load, small_with
from jsonschema import Draft202012Validator

from holdfast.config.reference import default_policy_lines, reference_page
from holdfast.config.schema import DIALECT, config_schema
from holdfast.model.errors import ConfigInvalid
from holdfast.model.policy import DEFAULT_POLICY

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "configuration.md"


def _errors(text: str) -> list[str]:
    return [error.message for error in Draft202012Validator(config_schema()).iter_errors(yaml.safe_load(text))]


def _properties(node: Any) -> list[tuple[str, dict[str, Any]]]:
    sections = [node, *node["$defs"].values()]
    return [pair for section in sections for pair in section.get("properties", {}).items()]


def test_the_schema_is_valid_in_its_dialect() -> None:
    schema = config_schema()
    assert schema["$schema"] == DIALECT
    Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("text", [WHOLE, SMALL])
def test_configurations_that_load_pass_the_schema(text: str) -> None:
    load(text)
    assert _errors(text) == []


@pytest.mark.parametrize(
    "more",
    [
        "polcy: {}",
        "policy: {full: {keep: 30 days}}",
        "policy: {full: {keep: }}",
        "policy: {copies: 0}",
        "sources: {Orders: {kind: postgres}}",
        "sources: {orders: {kind: postgre}}",
        "sources: {orders: {kind: postgres, password: hunter2}}",
        "sources: {orders: {kind: postgres, password: {env: A, file: b}}}",
        "sources: {orders: {kind: postgres, max_rate: 10MiB}}",
        "sources: {cache: {kind: redis}}",
        "sources: {cache: }",
        "timezone: 5",
    ],
)
def test_what_the_schema_refuses_does_not_load_either(more: str) -> None:
    assert _errors(small_with(more))
    with pytest.raises(ConfigInvalid):
        load(small_with(more))


def test_every_key_is_described() -> None:
    for key, value in _properties(config_schema()):
        assert value.get("description"), key


def test_the_reference_page_is_the_one_made_from_the_schema() -> None:
    assert PAGE.read_text() == reference_page(), "write it again: holdfast.config.reference.reference_page()"


def test_every_key_is_on_the_reference_page() -> None:
    page = reference_page()
    for key, _ in _properties(config_schema()):
        assert f"| `{key}` |" in page


def test_the_policy_shown_is_the_default_policy() -> None:
    assert load(small_with("\n".join(default_policy_lines()))).policy == DEFAULT_POLICY
