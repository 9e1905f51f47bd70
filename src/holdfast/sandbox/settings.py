"""How a throwaway server is made and started, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PARAMETERS_NONE: Mapping[str, str] = {}

RESTORED_OVERRIDES: Mapping[str, str] = {
    "archive_mode": "off",
    "external_pid_file": "",
    "ssl": "off",
    "synchronous_standby_names": "",
}
"""What a copy of somebody's cluster must not take from its source: it would write there, hang, or fail to start."""


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """How a throwaway server is made and started.

    ``port`` None means a free one. With ``listen`` False there is only the socket. ``sockets_folder`` None means a
    private one. ``data_checksums``, ``wal_segment_mebibytes``, ``locale`` and ``password`` count when the cluster is
    made. Without a password any account of this machine can become superuser through the port while the server runs:
    good enough for tests only. ``parameters`` are PostgreSQL's own; for a cluster that was not made here they stand in
    argv, so never put secrets there. ``hba_lines`` empty means: everyone from here, replication too, by the password.
    ``standby`` True waits only until the server answers, be it in recovery; else until recovery is over.
    """

    port: int | None = None
    listen: bool = True
    sockets_folder: Path | None = None
    data_checksums: bool = True
    wal_segment_mebibytes: int = 16
    locale: str = "C"
    superuser: str = "postgres"
    password: str | None = field(default=None, repr=False)
    parameters: Mapping[str, str] = field(default_factory=lambda: PARAMETERS_NONE)
    hba_lines: tuple[str, ...] = ()
    standby: bool = False
    start_seconds_max: float = 60.0
    stop_seconds_max: float = 30.0

    def hba_text(self) -> str:
        """Compose the content of pg_hba.conf."""
        method = "trust" if self.password is None else "scram-sha-256"
        usual = (
            f"local all all {method}",
            f"host all all 127.0.0.1/32 {method}",
            f"local replication all {method}",
            f"host replication all 127.0.0.1/32 {method}",
        )
        return "".join(f"{line}\n" for line in self.hba_lines or usual)

    def parameters_text(self) -> str:
        """Compose the parameters as lines of postgresql.conf."""
        return "".join(f"{name} = {_quoted(value)}\n" for name, value in self.parameters.items())


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
