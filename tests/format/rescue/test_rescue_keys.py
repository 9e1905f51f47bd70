"""The stand-alone reader opens with every kind of slot, and with no other secret."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from miniature_writer import KDF, Run, Writer


@pytest.fixture
def full(writer: Writer) -> Writer:
    writer.backup([writer.file("a", b"content")])
    return writer


def content(rescue: Run, **keys: str) -> bytes:
    done = rescue("shop/main", "latest", "--cat", "a", **keys)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_rescue_ends_with_12_without_a_key_or_with_a_wrong_one(full: Writer, rescue: Run) -> None:
    for passphrase in ("", "wrong"):
        assert rescue(passphrase=passphrase).returncode == 12


def test_rescue_takes_a_key_file(full: Writer, rescue: Run, tmp_path: Path) -> None:
    full.add_key_file(tmp_path / "key")
    assert content(rescue, passphrase="", HOLDFAST_KEY_FILE=str(tmp_path / "key")) == b"content"
    (tmp_path / "key").write_text("holdfast-key-1 00\n")
    assert rescue(passphrase="", HOLDFAST_KEY_FILE=str(tmp_path / "key")).returncode == 12


def test_rescue_normalises_a_passphrase(full: Writer, rescue: Run) -> None:
    full.add_slot("caf\u00e9")
    assert content(rescue, passphrase="cafe\u0301") == b"content"


def test_rescue_opens_one_area_with_the_slot_of_that_area(full: Writer, rescue: Run) -> None:
    full.add_slot("of the area", area_only=True)
    assert rescue(passphrase="of the area").stdout == b"shop/main\n"
    assert content(rescue, passphrase="of the area") == b"content"
    full.put_entry("expire", backups=[*full.numbers], reason="old")
    assert rescue("main", passphrase="of the area").stdout == b"\n"


def test_rescue_reads_over_a_rotation(full: Writer, rescue: Run) -> None:
    old, new = full.file("old", b"1"), None
    full.rotate()
    full.add_slot("after")
    full.add_slot("after, area", area_only=True)
    new = full.file("a", b"2")
    full.backup([old, new])
    for passphrase in ("after", "after, area"):
        assert content(rescue, passphrase=passphrase) == b"2"
    older = rescue("shop/main", "latest", "--cat", "a")
    assert (older.returncode, older.stdout) == (0, b"content")
    assert b"epoch 2" in older.stderr


def test_rescue_opens_with_a_slot_that_carries_the_newest_root_alone(full: Writer, rescue: Run) -> None:
    full.rotate()
    lower = full.roots.pop(1)
    full.add_slot("newest alone")
    full.roots[1] = lower
    assert content(rescue, passphrase="newest alone") == b"content"


def test_rescue_passes_over_an_epoch_that_the_one_before_did_not_sign(full: Writer, rescue: Run) -> None:
    full.rotate(signer=Ed25519PrivateKey.generate())
    full.add_slot("of the forger")
    full.put_entry("expire", backups=[*full.numbers], reason="malice")
    assert content(rescue) == content(rescue, passphrase="of the forger") == b"content"


def test_rescue_reports_an_entry_of_an_older_epoch_behind_a_newer(full: Writer, rescue: Run) -> None:
    full.rotate()
    full.backup([full.file("a", b"2")])
    full.add_slot("after")
    newest = full.roots.pop(2)
    full.backup([full.file("a", b"3")])
    full.roots[2] = newest
    assert rescue("main", passphrase="after").returncode == 13


@pytest.mark.parametrize(
    "clear",
    [
        {"repository": "00" * 16},
        {"kdf": KDF | {"salt": "00" * 16, "memory_kib": 1 << 30}},
        {"kdf": KDF | {"salt": "00" * 16, "passes": 17}},
        {"kind": "age"},
        {"commit": "00" * 16},
        {"needs": ["magic"]},
    ],
)
def test_rescue_does_not_try_a_slot_that_it_must_not(full: Writer, rescue: Run, clear: dict) -> None:
    full.add_slot("other", **clear)
    assert rescue(passphrase="other").returncode == 12
    assert content(rescue) == b"content"


def test_rescue_does_not_fail_for_garbage_in_slots(full: Writer, rescue: Run) -> None:
    for _ in range(70):
        full.put(f"slots/{os.urandom(16).hex()}", os.urandom(300))
    assert content(rescue) == b"content"
