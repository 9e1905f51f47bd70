"""A secret shows itself only when it is asked."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import dataclass

import pytest

from holdfast.model.secrets import Secret


@dataclass(frozen=True)
class _Holder:
    password: Secret


def test_a_secret_shows_nothing_in_any_form_of_text() -> None:
    secret = Secret("hunter2")
    texts = [repr(secret), str(secret), f"{secret}", f"{secret!r:>30}", "%s" % secret, repr(_Holder(secret))]  # noqa: UP031
    assert not any("hunter2" in text for text in texts)


def test_a_secret_cannot_be_written_out_or_copied() -> None:
    secret = Secret("hunter2")
    for write in (pickle.dumps, copy.deepcopy, json.dumps):
        with pytest.raises(TypeError):
            write(secret)


def test_a_secret_is_equal_to_one_of_the_same_value_only() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert hash(Secret("a")) == hash(Secret("a"))


def test_a_secret_reveals_itself_when_asked() -> None:
    assert Secret("hunter2").reveal() == "hunter2"


def test_a_secret_made_from_a_reader_is_read_again_each_time() -> None:
    values = iter(["old", "new"])
    secret = Secret(lambda: next(values))
    assert [secret.reveal(), secret.reveal()] == ["old", "new"]


def test_secrets_of_bytes_that_are_not_text_compare() -> None:
    assert Secret("\udcff") == Secret("\udcff")
