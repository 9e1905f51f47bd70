"""Keeps the server's configuration beside the data: parsed always, byte for byte where the role may read it."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field

from holdfast.model.documents import JsonObject, JsonValue, encode_document
from holdfast.model.errors import Denied, SourceFailed, Unavailable
from holdfast.sources.port import BESIDE_PREFIX, Entry
from holdfast.sources.postgres.connection import Row, Session
from holdfast.sources.postgres.recovery import MINIMUM_SETTINGS

FOLDER = f"{BESIDE_PREFIX}settings"
FORMAT = 1

FILE_BYTES_MAX = 4 * 1024 * 1024
"""A configuration file beyond this is not kept byte for byte."""
FILES_MAX = 200
"""Configuration files kept byte for byte; those beyond are told."""

SHOWN = (*MINIMUM_SETTINGS, "wal_level", "max_replication_slots", "wal_log_hints", "track_commit_timestamp")
"""What even a role without any privilege sees, asked one by one where there is no SQL."""

# What this session set itself, or what belongs to a role or database, is not the server's configuration.
_SETTINGS = """
SELECT name, current_setting(name, true), setting, unit, source, sourcefile, sourceline::text, pending_restart::text
FROM pg_settings ORDER BY name"""
_CONFIGURED = ("configuration file", "command line", "environment variable", "global")
_FILE_SETTINGS = """
SELECT sourcefile, sourceline::text, name, setting, applied::text, error FROM pg_file_settings ORDER BY seqno"""
_HBA_RULES = """
SELECT to_jsonb(rules) ->> 'file_name', line_number::text, to_jsonb(rules)::text FROM pg_hba_file_rules rules"""
_IDENT_RULES = """
SELECT to_jsonb(rules) ->> 'file_name', line_number::text, to_jsonb(rules)::text FROM pg_ident_file_mappings rules"""
_COLLATIONS = """
SELECT DISTINCT provider, version FROM (
  SELECT datlocprovider, pg_database_collation_actual_version(oid) FROM pg_database
  UNION SELECT collprovider, pg_collation_actual_version(oid) FROM pg_collation WHERE collversion IS NOT NULL
) AS used (letter, version),
LATERAL (SELECT CASE letter WHEN 'c' THEN 'libc' WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' END) AS named (provider)
WHERE version IS NOT NULL AND provider IS NOT NULL ORDER BY 1, 2"""
_READ_FILE = "SELECT encode(pg_read_binary_file($1, 0, $2::bigint), 'hex')"


@dataclass(slots=True)
class ServerSettings:
    """What was found. ``files`` are entries with their content; ``configured`` pairs of a name and what SHOW prints.

    ``files_seen`` are the paths of the configuration on the server, as far as the role sees them; ``files_kept`` those
    of which an entry holds the bytes.
    """

    files: list[tuple[Entry, bytes]] = field(default_factory=list)
    configured: tuple[tuple[str, str], ...] = ()
    collations: tuple[tuple[str, str], ...] = ()
    server_encoding: str | None = None
    files_seen: tuple[str, ...] = ()
    files_kept: tuple[str, ...] = ()


def read_server_settings(replication: Session, sql: Session | None) -> ServerSettings:
    """Read what the role may see. Nothing here costs a backup: what cannot be read is left out."""
    found = ServerSettings(server_encoding=replication.show("server_encoding") if replication.may_query else None)
    shown = tuple((name, value) for name in SHOWN if (value := replication.show(name)) is not None)
    document: JsonObject = {"format": FORMAT, "shown": [list(pair) for pair in shown]}
    found.configured = shown
    if sql is not None:
        _read_by_sql(sql, found, document)
    found.files.insert(0, (Entry(f"{FOLDER}/settings.json"), encode_document(document)))
    return found


def _read_by_sql(sql: Session, found: ServerSettings, document: JsonObject) -> None:
    settings = _rows(sql, _SETTINGS) or []
    values = {str(row[0]): row[1] for row in settings}
    configured = {str(row[0]): row[1] for row in settings if row[4] in _CONFIGURED and row[1] is not None}
    found.configured = tuple(sorted({**dict(found.configured), **configured}.items()))
    found.server_encoding = values.get("server_encoding") or found.server_encoding
    found.collations = tuple((str(row[0]), str(row[1])) for row in _rows(sql, _COLLATIONS) or [])
    file_settings, hba_rules, ident_rules = (_rows(sql, query) for query in (_FILE_SETTINGS, _HBA_RULES, _IDENT_RULES))
    document["settings"] = _documents(settings, "name shown setting unit source file line pending_restart")
    document["file_settings"] = _documents(file_settings, "file line name setting applied error")
    document["hba_rules"] = _documents(hba_rules, "file line rule")
    document["ident_rules"] = _documents(ident_rules, "file line rule")
    named = [values.get(name) for name in ("config_file", "hba_file", "ident_file")]
    parsed = [row[0] for rows in (file_settings, hba_rules, ident_rules) for row in rows or []]
    found.files_seen = tuple(dict.fromkeys(path for path in (*named, *parsed) if path))
    document["files"] = _keep_files(sql, found, values.get("data_directory"), values.get("config_file"))


def _keep_files(sql: Session, found: ServerSettings, data_folder: str | None, config_file: str | None) -> JsonValue:
    """Keep the bytes of what lies outside the data folder; what lies inside is in the backup anyway."""
    outside = [path for path in found.files_seen if data_folder is None or not _inside(path, data_folder)]
    base = posixpath.dirname(config_file) if config_file else None
    places: dict[str, str] = {}
    for path in outside[:FILES_MAX]:
        content = _read_file(sql, path)
        if content is None:
            continue
        place = f"{FOLDER}/{_place(path, base)}"
        if place in places.values() or place == f"{FOLDER}/settings.json":
            place = f"{FOLDER}/files{path}"
        places[path] = place
        found.files.append((Entry(place), content))
    found.files_kept = tuple(places)
    return [{"path": path, "entry": places.get(path)} for path in outside]


def _place(path: str, base: str | None) -> str:
    if base and _inside(path, base):
        return posixpath.relpath(path, base)
    return posixpath.basename(path)


def _inside(path: str, folder: str) -> bool:
    return posixpath.normpath(path).startswith(posixpath.normpath(folder).rstrip("/") + "/")


def _read_file(sql: Session, path: str) -> bytes | None:
    rows = _rows(sql, _READ_FILE, (path, str(FILE_BYTES_MAX + 1)))
    if not rows or rows[0][0] is None:
        return None
    content = bytes.fromhex(rows[0][0])
    return content if len(content) <= FILE_BYTES_MAX else None


def _rows(sql: Session, statement: str, params: tuple[str, ...] = ()) -> list[Row] | None:
    """Return rows, None where the role may not ask or this version does not know."""
    try:
        return sql.query(statement, params)
    except (Denied, SourceFailed, Unavailable):
        return None


def _documents(rows: list[Row] | None, names: str) -> JsonValue:
    if rows is None:
        return None
    return [dict(zip(names.split(), row, strict=True)) for row in rows]
