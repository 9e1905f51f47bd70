"""Combinations that cannot work, each explained where it stands in the file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from holdfast.config.addresses import FOLDER_SCHEME
from holdfast.config.document import Document
from holdfast.config.file_models import (
    BucketSection,
    FileSection,
    PostgresSection,
    RedisSection,
    RepositorySection,
    SearchSection,
    TlsSection,
)
from holdfast.config.merging import merged_policy
from holdfast.config.problems import Location, Problem
from holdfast.model.durations import format_duration
from holdfast.model.policy import DEFAULT_POLICY, Policy
from holdfast.sources.postgres.settings import MAX_RATE_KIB_RANGE

TIERS = ("full", "incremental", "snapshot")
_BUCKET_KEYS = ("region", "endpoint", "path_style", "profile", "access_key", "secret_key", "object_lock")


def consistency_problems(sections: FileSection, document: Document) -> list[Problem]:
    """Return everything that is well-formed but cannot work."""
    found = [
        *_repositories(sections),
        *_sources(sections),
        *_policies(sections, document),
    ]
    return [Problem(location, document.line_of(location), sentence) for location, sentence in found]


_Found = Iterator[tuple[Location, str]]


def _repositories(sections: FileSection) -> _Found:
    for name, section in sections.repositories.items():
        at: Location = ("repositories", name)
        if section.url.startswith(f"{FOLDER_SCHEME}:"):
            for key in _BUCKET_KEYS:
                if getattr(section, key) is not None:
                    yield (*at, key), f"means nothing for a folder; remove it, or give {name} the url of a bucket"
        yield from _credentials(at, section)
    for (first, one), (second, other) in combinations(sections.repositories.items(), 2):
        if one.endpoint != other.endpoint:
            continue
        if one.url == other.url:
            yield ("repositories", second, "url"), f"is that of {first}, too: that is one copy, not two; change one"
        elif f"{one.url}/".startswith(f"{other.url}/") or f"{other.url}/".startswith(f"{one.url}/"):
            yield ("repositories", second, "url"), f"lies inside or around that of {first}; put them side by side"


def _credentials(at: Location, section: RepositorySection | BucketSection) -> _Found:
    if (section.access_key is None) != (section.secret_key is None):
        there, missing = ("access_key", "secret_key") if section.access_key else ("secret_key", "access_key")
        yield (*at, there), f"stands alone; write {missing} beside it"
    if section.profile is not None and section.access_key is not None:
        yield (*at, "profile"), "stands beside access_key; keep one of them"


def _sources(sections: FileSection) -> _Found:
    for name, section in sections.sources.items():
        at: Location = ("sources", name)
        if isinstance(section, BucketSection):
            yield from _credentials(at, section)
        elif isinstance(section, PostgresSection | RedisSection | SearchSection):
            yield from _tls((*at, "tls"), section.tls)
        if isinstance(section, PostgresSection):
            yield from _postgres(at, section)
        if isinstance(section, SearchSection) and section.snapshots is not None:
            needed = "location" if section.snapshots.type == "fs" else "bucket"
            if getattr(section.snapshots, needed) is None:
                yield (*at, "snapshots"), f"{needed} is missing; type {section.snapshots.type} needs it"


def _tls(at: Location, tls: TlsSection | None) -> _Found:
    if tls is not None and (tls.cert is None) != (tls.key is None):
        there, missing = ("cert", "key") if tls.cert else ("key", "cert")
        yield (*at, there), f"stands alone; write {missing} beside it"


def _postgres(at: Location, section: PostgresSection) -> _Found:
    if len(set(section.capture)) != len(section.capture):
        yield (*at, "capture"), "names the same twice; write each once"
    if section.logical is not None:
        named = section.logical.databases or []
        if "logical" not in section.capture:
            yield (*at, "logical"), "is of no use; write capture: [physical, logical]"
        if len(set(named)) != len(named):
            yield (*at, "logical", "databases"), "names the same twice; write each once"
    low, high = MAX_RATE_KIB_RANGE
    if section.max_rate is not None and not low <= section.max_rate // 1024 <= high:
        yield (*at, "max_rate"), f"is out of what PostgreSQL accepts; write {low}KiB/s to {high}KiB/s"


def _policies(sections: FileSection, document: Document) -> _Found:
    policy = merged_policy(DEFAULT_POLICY, sections.policy)
    common = list(_policy(("policy",), policy, document))
    yield from common
    sentences = {(at[-2:], sentence) for at, sentence in common}
    for name, section in sections.sources.items():
        if section.policy is not None:
            own = merged_policy(policy, section.policy)
            for at, sentence in _policy(("sources", name, "policy"), own, document):
                if (at[-2:], sentence) not in sentences:
                    yield at, sentence


def _policy(at: Location, policy: Policy, document: Document) -> _Found:
    for name in TIERS:
        tier = getattr(policy, name)
        gap = tier.schedule.gap_max
        if gap is not None and tier.keep < gap:
            written = [key for key in ("keep", "schedule") if document.has((*at, name, key))]
            yield (
                (*at, name, written[0] if written else "keep"),
                f"keep {format_duration(tier.keep)} is shorter than the {format_duration(gap)} until the next one "
                f'(schedule "{tier.schedule.text}"): there would be times without a backup; keep at least '
                f"{format_duration(gap)}",
            )
    if policy.log.follow and policy.log.rpo < policy.log.flush:
        key = "flush" if document.has((*at, "log", "flush")) else "rpo"
        yield (
            (*at, "log", key),
            f"flush {format_duration(policy.log.flush)} is longer than the rpo of {format_duration(policy.log.rpo)}, "
            "which could never be met; write a shorter flush or a longer rpo",
        )
