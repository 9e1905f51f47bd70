"""The rule of names."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from holdfast.storage.names import NAME_LENGTH_MAX, is_name

ALPHABET = "abcz019._-/"


@given(st.text(alphabet=ALPHABET + "A \\\n\x00ü", max_size=40))
def test_a_name_never_leads_out_of_its_folder_and_has_one_spelling(name: str) -> None:
    if is_name(name):
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-/")
        path = Path("/root") / name
        assert str(path) == f"/root/{name}"
        assert ".." not in path.parts


def test_usual_names_are_names() -> None:
    for name in ("identity", "areas/0f/history/000000000001", "volatile/leases/physical", ".hidden", "a..b", "a" * 200):
        assert is_name(name)
    assert not is_name("/".join(["a" * 100] * 6)[: NAME_LENGTH_MAX + 1])
