"""Finds the position of the log that equals a snapshot: what is visible committed before it, all else after it.

Source: PostgreSQL's src/backend/access/transam/xact.c: the record of a commit is in the log before others see it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from holdfast.sources.postgres.wal_walk import Kind, Notable

COMMITS = frozenset((Kind.COMMIT, Kind.COMMIT_PREPARED))
_HALF = 1 << 31
_WHOLE = 1 << 32


@dataclass(frozen=True, slots=True)
class SeenSnapshot:
    """What ``pg_current_snapshot`` prints: transactions below ``xmax`` that are not in ``running`` are visible."""

    xmax: int
    running: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> SeenSnapshot:
        """Read ``xmin:xmax:xid,xid,...``; raises ``ValueError``."""
        _, xmax, running = text.split(":")
        return cls(int(xmax), frozenset(int(xid) for xid in running.split(",") if xid))

    def sees(self, xid: int) -> bool:
        """Whether a transaction, named by the 32 bits that the log has, was visible if it had committed."""
        whole = self.xmax - self.xmax % _WHOLE + xid
        if whole - self.xmax > _HALF:
            whole -= _WHOLE
        elif self.xmax - whole > _HALF:
            whole += _WHOLE
        return whole < self.xmax and whole not in self.running


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a snapshot lies: recovery that stops before the record at ``position`` shows what it saw."""

    position: int
    commits_since: int


def place(snapshots: Sequence[SeenSnapshot], commits: Iterable[Notable], since: int, end: int) -> Placed | None:
    """Return the position that equals all of ``snapshots``, None where there is none.

    ``commits`` are all records of the log up to ``end``, which lies behind the moment the last snapshot was taken,
    from so far back that none before them was still on its way to be seen. ``commits_since`` counts those between
    ``since`` and the position.
    """
    last_seen, first_unseen, starts = 0, end, []
    for record in commits:
        if record.kind not in COMMITS:
            continue
        seen = {snapshot.sees(record.xid) for snapshot in snapshots}
        if len(seen) != 1 or not record.xid:
            return None
        starts.append(record.start)
        if seen.pop():
            last_seen = max(last_seen, record.start)
        else:
            first_unseen = min(first_unseen, record.start)
    if last_seen > first_unseen or first_unseen < since:
        return None
    return Placed(first_unseen, sum(since <= start < first_unseen for start in starts))
