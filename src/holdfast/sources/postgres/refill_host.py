"""Which settings of the source would keep a copy from starting elsewhere or reach for the source's own files."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from holdfast.sources.postgres.recovery import Settings
from holdfast.sources.postgres.refill_configuration import HBA_FILE, IDENT_FILE

TLS_FILES = ("ssl_cert_file", "ssl_key_file", "ssl_ca_file", "ssl_crl_file", "ssl_crl_dir", "ssl_dh_params_file")
TLS_DEFAULTS = {"ssl_cert_file": "server.crt", "ssl_key_file": "server.key"}
ACCESS_FILES = (("hba_file", HBA_FILE), ("ident_file", IDENT_FILE))

_TRUE = frozenset({"on", "yes", "true", "1", "y", "t"})
_ANY_ADDRESS = frozenset({"*", "0.0.0.0", "::", "localhost", "127.0.0.1", "::1"})  # noqa: S104
_USUAL_SOCKET_FOLDERS = frozenset({"", "/tmp", "/var/run/postgresql", "/run/postgresql"})  # noqa: S108


@dataclass(frozen=True, slots=True)
class HostChanges:
    """Settings that replace those of the source, and why, in words for the operator."""

    settings: Settings
    notes: tuple[str, ...]


def host_changes(settings: Mapping[str, str], folder: Path, paths: frozenset[str]) -> HostChanges:
    """Return what must differ from the source for the copy in ``folder`` (which holds ``paths``) to start anywhere.

    Only what would stop the server from starting, or let it write outside the folder, is touched.
    """
    changes: list[tuple[str, str]] = []
    notes: list[str] = []

    def change(name: str, value: str, reason: str) -> None:
        changes.append((name, value))
        notes.append(f"{name} = {value!r} in {folder / 'postgresql.auto.conf'}: {reason}")

    if settings.get("external_pid_file"):
        change("external_pid_file", "", f"the source's {settings['external_pid_file']} stays its own")
    if _no_usual(settings.get("listen_addresses"), _ANY_ADDRESS):
        change("listen_addresses", "localhost", f"{settings['listen_addresses']} is an address of the source's machine")
    if _foreign_sockets(settings.get("unix_socket_directories")):
        change("unix_socket_directories", "/tmp", "the source's socket folder may not exist here")  # noqa: S108
    if _is_on(settings.get("logging_collector")) and _outside(settings.get("log_directory", "log")):
        change("log_directory", "log", f"{settings['log_directory']} lies outside the folder")
    if _is_on(settings.get("ssl")) and (reason := _unusable_tls(settings, paths)):
        change("ssl", "off", reason)
    if _is_on(settings.get("huge_pages")):
        change("huge_pages", "try", "this machine may not have reserved them")
    if settings.get("io_method") == "io_uring":
        change("io_method", "worker", "the kernel here may not offer io_uring")
    for name, default in ACCESS_FILES:
        if value := settings.get(name):
            inside = value if value in paths else default
            change(name, str(folder / inside), f"the source's {value} is a file of its machine")
    return HostChanges(tuple(changes), tuple(notes))


def _is_on(value: str | None) -> bool:
    return value is not None and value.lower() in _TRUE


def _items(value: str) -> list[str]:
    return [item.strip().strip('"') for item in value.split(",")]


def _no_usual(value: str | None, usual: frozenset[str]) -> bool:
    return bool(value) and not any(item.lower() in usual for item in _items(value or ""))


def _foreign_sockets(value: str | None) -> bool:
    if not value:
        return False
    items = _items(value)
    return not any(item in _USUAL_SOCKET_FOLDERS or item.startswith("@") for item in items)


def _outside(path: str) -> bool:
    plain = posixpath.normpath(path)
    return plain.startswith(("/", "../")) or plain == ".."


def _unusable_tls(settings: Mapping[str, str], paths: frozenset[str]) -> str:
    if settings.get("ssl_passphrase_command"):
        return "the key's passphrase comes from a command of the source's machine"
    for name in TLS_FILES:
        value = settings.get(name, TLS_DEFAULTS.get(name, ""))
        if value and (_outside(value) or posixpath.normpath(value) not in paths):
            return f"{name} ({value}) is not in the backup"
    return ""
