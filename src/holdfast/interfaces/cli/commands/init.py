"""``holdfast init``: asks, or is told, what to protect and where, and sets it up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.interfaces.cli.asking import agree, ask, ask_new_passphrase
from holdfast.interfaces.cli.call import Call, Section, command
from holdfast.interfaces.cli.output import clean, say, say_json, tell
from holdfast.interfaces.cli.progress import looking
from holdfast.model.errors import ConfigInvalid

if TYPE_CHECKING:
    from holdfast.application.results import InitOutcome
    from holdfast.application.setup import SetupOrder
    from holdfast.config.answers import SourceFound
    from holdfast.config.secret_references import SecretReference
    from holdfast.model.secrets import Secret

KEY_FILE_NAME = "holdfast.key"
PASSPHRASE_VARIABLE = "HOLDFAST_PASSPHRASE"  # noqa: S105 the name of a variable

ApplicationOption = Annotated[
    str | None, typer.Option("--application", metavar="NAME", help="What to call the application.")
]
RepositoriesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--repository",
        metavar="[NAME=]URL",
        help="Where backups go: a folder, s3://bucket/prefix?region=..., gs://, az://. Repeat it for copies.",
    ),
]
SourcesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        metavar="NAME=URL",
        help="What to protect: postgresql://user@host/database, redis://, http(s):// (search), s3://. May be repeated.",
    ),
]
PassphraseFileOption = Annotated[
    Path | None,
    typer.Option("--passphrase-file", metavar="PATH", help="A file with the passphrase. [$HOLDFAST_PASSPHRASE]"),
]
NewKeyFileOption = Annotated[
    Path | None,
    typer.Option("--new-key-file", metavar="PATH", help="Generate a key file there, instead of a passphrase."),
]


@dataclass(frozen=True, slots=True)
class _Given:
    """What the command line says."""

    application: str | None
    repositories: tuple[str, ...]
    sources: tuple[str, ...]
    passphrase_file: Path | None
    new_key_file: Path | None


@dataclass(frozen=True, slots=True)
class _Key:
    """What will open the repositories, and how the configuration names it."""

    reference: SecretReference | None
    passphrase: Secret | None
    key_file: Path | None


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "init", Section.SET_UP)(init)


def init(
    call: Call,
    application: ApplicationOption = None,
    repository: RepositoriesOption = None,
    source: SourcesOption = None,
    passphrase_file: PassphraseFileOption = None,
    new_key_file: NewKeyFileOption = None,
) -> None:
    """Set up: the configuration, repositories, the first key.

    Prints the recovery kit. Asks for what is missing. A configuration that exists stays as it is: then only those
    repositories and key slots are made that it names and that are not there.
    """
    from holdfast.application.setup import SetupOrder, set_up
    from holdfast.config.location import config_to_write

    path = config_to_write(call.config_path, call.environment, Path.cwd()).absolute()
    given = _Given(application, tuple(repository or ()), tuple(source or ()), passphrase_file, new_key_file)
    notices: list[str] = []
    if path.exists():
        passphrase = _file_secret(call, passphrase_file) if passphrase_file is not None else None
        if application or repository or source or new_key_file:
            notices.append(f"{path} exists and stays as it is; what the options say beyond it was not added")
        order = SetupOrder(path, None, passphrase)
    else:
        order = _new_order(call, path, given, notices)
    outcome = set_up(order, call.environment, looking(call).on_retry)
    _show(call, outcome, (*notices, *outcome.notices))


def _new_order(call: Call, path: Path, given: _Given, notices: list[str]) -> SetupOrder:
    """Gather the answers: from the options, from the environment, from whoever sits at the terminal."""
    from holdfast.application.setup import SetupOrder
    from holdfast.config.answers import repository_answers
    from holdfast.config.template import Answers

    folder = Path.cwd()
    application = given.application or _asked(call, "--application", "What is the application called", "")
    texts = given.repositories or (_asked(call, "--repository", "Where do backups go (a folder or URL)", ""),)
    repositories = repository_answers(texts, folder)
    sources = _sources(call, given, notices)
    key = _key(call, path, given)
    answers = Answers(
        application=application,
        repositories=repositories,
        sources=tuple(found.answer for found in sources),
        passphrase=key.reference,
        key_file=str(key.key_file) if key.key_file is not None else None,
    )
    return SetupOrder(path, answers, key.passphrase)


def _asked(call: Call, option: str, question: str, default: str) -> str:
    answer = ask(question, default) if call.may_ask else ""
    if not answer:
        raise ConfigInvalid(f"{option} is missing", hint="Add it, or run this at a terminal to be asked.")
    return answer


def _sources(call: Call, given: _Given, notices: list[str]) -> tuple[SourceFound, ...]:
    from holdfast.config.answers import detected_sources, password_variable, source_found

    if given.sources:
        found = tuple(source_found(text) for text in given.sources)
    else:
        found = tuple(source for source in detected_sources(call.environment) if _wanted(call, source))
        if not found and call.may_ask:
            text = ask("What is to be protected (NAME=URL, empty for nothing yet)")
            found = (source_found(text),) if text else ()
        notices += [f"source {source.answer.name} was found in {source.origin}" for source in found]
    if not found:
        notices.append("no source is named yet: add what is to be protected below `sources:`")
    names = [source.answer.name for source in found]
    if len(set(names)) < len(names):
        raise ConfigInvalid("two sources have one name", hint="Write NAME=URL with a name of its own for each.")
    for source in found:
        if source.password is not None:
            variable = password_variable(source.answer.name)
            notices.append(f"the password of {source.answer.name} is not written down: put it into {variable}")
    return found


def _wanted(call: Call, source: SourceFound) -> bool:
    if not call.may_ask:
        return True
    return agree(clean(f"Protect {source.answer.kind} at {source.answer.address} ({source.origin})?"), default=True)


def _key(call: Call, path: Path, given: _Given) -> _Key:
    """Return what will open the repositories; there is no default."""
    from holdfast.config.secret_references import SecretReference

    if given.new_key_file is not None:
        if given.passphrase_file is not None:
            raise ConfigInvalid("--passphrase-file and --new-key-file exclude each other", hint="Give one of them.")
        return _Key(None, None, given.new_key_file.absolute())
    if given.passphrase_file is not None:
        file = given.passphrase_file.absolute()
        return _Key(SecretReference(file=str(file)), _file_secret(call, file), None)
    if call.environment.get(PASSPHRASE_VARIABLE):
        return _Key(SecretReference(env=PASSPHRASE_VARIABLE), None, None)
    if not call.may_ask:
        raise ConfigInvalid(
            f"there is no passphrase: neither --passphrase-file nor ${PASSPHRASE_VARIABLE} is given",
            hint="Give one of them, or let a key file be generated with --new-key-file PATH. There is no default.",
        )
    passphrase = ask_new_passphrase("A passphrase for the repositories (empty: generate a key file)")
    if passphrase is None:
        return _Key(None, None, path.parent / KEY_FILE_NAME)
    return _Key(SecretReference(env=PASSPHRASE_VARIABLE), passphrase, None)


def _file_secret(call: Call, file: Path) -> Secret:
    from holdfast.config.secret_references import SecretReference, fetch_secret

    return fetch_secret(SecretReference(file=str(file)), "the passphrase", call.environment, Path.cwd())


def _show(call: Call, outcome: InitOutcome, notices: Sequence[str]) -> None:
    if call.json:
        say_json(
            {
                "config": str(outcome.config_path),
                "config_written": outcome.config_written,
                "repositories": [
                    {"name": made.name, "url": made.url, "id": made.id, "made": made.made}
                    for made in outcome.repositories
                ],
                "key_file": str(outcome.key_file) if outcome.key_file is not None else None,
                "notices": list(notices),
                "kit": outcome.kit,
            }
        )
        return
    for notice in notices:
        tell(clean(f"notice: {notice}"))
    if call.quiet and outcome.key_file is None:
        return
    written = "written" if outcome.config_written else "was there"
    say(f"configuration {outcome.config_path}: {written}")
    for made in outcome.repositories:
        say(f"repository {made.name} at {made.url}: {'made' if made.made else 'was there'}")
    say()
    say(outcome.kit)
    say()
    say("Next: holdfast doctor, then holdfast backup.")
