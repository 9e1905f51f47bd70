"""The command line itself: help, versions, usage errors, completion, what is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.acceptance.cli.cli_program import Program

HELP_LINES_MAX = 40
SECTIONS = ["Set up:", "Protect:", "Look:", "Bring back:", "Look after:"]
HEAVY = ("rich", "pydantic", "numpy", "obstore", "psycopg", "yaml", "cryptography", "zstandard", "blake3", "asyncio")
COMMANDS = (
    ("init",),
    ("doctor",),
    ("backup",),
    ("backups",),
    ("restore",),
    ("check",),
    ("ls",),
    ("cat",),
    ("runs",),
    ("demo",),
    ("config", "check"),
    ("config", "schema"),
    ("key", "list"),
    ("key", "add"),
    ("key", "remove"),
    ("key", "rotate"),
    ("key", "export"),
)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """An application that is set up and has no backups, for tests that change nothing."""
    program = Program(tmp_path_factory.mktemp("ready"))
    program.init()
    return program


def imported_by(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint('imported', *sys.modules)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return {name.partition(".")[0] for name in ended.stdout.splitlines()[-1].split()[1:]}


def test_the_help_fits_a_screen_and_is_grouped(program: Program) -> None:
    lines = program.done("--help").out.splitlines()
    assert len(lines) <= HELP_LINES_MAX
    assert [line for line in lines if line in SECTIONS] == SECTIONS
    assert not [line for line in lines if line.endswith("...") and not line.startswith("Usage")]
    assert all(len(line) <= 80 for line in lines)


def test_the_help_imports_nothing_heavy() -> None:
    code = (
        "from holdfast.interfaces.cli import main\nsys.argv = ['holdfast', '--help']\n"
        "try:\n    main.run()\nexcept SystemExit as ended:\n    assert ended.code == 0\nprint()"
    )
    assert not imported_by(code) & set(HEAVY)


def test_importing_holdfast_imports_nothing_else() -> None:
    assert not imported_by("import holdfast") & {*HEAVY, "typer", "dataclasses", "json"}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_takes_the_common_options(program: Program, words: tuple[str, ...]) -> None:
    text = program.done(*words, "--help").out
    for option in ("--config", "--json", "--quiet", "--verbose"):
        assert option in text


def test_the_version_is_printed(program: Program) -> None:
    assert program.done("--version").out.startswith("holdfast 0.")


@pytest.mark.parametrize(
    "words",
    [
        ("bakup",),
        ("backup", "--at", "latest"),
        ("restore", "--as-of", "x"),
        ("copy",),
        ("backup", "--tier", "hourly"),
        ("ls",),
        ("key", "shred"),
    ],
    ids=" ".join,
)
def test_an_unknown_command_or_option_is_2_in_json_too(program: Program, words: tuple[str, ...]) -> None:
    told = program.run(*words, "--json")
    assert told.code == 2
    assert told.error["kind"] == "usage"
    assert told.error["exit_code"] == 2
    assert not told.out


def test_a_usage_error_is_text_with_a_hint(program: Program) -> None:
    ended = program.run("bakup")
    assert ended.code == 2
    assert ended.err.startswith("error: no such command")
    assert "hint: See `holdfast --help`" in ended.err


def test_no_command_prints_the_help_and_is_2(program: Program) -> None:
    assert program.run().code == 2
    assert "Bring back:" in program.run().err
    assert "rotate" in program.run("key").err


def test_an_absent_configuration_is_2_and_says_where_it_was_looked_for(program: Program) -> None:
    ended = program.run("backups", "--config", "absent.yaml")
    assert ended.code == 2
    assert "absent.yaml" in ended.err
    assert program.run("backups", "--json", variables={"HOLDFAST_CONFIG": "/absent"}).error["exit_code"] == 2


@pytest.mark.parametrize(
    "words",
    [
        ("backup", "nothing"),
        ("backups", "nothing"),
        ("backups", "--repository", "nothing"),
        ("restore", "nothing"),
        ("restore", "--backup", "0123456789ab"),
        ("restore", "--into", "postgresql://db.internal/copy"),
        ("restore", "--tablespace", "relative=/new"),
        ("ls", "0123456789ab"),
        ("ls", ":path"),
        ("cat", "latest"),
        ("cat", "latest:backup_manifest"),
        ("runs", "0123456789ab"),
        ("check", "--read-data=0"),
        ("check", "--read-data=101"),
        ("check", "--read-data=some"),
        ("backup", "--tier", "snapshot"),
    ],
    ids=" ".join,
)
def test_what_is_not_there_or_not_possible_is_2(ready: Program, words: tuple[str, ...]) -> None:
    ended = ready.run(*words)
    assert ended.code == 2, ended
    assert ended.err.startswith("error: ")


def test_lists_are_empty_where_nothing_was_backed_up(ready: Program) -> None:
    assert ready.done("backups", "--json").document == []
    assert ready.done("runs", "--json").document == []
    assert ready.done("check", "--json").document["sound"] is True


def test_reading_commands_write_nothing_into_the_repository(ready: Program) -> None:
    before = sorted(path for path in (ready.folder / "repository").rglob("*"))
    for words in (("backups",), ("runs",), ("key", "list"), ("config", "check"), ("restore", "--plan")):
        ready.run(*words)
    assert sorted(path for path in (ready.folder / "repository").rglob("*")) == before


def test_source_names_are_completed_from_the_configuration(ready: Program) -> None:
    asked = {
        "_HOLDFAST_COMPLETE": "complete_bash",
        "COMP_WORDS": "holdfast backup or",
        "COMP_CWORD": "2",
        "_TYPER_COMPLETE_ARGS": "holdfast backup or",
    }
    assert "orders" in ready.run(variables=asked).out.split()


def test_completion_is_silent_without_a_configuration(program: Program) -> None:
    asked = {"_HOLDFAST_COMPLETE": "complete_bash", "COMP_WORDS": "holdfast backup or", "COMP_CWORD": "2"}
    ended = program.run(variables=asked)
    assert not ended.err
