"""Small pure things of the command line: sizes and times for people, arguments, what is struck out."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from holdfast.interfaces.cli.commands.check import with_percent
from holdfast.interfaces.cli.failures import PartlyDone, ended, without_secrets
from holdfast.interfaces.cli.output import clean
from holdfast.interfaces.cli.reference import commands_page
from holdfast.interfaces.cli.shown import age_text, seconds_text, size_text, time_text
from holdfast.model.errors import KeyInvalid

PAGE = Path(__file__).resolve().parents[3] / "docs/reference/commands.md"
MOMENT = datetime(2026, 3, 1, 12, 30, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KiB"), (1536, "1.5 KiB"), (150 << 20, "150 MiB"), (1 << 40, "1.0 TiB")],
)
def test_sizes_are_written_for_people(size: int, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0 s"),
        (0.44, "0.4 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_times_are_shown_in_the_configured_zone_with_its_offset() -> None:
    assert time_text(MOMENT, ZoneInfo("Europe/Kyiv")) == "2026-03-01 14:30:05+02:00"
    assert age_text(MOMENT, MOMENT.replace(hour=14)) == "2 h 00 min ago"


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["check"], ["check"]),
        (["check", "--read-data"], ["check", "--read-data=100"]),
        (["check", "--read-data", "orders"], ["check", "--read-data=100", "orders"]),
        (["check", "--read-data", "20"], ["check", "--read-data", "20"]),
        (["check", "--read-data", "2.5%", "--json"], ["check", "--read-data", "2.5%", "--json"]),
        (["check", "--read-data=20"], ["check", "--read-data=20"]),
        (["check", "--", "--read-data"], ["check", "--", "--read-data"]),
    ],
)
def test_read_data_may_stand_with_or_without_its_percentage(given: list[str], read: list[str]) -> None:
    assert with_percent(given) == read


@pytest.mark.parametrize(
    "text",
    [
        "connection to postgresql://me:hunter2@db failed",
        "dsn: host=db password=hunter2 user=me",
        "PGPASSWORD: hunter2",
        "a Token = hunter2",
    ],
)
def test_what_looks_like_a_credential_is_struck_out_of_unexpected_errors(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "hunter2" not in without_secrets(text)

    def fail() -> int:
        raise RuntimeError(text)

    assert ended(fail, as_json=False, verbose=True) == 1
    shown = capsys.readouterr().err
    assert "unexpected RuntimeError" in shown
    assert "hunter2" not in shown


def test_an_unexpected_error_is_short_and_its_traceback_only_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise ZeroDivisionError

    assert ended(fail, as_json=False, verbose=False) == 1
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert "--verbose" in shown


@pytest.mark.parametrize(
    ("error", "code"), [(KeyInvalid("x"), 12), (PartlyDone("x"), 3), (KeyboardInterrupt(), 130)], ids=repr
)
def test_every_error_ends_with_its_own_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise error

    assert ended(fail, as_json=True, verbose=False) == code
    assert f'"exit_code": {code}' in capsys.readouterr().err


def test_nothing_from_elsewhere_can_move_the_terminals_cursor() -> None:
    assert clean("a\x1b[2Jb\r\nc\td") == "a\\x1b[2Jb\\x0d\\x0ac\td"


def test_the_reference_page_is_what_the_command_line_says() -> None:
    hint = "run: python -m holdfast.interfaces.cli.reference >docs/reference/commands.md"
    assert PAGE.read_text(encoding="utf-8") == commands_page(), hint
