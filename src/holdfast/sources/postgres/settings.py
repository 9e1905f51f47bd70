"""What the operator decides about one PostgreSQL source, with every secret out of sight."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from holdfast.model.errors import ConfigInvalid
from holdfast.model.secrets import Secret

MAX_RATE_KIB_RANGE = (32, 1024 * 1024)
"""What the server accepts for MAX_RATE, in KiB per second."""

MAINTENANCE_DATABASE = "postgres"
FALLBACK_DATABASE = "template1"
"""Databases that every cluster has; the second serves where the first is the one that is worked on."""

JOBS_MAX = 3
"""Tables read at a time: with the schema's stream as many as a backup may have open."""

SECRET_KEYWORDS = ("password", "sslpassword", "oauth_client_secret")
"""Connection keywords whose values must never be shown."""


class Checkpoint(StrEnum):
    """How the checkpoint before a base backup is made: at once, or spread to spare the server."""

    FAST = "fast"
    SPREAD = "spread"


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """How one cluster is reached and captured.

    ``dsn`` is anything libpq takes, without secrets (``settings_from_dsn`` splits them off); what it leaves open libpq
    finds as usual: ``PG*`` variables, service files, password files. Bounds are in seconds; the one for connecting
    yields to ``connect_timeout`` in the DSN or the environment. Of logical backups are: which databases (none named:
    all), how many tables at a time, where the client programs are, and from which size on a table is only counted and
    sampled for the witness. ``witness_share`` is the share of a physical backup's time that its witness may take.
    """

    dsn: str = field(default="", repr=False)
    password: Secret | None = None
    other_secrets: tuple[tuple[str, Secret], ...] = ()
    checkpoint: Checkpoint = Checkpoint.FAST
    max_rate_kib: int | None = None
    verify_checksums: bool = True
    application_name: str = "holdfast"
    tls_root_certificate: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    connect_timeout_seconds: int = 10
    query_seconds_max: float = 60.0
    checkpoint_seconds_max: float = 3600.0
    silence_seconds_max: float = 300.0
    databases: tuple[str, ...] = ()
    jobs: int = 2
    programs: Path | None = None
    witness_bytes_max: int | None = None
    witness_share: float = 0.1

    def __post_init__(self) -> None:
        low, high = MAX_RATE_KIB_RANGE
        if self.max_rate_kib is not None and not low <= self.max_rate_kib <= high:
            raise ConfigInvalid(
                f"max rate of {self.max_rate_kib} KiB/s is out of range",
                hint=f"PostgreSQL accepts {low} to {high} KiB/s; leave it out for no limit.",
            )
        if not 1 <= self.jobs <= JOBS_MAX:
            raise ConfigInvalid(f"jobs is {self.jobs}", hint=f"Between 1 and {JOBS_MAX} tables are read at a time.")
        for name in ("connect_timeout_seconds", "query_seconds_max", "checkpoint_seconds_max", "silence_seconds_max"):
            if getattr(self, name) <= 0:
                raise ConfigInvalid(
                    f"{name} must be greater than 0", hint="Every wait has a bound; give it in seconds."
                )


def settings_from_dsn(dsn: str, password: Secret | None = None) -> PostgresSettings:
    """Return settings for a DSN, its secrets split off; an explicit ``password`` wins over one inside it.

    Raises ``ConfigInvalid`` without repeating the text, which may hold a password.
    """
    bare, secrets = split_dsn(dsn)
    inside = secrets.pop("password", None)
    return PostgresSettings(dsn=bare, password=password or inside, other_secrets=tuple(sorted(secrets.items())))


def split_dsn(dsn: str) -> tuple[str, dict[str, Secret]]:
    """Return the DSN without its secrets, and the secrets by keyword; a DSN without any is returned unchanged."""
    params = parse_dsn(dsn)
    secrets = {name: Secret(params.pop(name)) for name in SECRET_KEYWORDS if name in params}
    if not secrets:
        return dsn, {}
    from psycopg.conninfo import make_conninfo

    return make_conninfo("", **params), secrets


def parse_dsn(dsn: str) -> dict[str, str]:
    """Return the parameters a DSN names (not those of the environment). Raises ``ConfigInvalid``, showing nothing."""
    from psycopg import Error
    from psycopg.conninfo import conninfo_to_dict

    params = None
    with suppress(Error, UnicodeError):
        params = conninfo_to_dict(dsn)
    if params is None:
        # Raised outside the handler: libpq's error quotes the part it could not read, which may be the password.
        raise ConfigInvalid(
            "the PostgreSQL address cannot be read",
            hint="Write postgresql://user@host:5432/database or 'host=... user=... dbname=...'; "
            "quote values with blanks, and percent-encode special characters in a URL.",
        )
    return {name: str(value) for name, value in params.items()}


def elsewhere(settings: PostgresSettings, address: str) -> tuple[PostgresSettings, str | None]:
    """Return settings for another address, and the database it names.

    What the address leaves open (password, TLS) is as in ``settings``. Raises ``ConfigInvalid``.
    """
    bare, secrets = split_dsn(address)
    database = parse_dsn(bare).get("dbname")
    password = secrets.pop("password", settings.password)
    return replace(settings, dsn=bare, password=password, other_secrets=tuple(sorted(secrets.items()))), database


def for_maintenance(settings: PostgresSettings, database: str | None) -> PostgresSettings:
    """Return settings that connect beside ``database``: one cannot be made, renamed or dropped from within."""
    from psycopg.conninfo import make_conninfo

    beside = FALLBACK_DATABASE if database == MAINTENANCE_DATABASE else MAINTENANCE_DATABASE
    return replace(settings, dsn=make_conninfo("", **(parse_dsn(settings.dsn) | {"dbname": beside})))
