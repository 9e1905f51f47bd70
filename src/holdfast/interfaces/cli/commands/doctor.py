"""``holdfast doctor``: probes everything the protection rests on."""

from __future__ import annotations

import typer

from holdfast.interfaces.cli.call import Call, Section, command
from holdfast.interfaces.cli.output import clean, say, say_json, say_table
from holdfast.interfaces.cli.progress import looking

BROKEN = 1
_STYLES = {"broken": "red", "warning": "yellow", "notice": "cyan", "ok": ""}
_PASSED_OVER_WHEN_QUIET = {"ok", "notice"}


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "doctor", Section.SET_UP)(doctor)


def doctor(call: Call) -> int:
    """Probe everything, and say how to mend what is wrong.

    Looks at servers, privileges, repositories, keys, clocks and objectives. Ends with 1 where something is broken.
    """
    from holdfast.application.doctor import diagnose

    topics = diagnose(call.config(), looking(call).on_retry)
    broken = sum(finding.severity == "broken" for topic in topics for finding in topic.findings)
    if call.json:
        from holdfast.interfaces.cli.views import findings_view

        say_json(findings_view(topics))
        return BROKEN if broken else 0
    shown = [
        (topic.subject, finding)
        for topic in topics
        for finding in topic.findings
        if not (call.quiet and finding.severity.value in _PASSED_OVER_WHEN_QUIET)
    ]
    if shown:
        rows = [[subject, finding.topic, finding.severity.value, finding.message] for subject, finding in shown]
        styles = [_STYLES[finding.severity.value] for _, finding in shown]
        say_table(["what", "topic", "state", "found"], rows, styles=styles)
    # Below the table, each on lines of its own: SQL and settings are to be copied, and a table would fold them.
    hints = [(subject, finding) for subject, finding in shown if finding.hint]
    for subject, finding in hints:
        say()
        say(clean(f"{subject}, {finding.topic}: {finding.message}"))
        for line in finding.hint.splitlines():
            say(f"  {clean(line)}")
    if not call.quiet:
        say()
        say(f"{broken} broken" if broken else "nothing is broken")
    return BROKEN if broken else 0
