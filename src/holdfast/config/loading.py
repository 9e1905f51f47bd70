"""From a file's path to the checked configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from holdfast.config.addresses import FOLDER_SCHEME
from holdfast.config.consistency import consistency_problems
from holdfast.config.document import Document, parse_document, read_document
from holdfast.config.file_models import FileSection, PostgresSection
from holdfast.config.location import find_config
from holdfast.config.merging import merged_policy
from holdfast.config.problems import refusal
from holdfast.config.settings import Config, KubernetesQuiesce, RepositoryConfig, SourceConfig
from holdfast.config.validation import validate_document
from holdfast.model.policy import DEFAULT_POLICY

FOLDER_MEDIUM = "disk"
BUCKET_MEDIUM = "object"


def load_config(path: Path | None, environment: Mapping[str, str]) -> Config:
    """Find, read and check the configuration; connects to nothing and fetches no secret.

    ``path`` is what the command line names, None where it names nothing. Raises ``ConfigInvalid`` that lists every
    problem with its line.
    """
    return _config(read_document(find_config(path, environment, Path.cwd()).absolute()), environment)


def config_from_text(text: str, path: Path, environment: Mapping[str, str]) -> Config:
    """Check the text of a configuration that is, or will be, at ``path`` (absolute). Raises ``ConfigInvalid``."""
    return _config(parse_document(text, path), environment)


def _config(document: Document, environment: Mapping[str, str]) -> Config:
    sections = validate_document(document)
    problems = consistency_problems(sections, document)
    if problems:
        raise refusal(document.path, problems)
    policy = merged_policy(DEFAULT_POLICY, sections.policy)
    return Config(
        path=document.path,
        application=sections.application,
        zone=sections.timezone,
        policy=policy,
        repositories=_repositories(sections),
        sources=tuple(
            SourceConfig(
                name=name,
                kind=section.kind,
                policy=merged_policy(policy, section.policy),
                captures=tuple(section.capture) if isinstance(section, PostgresSection) else (),
            )
            for name, section in sections.sources.items()
        ),
        quiesce=_quiesce(sections),
        sections=sections,
        environment=environment,
    )


def _repositories(sections: FileSection) -> tuple[RepositoryConfig, ...]:
    return tuple(
        RepositoryConfig(
            name=name,
            url=section.url,
            medium=section.medium
            or (FOLDER_MEDIUM if urlsplit(section.url).scheme == FOLDER_SCHEME else BUCKET_MEDIUM),
            offsite=section.offsite,
            object_lock=section.object_lock,
            compression=section.compression,
        )
        for name, section in sections.repositories.items()
    )


def _quiesce(sections: FileSection) -> KubernetesQuiesce | None:
    quiesce = sections.restore.quiesce if sections.restore else None
    if quiesce is None or quiesce.kubernetes is None:
        return None
    return KubernetesQuiesce(quiesce.kubernetes.namespace, tuple(quiesce.kubernetes.deployments))
