"""``holdfast check``: is what the repository holds whole, and can all of it be restored?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.interfaces.cli.call import Call, Section, command
from holdfast.interfaces.cli.completion import RepositoryOption, Sources
from holdfast.interfaces.cli.failures import tell_error
from holdfast.interfaces.cli.output import clean, say, say_event
from holdfast.interfaces.cli.progress import watching
from holdfast.interfaces.cli.shown import size_text
from holdfast.model.errors import ConfigInvalid, IntegrityBroken

if TYPE_CHECKING:
    from holdfast.repository.checking import AreaReport

READ_DATA = "--read-data"
READ_ALL = "100"
_PERCENT = re.compile(r"\d+(\.\d+)?%?")


def with_percent(arguments: Sequence[str]) -> list[str]:
    """Return a command line in which ``--read-data`` has its percentage: all, where none follows it."""
    done: list[str] = []
    for number, word in enumerate(arguments):
        if word == "--":
            return [*done, *arguments[number:]]
        following = arguments[number + 1] if number + 1 < len(arguments) else ""
        bare = word == READ_DATA and _PERCENT.fullmatch(following) is None
        done.append(f"{READ_DATA}={READ_ALL}" if bare else word)
    return done


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "check", Section.LOOK_AFTER)(check)


def check(
    call: Call,
    source: Sources = None,
    read_data: Annotated[
        str | None,
        typer.Option(READ_DATA, metavar="[PERCENT]", help="Read every byte too, or of a random share of the packs."),
    ] = None,
    repository: RepositoryOption = None,
) -> int:
    """Check that every backup can be restored in full.

    Names the backups that damage touches, and ends with 13 where there is any.
    """
    from holdfast.application.application import Application

    percent = _percent(read_data)
    config = call.config()
    names = source or [known.name for known in config.sources]
    with watching(call, "reading" if percent is not None else "checking", names) as watcher:
        reports = Application(config, watcher, repository).check(percent, names)
    if call.json:
        from holdfast.interfaces.cli.views import check_view

        say_event(check_view(reports, percent))
    else:
        for report in reports:
            _show(call, report)
    findings = [finding for report in reports for finding in report.findings]
    if not findings:
        return 0
    touched = {backup for report in reports for backup in report.touched}
    broken = IntegrityBroken(
        f"{len(findings)} broken: {findings[0].message}" + (" and more" if len(findings) > 1 else ""),
        hint=f"{len(touched)} backups are touched. Restore from another copy (--repository NAME). Then move the broken "
        "packs out of the repository, keep them, and back up: a backup stores anew only what is not there."
        if touched
        else "No backup is touched. Bring what is broken back from another copy of the repository, if there is one.",
    )
    tell_error(broken, as_json=call.json)
    return broken.exit_code


def _percent(text: str | None) -> float | None:
    if text is None:
        return None
    if _PERCENT.fullmatch(text) is None or not 0 < float(text.rstrip("%")) <= 100:
        raise ConfigInvalid(f"{READ_DATA}={text} is not a percentage", hint="Write a number above 0 and up to 100.")
    return float(text.rstrip("%"))


def _show(call: Call, report: AreaReport) -> None:
    if not call.quiet:
        read = f", {size_text(report.read_bytes)} read" if report.read_bytes else ""
        rebuilt = "; its index was rebuilt" if report.index_rebuilt else ""
        state = "damaged" if report.findings else "sound"
        held = f"{report.backups} backups, {report.packs} packs, {size_text(report.stored_bytes)}"
        say(f"{report.title}: {state}: {held}{read}{rebuilt}")
    for finding in report.findings:
        say(clean(f"  {finding.subject}: {finding.message}"))
        for backup in finding.backups:
            say(f"    touches backup {backup}")
