"""What the pages say is so: links lead somewhere, commands and options exist, messages are the program's own."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml
from tests.docs.pages import (
    NO_RUN,
    ROOT,
    RUN_LANGUAGES,
    all_pages,
    anchors,
    blocks,
    code_texts,
    links,
    shown,
    user_pages,
)

from holdfast.config.loading import config_from_text
from holdfast.interfaces.cli.main import new_app

SMALLEST = {
    "application": "shop",
    "repositories": {"primary": {"url": "file:///backups/holdfast"}},
    "keys": {"passphrase": {"env": "HOLDFAST_PASSPHRASE"}},
}
OPTIONS_OF_GROUPS = {"--help", "-h", "--version", "--install-completion", "--show-completion"}
COMMAND_END = re.compile(r"[|;&<>()]|\$\(|#")
OUR_VARIABLE = re.compile(r"\bHOLDFAST_[A-Z_]*[A-Z]\b")
INVENTED_VARIABLES = {"HOLDFAST_ORDERS_PASSWORD", "HOLDFAST_NOTIFY_URL"}
"""Names that the configuration may choose freely."""

MACHINE_PATHS = re.compile(r"/work/|(?<!/var)/tmp/|/home/[a-z]|holdfast-tests-|\b(?:10\.\d+|192\.168)\.\d+\.\d+\b")


@pytest.mark.parametrize("path", all_pages(), ids=shown)
def test_links_of_a_page_lead_to_files_and_headings_that_exist(path: Path) -> None:
    for link in links(path.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f"{shown(path)} links to {link}, which does not exist"
        assert target.is_relative_to(ROOT), f"{shown(path)} links out of the project: {link}"
        if anchor:
            known = anchors(target.read_text(encoding="utf-8"))
            assert anchor in known, f"{shown(path)} links to {link}; that page has {sorted(known)}"


@pytest.mark.parametrize("path", all_pages(), ids=shown)
def test_a_page_names_no_path_of_the_machine_it_was_written_on(path: Path) -> None:
    found = MACHINE_PATHS.search(path.read_text(encoding="utf-8"))
    assert found is None, f"{shown(path)} names {found[0] if found else ''}"


@pytest.mark.parametrize("path", user_pages(), ids=shown)
def test_commands_and_options_on_a_page_exist(path: Path) -> None:
    program = typer.main.get_command(new_app())
    wrong = [
        f"{' '.join(words)}: {problem}"
        for text in code_texts(path.read_text(encoding="utf-8"))
        for words in commands_in(text)
        if (problem := problem_of(program, words)) is not None
    ]
    assert not wrong, f"{shown(path)}: {wrong}"


@pytest.mark.parametrize("path", user_pages(), ids=shown)
def test_variables_on_a_page_are_read_by_the_program(path: Path) -> None:
    sources = [*ROOT.glob("src/holdfast/**/*.py"), *ROOT.glob("rescue/*.py")]
    known = set(OUR_VARIABLE.findall("\n".join(source.read_text(encoding="utf-8") for source in sources)))
    named = set(OUR_VARIABLE.findall(path.read_text(encoding="utf-8")))
    assert named <= known | INVENTED_VARIABLES


@pytest.mark.parametrize("path", user_pages(), ids=shown)
def test_configuration_and_policies_on_a_page_are_valid(path: Path) -> None:
    for block in blocks(path.read_text(encoding="utf-8")):
        if block.language == "json":
            json.loads(block.text)
        if block.language == "yaml" and not block.words.startswith(NO_RUN):
            whole = SMALLEST | yaml.safe_load(block.text)
            config_from_text(yaml.safe_dump(whole), Path("/etc/holdfast/holdfast.yaml"), {})


@pytest.mark.parametrize("path", user_pages(), ids=shown)
def test_a_block_that_is_not_run_says_why(path: Path) -> None:
    for block in blocks(path.read_text(encoding="utf-8")):
        if block.language in RUN_LANGUAGES and not block.runs:
            assert len(block.words.split()) > 2, f"{shown(path)}:{block.line} gives no reason after {NO_RUN}"


def test_refusals_in_the_runbook_are_what_the_program_says() -> None:
    text = (ROOT / "docs/runbooks/restore.md").read_text(encoding="utf-8")
    table = text.partition("## What a refusal means")[2]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    said = [phrase for row in rows for phrase in re.findall(r"`([^`]+)`", row)]
    program = "\n".join(source.read_text(encoding="utf-8") for source in ROOT.glob("src/holdfast/**/*.py"))
    assert len(said) > 20
    assert not [phrase for phrase in said if phrase not in program]


def test_exit_codes_of_getting_started_are_those_of_the_program() -> None:
    text = (ROOT / "docs/guide/getting-started.md").read_text(encoding="utf-8")
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    sources = [ROOT / "src/holdfast/model/errors.py", ROOT / "src/holdfast/interfaces/cli/failures.py"]
    program = "\n".join(source.read_text(encoding="utf-8") for source in sources)
    given = {int(code) for code in re.findall(r"(?:exit_code|PARTLY) = (\d+)$", program, re.MULTILINE)}
    assert told == {0, *given}


def commands_in(text: str) -> list[list[str]]:
    """Return the words of each holdfast command in a text, up to what belongs to the shell."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        for start in re.finditer(r"(?:^|[\s(`])(?:/\S+/bin/)?holdfast (?=[a-z-])", line):
            rest = COMMAND_END.split(line[start.end() :])[0].replace('"', "").replace("'", "")
            found.append(shlex.split(rest))
    return found


def problem_of(program: object, words: list[str]) -> str | None:
    """Say what of a command line does not exist; values are not looked at."""
    command: typer.core.TyperGroup | typer.core.TyperCommand = program  # type: ignore[assignment]
    rest = list(words)
    while isinstance(command, typer.core.TyperGroup) and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        if name not in command.commands:
            return f"there is no command {name}"
        command = command.commands[name]  # type: ignore[assignment]
    known = {option for parameter in command.params for option in parameter.opts}
    for word in rest:
        option = word.partition("=")[0]
        if re.fullmatch(r"--?[a-z][a-z-]*", option) and option not in known | OPTIONS_OF_GROUPS:
            return f"there is no option {option}"
    return None
