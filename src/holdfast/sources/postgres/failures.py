"""Turns what libpq and the server say into our errors, once, with a hint and without secrets."""

from __future__ import annotations

import re
from enum import StrEnum

from psycopg import pq

from holdfast.model.errors import Denied, HoldfastError, SourceFailed, Unavailable

DATA_CORRUPTED = "XX001"
QUERY_CANCELED = "57014"

ROLE_HINT = "Create it with: CREATE ROLE holdfast LOGIN REPLICATION; `holdfast doctor` prints the exact statements."
HBA_HINT = (
    "Add to pg_hba.conf: host replication USER ADDRESS scram-sha-256, and reload; "
    "a line for database postgres serves too."
)


class Refusal(StrEnum):
    """Why a connection did not come about."""

    UNREACHABLE = "unreachable"
    PASSWORD = "wrong_password"  # noqa: S105 - a reason, not a secret
    HBA = "hba"
    ROLE = "role"
    PRIVILEGE = "privilege"
    TLS = "tls"
    DATABASE = "database"
    WAL_SENDERS = "wal_senders"
    CONNECTIONS = "connections"
    NOT_READY = "not_ready"
    OTHER = "other"


# libpq gives no SQLSTATE for a failed connection, so the words decide. A server that speaks another language ends as
# OTHER, with its own words in the message.
_WORDS: tuple[tuple[Refusal, str], ...] = (
    (Refusal.PASSWORD, r"no password supplied|(password|scram) authentication failed|empty password"),
    (Refusal.HBA, r"pg_hba\.conf|(peer|ident|gssapi|sspi|certificate|ldap|pam|radius) authentication failed"),
    (Refusal.PRIVILEGE, r"to start wal ?sender|permission denied"),
    (Refusal.ROLE, r"role \S+ (does not exist|is not permitted to log in)"),
    (Refusal.DATABASE, r"database \S+ (does not exist|is not currently accepting connections)"),
    (Refusal.WAL_SENDERS, r"max_wal_senders"),
    (Refusal.CONNECTIONS, r"too many (clients|connections)|connection slots"),
    (Refusal.NOT_READY, r"database system is|not yet accepting connections"),
    (Refusal.TLS, r"\bssl\b|\btls\b|certificate"),
    (Refusal.UNREACHABLE, r"refused|timed? ?out|timeout|translate host|resolve host|no route|unreachable|no such file"),
    (Refusal.UNREACHABLE, r"reset by peer|broken pipe|closed the connection"),
)

_REFUSALS: dict[Refusal, tuple[type[HoldfastError], str]] = {
    Refusal.UNREACHABLE: (Unavailable, "Check host, port, firewall, listen_addresses, and that the server runs."),
    Refusal.PASSWORD: (Denied, "Check the password of this source, PGPASSWORD, or the password file (mode 0600)."),
    Refusal.HBA: (Denied, HBA_HINT),
    Refusal.ROLE: (Denied, ROLE_HINT),
    Refusal.PRIVILEGE: (Denied, "The role needs REPLICATION: ALTER ROLE ... REPLICATION."),
    Refusal.TLS: (Denied, "Compare sslmode and sslrootcert with what the server offers (SHOW ssl)."),
    Refusal.DATABASE: (Denied, "Name an existing database with dbname= in the address of this source."),
    Refusal.WAL_SENDERS: (
        Unavailable,
        "Every WAL sender is taken: end an unused one (pg_stat_replication) or raise max_wal_senders and restart.",
    ),
    Refusal.CONNECTIONS: (Unavailable, "Every connection is taken: raise max_connections or end idle sessions."),
    Refusal.NOT_READY: (Unavailable, "The server starts, stops or recovers; try again when it accepts connections."),
    Refusal.OTHER: (Unavailable, "Read the server's log at this time; `holdfast doctor` looks closer."),
}

_STATES: dict[str, tuple[type[HoldfastError], str]] = {
    "28000": (Denied, HBA_HINT),
    "28P01": _REFUSALS[Refusal.PASSWORD],
    "42501": (Denied, ROLE_HINT),
    "53300": _REFUSALS[Refusal.CONNECTIONS],
    "53400": (Unavailable, "Every replication slot is taken: drop an unused one or raise max_replication_slots."),
    "57P01": _REFUSALS[Refusal.NOT_READY],
    "57P02": _REFUSALS[Refusal.NOT_READY],
    "57P03": _REFUSALS[Refusal.NOT_READY],
    "53100": (SourceFailed, "The server's disk is full; make room there first."),
    QUERY_CANCELED: (SourceFailed, "Someone, or a timeout set for this role, cancelled it on the server."),
    DATA_CORRUPTED: (SourceFailed, "The server found damaged data; read its log before anything else."),
}

_PHRASES: tuple[tuple[str, str], ...] = (
    (r"wal_level|WAL level not sufficient", "Set wal_level = replica (or logical) and restart the server."),
    (r"promoted", "The standby was promoted meanwhile; run the backup again."),
    (r"WAL (file|segment)|has already been removed", "Raise max_slot_wal_keep_size (or wal_keep_size) on the server."),
    (r"too long for tar format", "The path or link target exceeds 99 bytes; shorten it: BASE_BACKUP cannot carry it."),
    (r"WAL generated with .?full_page_writes", "Set full_page_writes = on on the primary, and checkpoint."),
)


def classify(text: str) -> Refusal:
    """Return why a connection failed, from libpq's words."""
    for refusal, pattern in _WORDS:
        if re.search(pattern, text, re.IGNORECASE):
            return refusal
    return Refusal.OTHER


def refused(text: str) -> HoldfastError:
    """Return the error for a failed connection; ``text`` is libpq's, cleaned of secrets by ``clean``."""
    kind, hint = _REFUSALS[classify(text)]
    return kind(f"cannot connect to PostgreSQL: {text}", hint=hint)


def failed(result: pq.abc.PGresult, doing: str) -> HoldfastError:
    """Return the error for a command that the server answered with an error; ``doing`` says what was wanted."""
    state = sqlstate(result)
    words = primary_message(result)
    kind, hint = _STATES.get(state, (SourceFailed, "Read the server's log at this time."))
    for pattern, better in _PHRASES:
        if re.search(pattern, words, re.IGNORECASE):
            hint = better
            break
    return kind(f"{doing}: {words} ({state or 'no SQLSTATE'})", hint=hint)


def sqlstate(result: pq.abc.PGresult) -> str:
    """Return the SQLSTATE of an error or notice, empty where there is none."""
    return (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode("ascii", "replace")


def primary_message(result: pq.abc.PGresult) -> str:
    """Return the server's message in one line."""
    raw = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message
    return clean(raw or b"no message")


def clean(raw: bytes, secrets: tuple[str, ...] = ()) -> str:
    """Return libpq's or the server's words in one line, printable, with every secret blotted out."""
    text = raw.decode("utf-8", "backslashreplace")
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return " ".join(text.split())
