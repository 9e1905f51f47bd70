"""The recovery kit: what has to be known, away from the machines, to get everything back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from holdfast.application.results import RepositoryView
from holdfast.config.addresses import folder_of
from holdfast.config.settings import Config
from holdfast.model.secrets import Secret

RESCUE_COMMAND = "python rescue/holdfast_rescue.py REPOSITORY_FOLDER SOURCE BACKUP_ID TARGET_FOLDER"
RESCUE_PACKAGES = "zstandard blake3 cryptography"


def recovery_kit(
    config: Config,
    repositories: Sequence[RepositoryView],
    *,
    generated: Secret | None = None,
    key_file: Path | None = None,
) -> str:
    """Return the kit's text. It holds no secret but a key that was generated just now, of which it is a copy.

    ``key_file`` is one that the configuration does not name, and that the kit goes with.
    """
    ids = list(dict.fromkeys(repository.id for repository in repositories))
    lines = [
        f"RECOVERY KIT of {config.application}",
        "Print it, and keep it where the loss of these machines does not reach.",
        "",
        f"Repository {', '.join(ids)}; any one of its copies is enough:",
        *(f"  {repository.name:<12} {repository.url}" for repository in repositories),
        "",
        "What opens it (without it nothing can ever be restored, by anyone):",
        *(f"  {line}" for line in _key_lines(config, generated, key_file)),
        "",
        f"With holdfast, and the configuration {config.path}:",
        "  holdfast backups",
        "  holdfast restore SOURCE --into FOLDER",
        *_without_configuration(config, repositories),
        "",
        "Without holdfast (docs/format.md describes every byte):",
        *_fetch_lines(repositories),
        f"  python -m pip install {RESCUE_PACKAGES}",
        f"  {_secret_assignment(config, key_file)} {RESCUE_COMMAND}",
    ]
    return "\n".join(lines)


def _key_lines(config: Config, generated: Secret | None, key_file: Path | None) -> list[str]:
    """Return what opens the repositories, in words; a secret only where it was generated just now."""
    if key_file is not None:
        return [f"the key file {key_file} (copy it away; the configuration does not name it)"]
    lines = []
    reference = config.sections.keys.passphrase
    if reference is not None:
        lines.append(f"the passphrase, which this configuration takes from {reference} (write it down)")
    named = config.key_file()
    if named is not None:
        lines.append(f"the key file {named}" + (", whose one line is a copy as good:" if generated else ""))
        if generated is not None:
            lines.append(f"  {generated.reveal().strip()}")
    return lines


def _without_configuration(config: Config, repositories: Sequence[RepositoryView]) -> list[str]:
    source = config.sources[0].name if config.sources else "SOURCE"
    return [
        "Where the configuration is lost, write it again around the same repository:",
        f"  holdfast init --application {config.application} --repository {repositories[0].url} --source {source}=URL",
    ]


def _fetch_lines(repositories: Sequence[RepositoryView]) -> list[str]:
    folders = [repository.url for repository in repositories if folder_of(repository.url) is not None]
    if folders:
        return [f"  REPOSITORY_FOLDER is {Path(str(folder_of(folders[0])))}"]
    return [f"  Copy all below {repositories[0].url} into REPOSITORY_FOLDER with that store's own tools."]


def _secret_assignment(config: Config, key_file: Path | None) -> str:
    if key_file is not None:
        return f"HOLDFAST_KEY_FILE={key_file}"
    if config.sections.keys.passphrase is not None:
        return "HOLDFAST_PASSPHRASE=..."
    return f"HOLDFAST_KEY_FILE={config.key_file()}"
