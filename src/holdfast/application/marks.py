"""Marks, moments of the sources under a name; and adoption, a server's new identity."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from holdfast import bootstrap
from holdfast.config.settings import Config
from holdfast.model.errors import AlreadyExists, ConfigInvalid, HoldfastError, NotFound
from holdfast.repository import history as histories
from holdfast.repository.area import Area
from holdfast.repository.format.entry import EntryKind, Facts, HistoryEntry, Mark
from holdfast.repository.format.names import RunId
from holdfast.repository.format.rules import HistoryState
from holdfast.repository.history import History

NAME_LENGTH_MAX = 200
MARKS_AT_ONCE_MAX = 8


@dataclass(frozen=True, slots=True)
class MarkOutcome:
    """How the mark of one source went. ``position`` is for people; ``at`` the server's clock where it told."""

    source: str
    name: str
    position: str | None
    at: datetime | None
    restore_point: str | None
    notices: tuple[str, ...]
    error: HoldfastError | None


@dataclass(frozen=True, slots=True)
class Adoption:
    """What ``adopt`` will do: the identity that earlier backups have, and the one the server has now."""

    source: str
    known: Facts | None
    found: Facts

    @property
    def is_new(self) -> bool:
        return self.known != self.found


@dataclass(frozen=True, slots=True)
class Writer:
    """What is needed to add to the history of one source."""

    config: Config
    area: Area
    tools: bootstrap.Tools

    def history(self) -> History:
        return histories.read_history(self.area, self.tools.executor, self.tools.remembered)

    def append(self, history: History, decide: Callable[[HistoryState], HistoryEntry]) -> None:
        histories.append(self.area, history, decide, self.tools.remembered)


def take_marks(writers: dict[str, Writer], name: str) -> list[MarkOutcome]:
    """Take the position of each source under a name, all at about the same time; raises ``ConfigInvalid`` for a name.

    A source that fails does not keep the others from theirs. What is marked is listed from the history alone.
    """
    if not name or len(name) > NAME_LENGTH_MAX or not name.isprintable():
        raise ConfigInvalid(
            f"{name!r} is no name for a mark", hint=f"Give 1 to {NAME_LENGTH_MAX} printable characters."
        )
    histories_by_source = {source: writer.history() for source, writer in writers.items()}
    for source, history in histories_by_source.items():
        _refuse_taken(history.state, source, name)
    token = os.urandom(16).hex()
    with ThreadPoolExecutor(min(MARKS_AT_ONCE_MAX, max(1, len(writers)))) as pool:
        return list(
            pool.map(
                lambda source: _mark_one(source, writers[source], histories_by_source[source], name, token), writers
            )
        )


def _refuse_taken(state: HistoryState, source: str, name: str) -> None:
    if any(mark.name == name for mark in state.marks):
        raise AlreadyExists(
            f"source {source} has a mark {name} already", hint="Marks are never moved: choose another name."
        )


def _mark_one(source: str, writer: Writer, history: History, name: str, token: str) -> MarkOutcome:
    from holdfast.sources.postgres.details import format_lsn
    from holdfast.sources.postgres.mark import take_mark

    try:
        taken = take_mark(writer.config.source_settings(source), token)
        at = datetime.now(UTC)
        mark = Mark(name, taken.at or at, taken.to_document())

        def decide(state: HistoryState) -> HistoryEntry:
            _refuse_taken(state, source, name)
            return _entry(EntryKind.MARK, at, mark=mark)

        writer.append(history, decide)
    except HoldfastError as error:
        return MarkOutcome(source, name, None, None, None, (), error)
    notices = (taken.notice,) if taken.notice is not None else ()
    return MarkOutcome(source, name, format_lsn(taken.lsn), mark.at, taken.restore_point, notices, None)


def adoption_of(writer: Writer) -> Adoption:
    """Compare the identity of the earlier backups with the server's own; raises what connecting raises."""
    source = writer.area.source
    found = bootstrap.source_of(writer.config, source).probe()
    if found.identity is None:
        reason = next((finding.message for finding in found.findings if finding.severity == "broken"), "it tells none")
        raise NotFound(
            f"the server of source {source} cannot be identified: {reason}", hint="`holdfast doctor` tells more."
        )
    return Adoption(source, _known(writer), found.identity.facts)


def adopt(writer: Writer, adoption: Adoption) -> None:
    """Have the server's identity be the source's from here on; earlier backups stay restorable.

    Needs a repository slot of the key: the entry is signed. Raises ``Conflict`` and what the store raises.
    """
    entry = _entry(EntryKind.ADOPT, datetime.now(UTC), identity=adoption.found, reason="adopted")
    writer.append(writer.history(), lambda _: entry)


def _known(writer: Writer) -> Facts | None:
    history = writer.history()
    if history.state.identity is not None:
        return history.state.identity
    for entry in reversed(history.live_entries()):
        record = histories.record_of(writer.area, entry)
        return record.identity
    return None


def _entry(
    kind: EntryKind, at: datetime, *, mark: Mark | None = None, identity: Facts = (), reason: str = ""
) -> HistoryEntry:
    return HistoryEntry(
        number=0,
        kind=kind,
        previous=None,
        host=socket.gethostname(),
        run=RunId(os.urandom(16).hex()),
        at=at,
        identity=identity,
        mark=mark,
        reason=reason,
    )
