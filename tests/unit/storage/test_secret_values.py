"""A secret shows itself only when asked."""

from __future__ import annotations

import pickle

import pytest

from holdfast.model.secrets import Secret
from holdfast.storage.settings import StoreSettings


def test_a_secret_is_shown_by_reveal_alone() -> None:
    secret = Secret("hunter2")
    shown = f"{secret} {secret!r} {StoreSettings('s3://b', secret_key=secret)!r} {[secret]}"
    assert "hunter2" not in shown
    assert secret.reveal() == "hunter2"


def test_secrets_compare_by_content_and_hash_alike() -> None:
    assert Secret("a") == Secret(lambda: "a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({hash(Secret("a")), hash(Secret("b"))}) == 1


def test_a_secret_cannot_be_pickled() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(Secret("a"))
