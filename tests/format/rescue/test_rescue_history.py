"""The stand-alone reader follows the rules of the history by itself."""

from __future__ import annotations

import os

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from miniature_writer import Run, Writer


def listed(rescue: Run, code: int = 0) -> list[str]:
    done = rescue("main")
    assert done.returncode == code, done.stderr
    return [line.split("\t")[0] for line in done.stdout.decode().splitlines()]


def three(writer: Writer) -> list[str]:
    return [writer.backup([writer.file("a", str(number).encode())]) for number in range(3)]


def test_rescue_does_not_list_what_was_expired_or_voided(writer: Writer, rescue: Run) -> None:
    first, second, third = three(writer)
    writer.put_entry("expire", backups=[first], reason="old")
    writer.put_entry("void", backup=third, reason="wrong")
    writer.put_entry("hold", backup=second, reason="kept")
    writer.put_entry("something new", backup=second)
    assert listed(rescue) == [second]


def test_rescue_passes_over_a_removal_that_nobody_signed_who_may(writer: Writer, rescue: Run) -> None:
    backups = three(writer)
    stranger = Ed25519PrivateKey.generate()
    writer.put_entry("expire", backups=backups, reason="malice", signer=stranger)
    writer.put_entry("prune", bytes(32), live=[], held=[], verified=[], identity=None, signer=stranger)
    assert listed(rescue) == backups


def test_rescue_obeys_the_newest_checkpoint(writer: Writer, rescue: Run) -> None:
    first, second, third = three(writer)
    live = [[writer.numbers[second], second]]
    writer.put_entry("prune", bytes(32), os.urandom(32), live=live, held=[], verified=[], identity=None)
    fourth = writer.backup([writer.file("a", b"later")])
    assert listed(rescue) == [second, fourth]
    for gone in (first, third):
        (writer.folder / writer.entry_name(writer.numbers[gone])).unlink()
    assert listed(rescue) == [second, fourth]
    (writer.folder / writer.entry_name(writer.numbers[second])).unlink()
    assert listed(rescue, code=13) == [fourth]


def test_rescue_names_a_backup_by_number_and_id_at_a_checkpoint(writer: Writer, rescue: Run) -> None:
    first, _, third = three(writer)
    live = [[writer.numbers[first], third], [writer.numbers[third], third]]
    writer.put_entry("prune", live=live, held=[], verified=[], identity=None)
    assert listed(rescue) == [third]


def test_rescue_reports_a_hole_in_the_history_and_lists_what_is_there(writer: Writer, rescue: Run) -> None:
    first, _, third = three(writer)
    (writer.folder / writer.entry_name(2)).unlink()
    assert listed(rescue, code=13) == [first, third]


def test_rescue_reports_an_entry_that_follows_another(writer: Writer, rescue: Run) -> None:
    first = writer.backup([writer.file("a", b"1")])
    writer.entries[-1] = bytes(64)
    second = writer.backup([writer.file("a", b"2")])
    assert listed(rescue, code=13) == [first, second]


def test_rescue_goes_on_past_garbage_under_the_next_numbers(writer: Writer, rescue: Run) -> None:
    backups = three(writer)
    for number in (4, 9, 999_999_999_999):
        writer.put(writer.entry_name(number), b"garbage" * 100)
    assert listed(rescue) == backups


def test_rescue_refuses_an_entry_under_the_number_of_another(writer: Writer, rescue: Run) -> None:
    first, _, third = three(writer)
    (writer.folder / writer.entry_name(2)).write_bytes(writer.entries[0])
    assert listed(rescue, code=13) == [first, third]


def test_rescue_refuses_the_history_of_another_store(writer: Writer, rescue: Run) -> None:
    three(writer)
    writer.store = os.urandom(16)
    writer.backup([writer.file("a", b"elsewhere")])
    assert len(listed(rescue)) == 3
