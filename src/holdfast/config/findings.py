"""What ``doctor`` says about the configuration itself: promises it cannot keep, secrets that lie open."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from holdfast.config.secret_references import SecretReference, is_open_to_others, secret_path
from holdfast.config.settings import Config, SourceConfig
from holdfast.model.durations import format_duration
from holdfast.model.policy import Policy
from holdfast.sources.port import Finding, Severity

_TOPIC = "objectives"
_SECRETS_TOPIC = "secrets"


def objectives_findings(config: Config) -> tuple[Finding, ...]:
    """Return every objective that the repositories or the schedules of the file cannot meet, as warnings."""
    found = [*_three_two_one(config)]
    if not config.sources:
        found.append(_warning("no source is configured", "Add what the application is made of below `sources:`."))
    for source in config.sources:
        found.extend(_schedules(source))
    return tuple(found)


def secret_findings(config: Config) -> tuple[Finding, ...]:
    """Return the secrets that the file holds in clear, and the files of secrets that others may read."""
    found = []
    for where, reference in _references(config):
        if reference.clear is not None:
            found.append(
                Finding(
                    _SECRETS_TOPIC,
                    Severity.NOTICE,
                    f"{where} stands in {config.path} in clear",
                    "Move it into a variable, a file or a command: {env: NAME}, {file: PATH}, {command: [PROGRAM]}.",
                )
            )
        elif reference.file is not None:
            path = secret_path(reference.file, config.environment, config.path.parent)
            if is_open_to_others(path):
                found.append(_open_file(where, str(path)))
    key_file = config.key_file()
    if key_file is not None and is_open_to_others(key_file):
        found.append(_open_file("the key file", str(key_file)))
    return tuple(found)


def _three_two_one(config: Config) -> Iterator[Finding]:
    repositories = config.repositories
    media = {repository.medium for repository in repositories}
    offsite = [repository for repository in repositories if repository.offsite]
    # A source may promise more than the application does: the largest promise is the one to keep.
    policies = [config.policy, *(source.policy for source in config.sources)]
    copies_wanted = max(policy.copies for policy in policies)
    media_wanted = max(policy.media for policy in policies)
    offsite_wanted = max(policy.offsite for policy in policies)
    if len(repositories) < copies_wanted:
        yield _warning(
            f"{copies_wanted} copies are promised, {len(repositories)} can exist",
            "Add repositories, or lower `copies` in the policy.",
        )
    if len(media) < media_wanted:
        yield _warning(
            f"{media_wanted} kinds of medium are promised, there is {len(media)}: {', '.join(sorted(media))}",
            "Put one repository on another kind of medium (and say so with `medium:`), or lower `media`.",
        )
    if len(offsite) < offsite_wanted:
        yield _warning(
            f"{offsite_wanted} off-site copies are promised, {len(offsite)} can exist",
            "Mark the repository that lies at another place with `offsite: true`, or lower `offsite`.",
        )


def _schedules(source: SourceConfig) -> Iterator[Finding]:
    policy = source.policy
    if source.kind == "postgres" and "physical" in source.captures:
        yield from _unmet(
            source.name, "full and incremental", _shortest(policy), min(policy.full.rpo, policy.incremental.rpo)
        )
        if not policy.log.follow:
            yield _warning(
                f"{source.name}: the log is not followed; only the moments of its backups can be reached",
                "Set `log: {follow: true}`, or accept what the backups' own objectives say.",
            )
    if source.kind in {"search", "bucket"}:
        yield from _unmet(source.name, "snapshot", policy.snapshot.schedule.gap_max, policy.snapshot.rpo)


def _shortest(policy: Policy) -> timedelta | None:
    gaps = [tier.schedule.gap_max for tier in (policy.full, policy.incremental) if tier.schedule.gap_max is not None]
    return min(gaps, default=None)


def _unmet(source: str, tiers: str, gap: timedelta | None, rpo: timedelta) -> Iterator[Finding]:
    if gap is None:
        yield _warning(f"{source}: no {tiers} backup is scheduled", "Give it a schedule, or make backups yourself.")
    elif gap > rpo:
        yield _warning(
            f"{source}: {tiers} backups are up to {format_duration(gap)} apart, "
            f"but at most {format_duration(rpo)} may be lost",
            "Make them more often, or promise less (rpo).",
        )


def _references(config: Config) -> Iterator[tuple[str, SecretReference]]:
    sections = config.sections
    if sections.keys.passphrase is not None:
        yield "the passphrase of the repositories", sections.keys.passphrase
    for kind, named in (("repository", sections.repositories), ("source", sections.sources)):
        for name, section in named.items():
            for key in ("password", "access_key", "secret_key"):
                reference = getattr(section, key, None)
                if reference is not None:
                    yield f"{key} of {kind} {name}", reference


def _warning(message: str, hint: str) -> Finding:
    return Finding(_TOPIC, Severity.WARNING, message, hint)


def _open_file(where: str, path: str) -> Finding:
    return Finding(
        _SECRETS_TOPIC, Severity.WARNING, f"{where}: other users may read {path}", f"Take that away: chmod 600 {path}"
    )
