"""What doctor says about a configuration that is valid but promises more than it can keep."""

from __future__ import annotations

from pathlib import Path

from config_examples import SMALL, WHOLE, load, small_with

from holdfast.config.findings import objectives_findings, secret_findings
from holdfast.sources.port import Severity


def _messages(text: str) -> list[str]:
    return [finding.message for finding in objectives_findings(load(text))]


def test_a_configuration_that_keeps_its_promises_has_no_findings() -> None:
    assert objectives_findings(load(WHOLE)) == ()


def test_promises_that_one_repository_cannot_keep_are_warnings_and_break_nothing() -> None:
    findings = objectives_findings(load(small_with("sources: {orders: {kind: postgres}}\n")))
    assert [finding.message for finding in findings] == [
        "3 copies are promised, 1 can exist",
        "2 kinds of medium are promised, there is 1: disk",
        "1 off-site copies are promised, 0 can exist",
    ]
    assert {finding.severity for finding in findings} == {Severity.WARNING}
    assert all(finding.hint for finding in findings)


def test_the_largest_promise_of_any_source_counts() -> None:
    text = small_with("""\
policy: {copies: 1, media: 1, offsite: 0}
sources: {orders: {kind: postgres, policy: {copies: 2}}}
""")
    assert _messages(text) == ["2 copies are promised, 1 can exist"]


def test_no_source_is_a_finding() -> None:
    assert "no source is configured" in _messages(SMALL)


def test_schedules_that_cannot_meet_the_promised_loss_are_named() -> None:
    text = WHOLE.replace("orders:  {", "orders:  {policy: {incremental: {rpo: 1h}}, ").replace(
        "covers:  {", 'covers:  {policy: {snapshot: {schedule: "0 */6 * * *"}}, '
    )
    assert _messages(text) == [
        "orders: full and incremental backups are up to 1d apart, but at most 1h may be lost",
        "covers: snapshot backups are up to 6h apart, but at most 1h may be lost",
    ]


def test_incremental_backups_serve_the_loss_that_full_ones_promise() -> None:
    assert _messages(WHOLE.replace("schedule: weekly,  keep: 30d", "schedule: monthly, keep: 60d")) == []


def test_backups_that_are_never_made_are_named() -> None:
    text = WHOLE.replace("schedule: weekly", "schedule: never").replace(
        "schedule: daily,   keep", "schedule: never, keep"
    )
    assert "orders: no full and incremental backup is scheduled" in _messages(text)


def test_a_log_that_is_not_followed_is_named() -> None:
    assert any(
        "the log is not followed" in message for message in _messages(WHOLE.replace("follow: true", "follow: false"))
    )


def test_secrets_in_clear_and_open_files_are_named_without_showing_them(tmp_path: Path) -> None:
    for name, mode in (("open", 0o644), ("closed", 0o600), ("key", 0o640)):
        (tmp_path / name).write_text("hunter2")
        (tmp_path / name).chmod(mode)
    config = load(
        """\
application: shop
repositories: {main: {url: "s3://x", access_key: {env: ID}, secret_key: {file: open}}}
keys: {passphrase: {file: closed}, file: key}
sources: {orders: {kind: postgres, password: {clear: hunter2}}}
notify: ["mailto://ops@example.org"]
""",
        path=tmp_path / "holdfast.yaml",
    )
    findings = secret_findings(config)
    assert [(finding.severity, finding.message) for finding in findings] == [
        (Severity.WARNING, f"secret_key of repository main: other users may read {tmp_path / 'open'}"),
        (Severity.NOTICE, f"password of source orders stands in {tmp_path / 'holdfast.yaml'} in clear"),
        (Severity.WARNING, f"the key file: other users may read {tmp_path / 'key'}"),
    ]
