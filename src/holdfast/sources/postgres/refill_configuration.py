"""Reads the configuration inside a backup's folder, and makes a minimal one where it lay outside."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from holdfast.sources.postgres.conf_file import (
    INCLUDES,
    ConfLine,
    comment_lines,
    format_conf,
    parse_conf,
    setting_line,
)
from holdfast.sources.postgres.details import BackupDetails
from holdfast.sources.postgres.recovery import Settings

MAIN_FILE = "postgresql.conf"
AUTO_FILE = "postgresql.auto.conf"
HBA_FILE = "pg_hba.conf"
IDENT_FILE = "pg_ident.conf"

INCLUDE_DEPTH_MAX = 10
"""PostgreSQL's own limit (CONF_FILE_MAX_DEPTH); deeper files are not read."""

INCLUDED_FILES_MAX = 1000
"""Files of configuration that are read in all; a file may include itself, and PostgreSQL would not start with that."""

LEFT_OUT_PREFIXES = (
    "archive_", "bonjour", "debug_", "lc_c", "log_dir", "primary_", "recovery_", "server_", "shared_memory_size", "ssl",
    "synchronize", "synchronous_standby", "transaction_", "wal_block", "wal_segment",
)  # fmt: skip
LEFT_OUT = frozenset({
    "application_name", "block_size", "client_encoding", "config_file", "data_checksums", "data_directory",
    "data_directory_mode", "dynamic_library_path", "extension_control_path", "external_pid_file", "hba_file",
    "huge_pages_status", "ident_file", "in_hot_standby", "integer_datetimes", "is_superuser", "jit_provider",
    "krb_server_keyfile", "listen_addresses", "logging_collector", "max_function_args", "max_identifier_length",
    "max_index_keys", "max_stack_depth", "num_os_semaphores", "promote_trigger_file", "restore_command", "role",
    "seed", "segment_size", "session_authorization", "unix_socket_directories", "unix_socket_group",
})  # fmt: skip
"""Recorded settings that belong to the source's machine, its place in a cluster or one session, or cannot be set."""

HBA_CONTENT = b"""\
# Made for a restored copy: its source kept this file outside the data folder. Only this machine may connect.
# TYPE  DATABASE        USER            ADDRESS                 METHOD
local   all             all                                     peer
host    all             all             127.0.0.1/32            scram-sha-256
host    all             all             ::1/128                 scram-sha-256
"""
IDENT_CONTENT = b"""\
# Made for a restored copy: its source kept this file outside the data folder.
# MAPNAME       SYSTEM-USERNAME         PG-USERNAME
"""


@dataclass(frozen=True, slots=True)
class FoundConfiguration:
    """What the files inside the folder say.

    ``settings`` are the effective ones, in the order they were found. ``rewritten`` are files that cannot stay as they
    are: they name a data directory or include files that only the source's machine has (``cut`` holds those lines).
    """

    present: bool
    settings: Mapping[str, str]
    auto_lines: tuple[ConfLine, ...]
    rewritten: tuple[tuple[str, bytes], ...] = ()
    cut: tuple[str, ...] = ()


@dataclass(slots=True)
class _Walk:
    read: Callable[[str], bytes | None]
    paths: frozenset[str]
    settings: dict[str, str] = field(default_factory=dict)
    rewritten: dict[str, bytes] = field(default_factory=dict)
    cut: list[str] = field(default_factory=list)
    read_files: int = 0

    def file(self, path: str, depth: int) -> None:
        self.read_files += 1
        if depth > INCLUDE_DEPTH_MAX or self.read_files > INCLUDED_FILES_MAX:
            return
        content = self.read(path)
        if content is None:
            return
        lines = parse_conf(content)
        kept = tuple(self._line(path, line, depth) for line in lines)
        if kept != lines:
            self.rewritten[path] = format_conf(kept)

    def _line(self, path: str, line: ConfLine, depth: int) -> ConfLine:
        if line.name is None:
            return line
        if line.name not in INCLUDES:
            if line.name == "data_directory":
                return self._cut(line)
            # The same name may appear again, in a file included later: then that one counts.
            self.settings.pop(line.name, None)
            self.settings[line.name] = line.value
            return line
        place = posixpath.normpath(posixpath.join(posixpath.dirname(path), line.value))
        if place.startswith(("/", "../")) or place == ".." or not self._exists(line.name, place):
            return self._cut(line)
        for included in self._included(line.name, place):
            self.file(included, depth + 1)
        return line

    def _exists(self, kind: str, place: str) -> bool:
        return kind == "include_if_exists" or place == "." or place in self.paths

    def _included(self, kind: str, place: str) -> list[str]:
        if kind != "include_dir":
            return [place]
        folder = "" if place == "." else place
        names = (path for path in self.paths if posixpath.dirname(path) == folder and path.endswith(".conf"))
        return sorted(name for name in names if not posixpath.basename(name).startswith("."))

    def _cut(self, line: ConfLine) -> ConfLine:
        self.cut.append(line.text.strip())
        return ConfLine(f"# not on this machine: {line.text}")


def read_configuration(read: Callable[[str], bytes | None], paths: frozenset[str]) -> FoundConfiguration:
    """Return what the configuration among ``paths`` says; ``read`` gives a file's content, None where it is absent."""
    walk = _Walk(read, paths)
    walk.file(MAIN_FILE, 0)
    auto_lines = parse_conf(read(AUTO_FILE) or b"")
    for line in auto_lines:
        if line.name is not None and line.name not in INCLUDES:
            walk.settings.pop(line.name, None)
            walk.settings[line.name] = line.value
    return FoundConfiguration(
        present=MAIN_FILE in paths,
        settings=walk.settings,
        auto_lines=auto_lines,
        rewritten=tuple(walk.rewritten.items()),
        cut=tuple(walk.cut),
    )


def portable_settings(details: BackupDetails) -> Settings:
    """Return the recorded settings that make sense on any machine."""
    return tuple((name, value) for name, value in details.settings if _portable(name, value))


def minimal_main_file(details: BackupDetails) -> bytes:
    """Return a postgresql.conf made from the recorded settings, listening to this machine only."""
    header = comment_lines(
        "Made for a restored copy: its source kept its configuration outside the data folder.\n"
        "The settings it ran with follow, without those that belong to its machine."
    )
    settings = (("listen_addresses", "localhost"), *portable_settings(details))
    return format_conf((*header, *(setting_line(name, value) for name, value in settings)))


def _portable(name: str, value: str) -> bool:
    return name not in LEFT_OUT and not name.startswith(LEFT_OUT_PREFIXES) and "\0" not in value
