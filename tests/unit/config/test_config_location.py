"""Where the configuration is looked for, in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.config.location import SYSTEM_PATH, config_to_write, find_config
from holdfast.model.errors import ConfigInvalid


def test_a_file_that_is_named_wins_over_the_variable_and_that_over_the_folder(tmp_path: Path) -> None:
    named, variable, local = tmp_path / "named.yaml", tmp_path / "variable.yaml", tmp_path / "holdfast.yaml"
    for path in (named, variable, local):
        path.touch()
    environment = {"HOLDFAST_CONFIG": str(variable)}
    assert find_config(named, environment, tmp_path) == named
    assert find_config(None, environment, tmp_path) == variable
    assert find_config(None, {"HOLDFAST_CONFIG": ""}, tmp_path) == local


def test_a_file_that_is_named_and_absent_is_never_replaced_by_another(tmp_path: Path) -> None:
    (tmp_path / "holdfast.yaml").touch()
    with pytest.raises(ConfigInvalid, match="does not exist") as refused:
        find_config(tmp_path / "absent.yaml", {}, tmp_path)
    assert "--config" in refused.value.hint
    with pytest.raises(ConfigInvalid, match="does not exist") as refused:
        find_config(None, {"HOLDFAST_CONFIG": str(tmp_path / "absent.yaml")}, tmp_path)
    assert "$HOLDFAST_CONFIG" in refused.value.hint


def test_where_there_is_none_both_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        find_config(None, {}, tmp_path)
    assert str(tmp_path / "holdfast.yaml") in refused.value.message
    assert str(SYSTEM_PATH) in refused.value.message
    assert "holdfast init" in refused.value.hint
    assert refused.value.exit_code == 2


def test_a_new_file_is_written_where_it_is_named_or_into_the_folder(tmp_path: Path) -> None:
    assert config_to_write(Path("a.yaml"), {"HOLDFAST_CONFIG": "b.yaml"}, tmp_path) == Path("a.yaml")
    assert config_to_write(None, {"HOLDFAST_CONFIG": "b.yaml"}, tmp_path) == Path("b.yaml")
    assert config_to_write(None, {}, tmp_path) == tmp_path / "holdfast.yaml"
