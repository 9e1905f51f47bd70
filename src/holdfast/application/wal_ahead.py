"""The helper of `wal fetch`: keeps the next segments of a recovery ready on this host, and ends when it is over."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from holdfast.application.wal import FETCH_POLICY, WalFiles, WalOrder, opened, system_of
from holdfast.config.loading import load_config
from holdfast.model.errors import HoldfastError, NotFound
from holdfast.sources.postgres.wal_files import WalFileKind, WalFileName, parse_wal_name
from holdfast.sources.postgres.wal_parts import find_segment

AHEAD_FILES_MAX = 16
AHEAD_BYTES_MAX = 512 << 20
IDLE_SECONDS_MAX = 60.0
REFRESH_SECONDS = 5.0
POLL_SECONDS = 0.02
LOCK, WANTED, PART, NOT = "lock", "wanted", ".part", ".not"
AWAITED = "?"


def run_ahead(folder: str, config: str | None, source: str | None, repository: str | None) -> None:
    """Fetch ahead of what is wanted, until nothing was for a while. Another helper of the folder: do nothing.

    Raises what keeps it from reading the repository; then every segment is fetched by itself, as without a helper.
    """
    place = Path(folder)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(place) as is_ours:
        if not is_ours:
            return
        _clear(place)
        settings = load_config(Path(config) if config else None, os.environ)
        with opened(settings, WalOrder(source, repository), FETCH_POLICY) as files:
            _Ahead(place, files, system_of(Path.cwd())).run()


@contextmanager
def _locked(place: Path) -> Iterator[bool]:
    with (place / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            _clear(place)  # While the lock is held: nobody takes from a folder without a helper.


def _clear(place: Path) -> None:
    for path in place.iterdir():
        if path.name not in (LOCK, WANTED):
            path.unlink(missing_ok=True)


class _Ahead:
    def __init__(self, place: Path, files: WalFiles, identifier: str | None) -> None:
        self._place = place
        self._files = files
        self._identifier = identifier
        self._refreshed_at = time.monotonic()
        self._is_awaited = False

    def run(self) -> None:
        while (wanted := self._wanted()) is not None:
            self._drop_before(wanted)
            if not self._fetch_one(wanted):
                time.sleep(POLL_SECONDS)

    def _wanted(self) -> WalFileName | None:
        """Return the segment that was asked for last; None where that is long ago."""
        path = self._place / WANTED
        try:
            if time.time() - path.stat().st_mtime > IDLE_SECONDS_MAX:
                return None
            text = path.read_text("ascii")
        except OSError:
            return None
        self._is_awaited = text.endswith(AWAITED)
        name = parse_wal_name(text.removesuffix(AWAITED))
        return name if name is not None and name.kind is WalFileKind.SEGMENT else None

    def _drop_before(self, wanted: WalFileName) -> None:
        """Forget what will not be asked for any more: of another timeline, or before the one that was."""
        for path in self._place.iterdir():
            name = parse_wal_name(path.name.removesuffix(NOT))
            if name is None or path.name == wanted.segment_name() + NOT:
                continue
            if name.timeline != wanted.timeline or (name.high, name.low) < (wanted.high, wanted.low):
                path.unlink(missing_ok=True)

    def _fetch_one(self, wanted: WalFileName) -> bool:
        """Fetch the next one that is missing and whole in the repository; False where there is none to fetch now."""
        size = self._segment_bytes(wanted)
        if size is None:
            return self._refreshed()
        per_id = 0x1_0000_0000 // size
        first = wanted.high * per_id + wanted.low
        for number in range(first, first + min(AHEAD_FILES_MAX, max(2, AHEAD_BYTES_MAX // size)) + 1):
            name = WalFileName(WalFileKind.SEGMENT, wanted.timeline, number // per_id, number % per_id)
            path = self._place / name.segment_name()
            # The one wanted itself was handed out already, unless somebody waits for it.
            awaited = number == first and self._is_awaited
            if path.exists() or (number == first and not awaited):
                continue
            if self._bring(name, path):
                return True
            if awaited:
                path.with_name(path.name + NOT).touch()
            return self._refreshed()
        return False

    def _bring(self, name: WalFileName, path: Path) -> bool:
        part = path.with_name(path.name + PART)
        try:
            found = find_segment(self._files.log, name, self._identifier)
            if found is None or not found.is_complete:
                return False  # What may still grow is never kept.
            with part.open("wb") as file:
                for piece in self._files.content(found):
                    file.write(piece)
            part.rename(path)
        except (HoldfastError, NotFound):
            return False  # Whoever needs it fetches it, and is told.
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        return True

    def _segment_bytes(self, name: WalFileName) -> int | None:
        for generation in self._files.log.generations():
            details = generation.details
            if details.get("timeline") == name.timeline and self._identifier in (
                None,
                details.get("system_identifier"),
            ):
                size = details.get("segment_bytes")
                return size if isinstance(size, int) else None
        return None

    def _refreshed(self) -> bool:
        """List the log anew, now and then; False, for there is nothing to fetch this moment."""
        if time.monotonic() - self._refreshed_at > REFRESH_SECONDS:
            self._refreshed_at = time.monotonic()
            with suppress(HoldfastError):
                self._files.log.refresh()
        return False
