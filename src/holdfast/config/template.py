"""The commented configuration that ``init`` writes from the operator's answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from holdfast.config.reference import default_policy_lines
from holdfast.config.secret_references import SecretReference

LINE_CHARACTERS_MAX = 100_000
"""Keeps the YAML writer from folding a long address."""


@dataclass(frozen=True, slots=True)
class RepositoryAnswer:
    """A repository to write into the file."""

    name: str
    url: str
    region: str | None = None
    endpoint: str | None = None
    path_style: bool | None = None
    profile: str | None = None
    offsite: bool = False


@dataclass(frozen=True, slots=True)
class SourceAnswer:
    """A source to write into the file; ``address`` holds no password."""

    name: str
    kind: str
    address: str
    password: SecretReference | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """Everything ``init`` knows before it writes the file."""

    application: str
    repositories: tuple[RepositoryAnswer, ...]
    sources: tuple[SourceAnswer, ...]
    passphrase: SecretReference | None
    key_file: str | None = None
    timezone: str | None = None


def render_config(answers: Answers) -> str:
    """Return the file's text. Loaded again it says what the answers say; it holds no secret that was not in them."""
    return "\n".join(_lines(answers)) + "\n"


def _lines(answers: Answers) -> Iterator[str]:
    yield "# What holdfast protects, and where it keeps it. After a change: holdfast config check; holdfast doctor."
    yield "# Every key is explained by `holdfast config schema` and in docs/reference/configuration.md."
    yield ""
    yield f"application: {_text(answers.application)}"
    yield ""
    if answers.timezone:
        yield "# Times without a zone on the command line are read in this one."
        yield f"timezone: {_text(answers.timezone)}"
    else:
        yield "# Set it, and times without a zone on the command line are read in it; without it they are refused."
        yield "# timezone: Europe/Kyiv"
    yield ""
    yield "# The first one is backed up to; the others get copies. Each alone is enough to restore from."
    yield "# Add `offsite: true` to one that lies at another place, and `medium:` to tell kinds of storage apart."
    yield "repositories:"
    yield from (f"  {repository.name}: {_repository(repository)}" for repository in answers.repositories)
    yield ""
    yield "# What opens the repositories. Without it nothing can be restored: keep it where this machine's loss does"
    yield "# not reach. The secret itself is never here: {env: NAME}, {file: PATH} or {command: [PROGRAM, ARGUMENT]}."
    yield f"keys: {_keys(answers)}"
    yield ""
    yield from _sources(answers)
    yield ""
    yield "# These are the defaults: change what differs, here for all or below a source for one. schedule and keep say"
    yield "# what is made, rto and rpo what is promised: how long a restore may take, how much time may be lost."
    yield from (f"# {line}" for line in default_policy_lines())
    yield ""
    yield "# Where notices go, as Apprise URLs; those with tokens in them are secrets, too."
    yield '# notify: [{env: HOLDFAST_NOTIFY_URL}, "mailto://backup@example.org"]'


def _sources(answers: Answers) -> Iterator[str]:
    yield "# What the application is made of. Passwords stand beside an address, never in it; PGPASSWORD, ~/.pgpass and"
    yield "# AWS_* work as usual."
    if not answers.sources:
        yield "# sources:"
        yield '#   orders: {kind: postgres, dsn: "host=db.internal user=holdfast dbname=shop"}'
        return
    yield "sources:"
    for source in answers.sources:
        address_key = "dsn" if source.kind == "postgres" else "url"
        pairs = [f"kind: {source.kind}", f"{address_key}: {_quoted(source.address)}"]
        if source.password is not None:
            pairs.append(f"password: {_reference(source.password)}")
        yield f"  {source.name}: {{{', '.join(pairs)}}}"


def _repository(repository: RepositoryAnswer) -> str:
    pairs = [f"url: {_quoted(repository.url)}"]
    for key in ("region", "endpoint", "profile"):
        value = getattr(repository, key)
        if value is not None:
            pairs.append(f"{key}: {_quoted(value)}")
    if repository.path_style is not None:
        pairs.append(f"path_style: {str(repository.path_style).lower()}")
    if repository.offsite:
        pairs.append("offsite: true")
    return f"{{{', '.join(pairs)}}}"


def _keys(answers: Answers) -> str:
    pairs = []
    if answers.passphrase is not None:
        pairs.append(f"passphrase: {_reference(answers.passphrase)}")
    if answers.key_file is not None:
        pairs.append(f"file: {_quoted(answers.key_file)}")
    return f"{{{', '.join(pairs)}}}"


def _reference(reference: SecretReference) -> str:
    if reference.env is not None:
        return f"{{env: {reference.env}}}"
    if reference.file is not None:
        return f"{{file: {_quoted(reference.file)}}}"
    if reference.command:
        return f"{{command: [{', '.join(_quoted(word) for word in reference.command)}]}}"
    # The operator insisted: the only place where a secret is written out.
    return f"{{clear: {_quoted(reference.clear.reveal() if reference.clear else '')}}}"


def _text(value: str) -> str:
    """Return the value bare where YAML would read the same text from it, else quoted."""
    is_plain = value.isascii() and value.replace("/", "").isalnum()
    return value if is_plain and yaml.safe_load(value) == value else _quoted(value)


def _quoted(value: str) -> str:
    text: str = yaml.safe_dump(value, default_style='"', allow_unicode=True, width=LINE_CHARACTERS_MAX)
    return text.rstrip("\n")
