"""Judges what a server says: each fact becomes a finding with what to do about it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.sources.port import Finding, Severity
from holdfast.sources.postgres.probe_facts import ServerView
from holdfast.sources.postgres.roles import FILE_BYTES, access_line, complete_role, create_role
from holdfast.sources.postgres.server import MAJOR_FIRST, MAJOR_LAST

CLOCK_OFFSET_SECONDS_MAX = 2.0
"""A clock that is further off makes `--at TIME` land elsewhere than the operator means."""

OK, NOTICE, WARNING, BROKEN = Severity.OK, Severity.NOTICE, Severity.WARNING, Severity.BROKEN

_IN_PLACE_SENT = 16
"""Before this version, a base backup leaves in-place tablespaces out without a word."""


def judge(view: ServerView) -> tuple[Finding, ...]:
    """Return every finding about a server that answers SQL, in the order people read them."""
    judges = (
        _version,
        _managed,
        _role,
        _transport,
        _log,
        _clock,
        _checksums,
        _durability,
        _archiving,
        _layout,
        _configuration,
        _tablespaces,
        _content,
        _extras,
    )
    return tuple(finding for one in judges for finding in one(view))


def replication_finding(role: str, client: str | None, *, encrypted: bool, physical: bool) -> Finding:
    """Return what is said about the way in for base backups, once one was found."""
    if physical:
        return Finding("replication", OK, f"a replication connection works for role {role}")
    line = access_line(role, client, encrypted=encrypted)
    return Finding(
        "replication",
        NOTICE,
        "pg_hba.conf has no line for replication; backups go through database postgres, which works as well",
        f"to have the usual way in, add to pg_hba.conf and reload: {line}",
    )


def _version(view: ServerView) -> Iterator[Finding]:
    shown = view.settings.get("server_version", str(view.version_num))
    if MAJOR_FIRST <= view.version_num // 10000 <= MAJOR_LAST:
        yield Finding("version", OK, f"PostgreSQL {shown}")
    else:
        hint = f"holdfast was tried with {MAJOR_FIRST} to {MAJOR_LAST}; upgrade the server, or use `pg_dump` meanwhile"
        yield Finding("version", BROKEN, f"PostgreSQL {shown} is not supported", hint)


def _managed(view: ServerView) -> Iterator[Finding]:
    if view.managed is None:
        return
    severity = NOTICE if view.replication or view.superuser else BROKEN
    yield Finding(
        "service",
        severity,
        f"this looks like {view.managed}: such a service offers no base backups over the replication protocol",
        "keep the service's own snapshots, and protect this source logically (capture: [logical])",
    )


def _role(view: ServerView) -> Iterator[Finding]:
    if view.superuser:
        yield Finding(
            "privileges",
            NOTICE,
            f"role {view.role} is a superuser: far more than a backup needs",
            f"a minimal role is enough: {create_role()}",
        )
    elif view.replication:
        yield Finding("privileges", OK, f"role {view.role} has REPLICATION: enough for backups")
    else:
        yield Finding(
            "privileges",
            BROKEN,
            f"role {view.role} lacks the REPLICATION attribute: no base backups",
            f"run as a superuser: {complete_role(view.role)}",
        )


def _transport(view: ServerView) -> Iterator[Finding]:
    if view.encrypted is False and not view.local:
        yield Finding(
            "transport",
            NOTICE,
            f"the connection from {view.client} is not encrypted: the whole database crosses the network in clear",
            "set ssl = on on the server, and sslmode=verify-full with sslrootcert in this source's address",
        )
    elif view.encrypted:
        yield Finding("transport", OK, "the connection is encrypted")


def _log(view: ServerView) -> Iterator[Finding]:
    level = view.settings.get("wal_level", "")
    if level == "minimal":
        hint = "set wal_level = replica and restart the server"
        yield Finding("log", BROKEN, "wal_level is minimal: base backups are impossible", hint)
    elif level:
        yield Finding("log", OK, f"wal_level is {level}")
    for topic, setting, used, what in (
        ("wal senders", "max_wal_senders", view.senders_used, "every base backup needs one WAL sender"),
        ("slots", "max_replication_slots", view.slots_used, "every base backup holds its log with a temporary slot"),
    ):
        yield from _capacity(view, topic, setting, used, what)
    limit = view.settings.get("max_slot_wal_keep_size")
    if limit == "-1":
        message = "max_slot_wal_keep_size is unlimited: a slot nobody reads can fill the server's disk"
        yield Finding("slots", NOTICE, message, "watch the slots, or set a limit well above the log of a day")
    elif limit is not None:
        message = f"max_slot_wal_keep_size is {limit}: a backup during which more log is written fails"
        yield Finding("slots", NOTICE, message, "it should exceed the log that the server writes during a backup")


def _capacity(view: ServerView, topic: str, setting: str, used: int | None, what: str) -> Iterator[Finding]:
    limit = view.settings.get(setting, "")
    if not limit.isdigit():
        return
    free = int(limit) - (used or 0)
    if free < 1:
        message = f"{setting} is {limit} and {used or 0} are in use: {what}"
        yield Finding(topic, BROKEN, message, f"raise {setting} and restart the server, or end what is not needed")
    elif used is None:
        yield Finding(topic, OK, f"{setting} is {limit} (how many are in use cannot be seen)")
    else:
        yield Finding(topic, OK, f"{free} of {limit} ({setting}) are free")


def _clock(view: ServerView) -> Iterator[Finding]:
    offset = view.clock_offset_seconds
    if offset is None:
        return
    told = f"the server's clock is {abs(offset):.3f} s {'ahead of' if offset > 0 else 'behind'} ours"
    if abs(offset) - view.clock_doubt_seconds > CLOCK_OFFSET_SECONDS_MAX:
        hint = "run a time service (chrony, systemd-timesyncd) on both machines; a restore to a time follows the server"
        yield Finding("clock", WARNING, told, hint)
    else:
        yield Finding("clock", OK, f"{told} (known to {view.clock_doubt_seconds:.3f} s)")


def _checksums(view: ServerView) -> Iterator[Finding]:
    state = view.settings.get("data_checksums")
    if state == "on":
        yield Finding("checksums", OK, "data checksums are on: every page is verified while it is backed up")
    elif state == "off":
        yield Finding(
            "checksums",
            WARNING,
            "data checksums are off: nothing is verified, damage in pages goes into every backup unseen",
            "stop the server once and run pg_checksums --enable",
        )


def _durability(view: ServerView) -> Iterator[Finding]:
    if view.settings.get("full_page_writes") == "off":
        yield Finding(
            "durability",
            WARNING,
            "full_page_writes is off: a crash can tear pages beyond repair, and standbys cannot be backed up",
            "set full_page_writes = on and reload, unless the file system guarantees whole pages (ZFS)",
        )
    if view.in_recovery:
        yield Finding(
            "standby",
            NOTICE,
            "this server is a standby: backups work, but one that is running fails when it is promoted",
            "name the primary too (several hosts in the address) where its load allows it",
        )


def _archiving(view: ServerView) -> Iterator[Finding]:
    if view.archiver_failed_on is not None:
        yield Finding(
            "archiving",
            WARNING,
            f"the server's archive_command fails (last on {view.archiver_failed_on}): its log piles up",
            "read the server's log and repair it, or set archive_mode = off if nothing needs that archive",
        )
    elif view.settings.get("archive_mode", "off") != "off":
        empty = view.settings.get("archive_command") == "" and not view.settings.get("archive_library")
        if empty:
            message = "archive_mode is on without an archive_command: the log piles up on the server"
            yield Finding("archiving", WARNING, message, "set an archive_command, or archive_mode = off")
        else:
            message = "the server archives its log itself; holdfast takes what it needs along and does not touch that"
            yield Finding("archiving", NOTICE, message, "nothing to do; a restored copy does not archive")


def _layout(view: ServerView) -> Iterator[Finding]:
    named = (
        ("block_size", "blocks of {} bytes"),
        ("wal_segment_size", "log segments of {}"),
        ("data_directory_mode", "data folder with mode {}"),
    )
    facts = [words.format(view.settings[name]) for name, words in named if name in view.settings]
    if facts:
        yield Finding("layout", OK, ", ".join(facts))
    if view.settings.get("block_size", "8192") != "8192":
        yield Finding(
            "layout",
            NOTICE,
            f"blocks of {view.settings['block_size']} bytes: only the server itself verifies pages, we know 8192",
            "nothing to do; this is decided when PostgreSQL is built",
        )


def _configuration(view: ServerView) -> Iterator[Finding]:
    config, data = view.settings.get("config_file"), view.settings.get("data_directory")
    if config is None or data is None:
        yield Finding(
            "configuration",
            NOTICE,
            "whether configuration lies outside the data folder cannot be seen by this role",
            "GRANT pg_monitor shows it; what lies outside is kept beside the backup as far as the role may read it",
        )
    elif not config.startswith(data.rstrip("/") + "/"):
        kept = "byte for byte" if view.may_read_files else "parsed"
        yield Finding(
            "configuration",
            NOTICE,
            f"{config} lies outside the data folder: it is kept beside the backup, {kept}",
            "a restored folder gets minimal files"
            + ("" if view.may_read_files else f"; for the bytes: {FILE_BYTES.statements(view.role)}")
            + ("" if view.may_read_files else " (this lets the role read ANY file that the server can read)"),
        )
    else:
        yield Finding("configuration", OK, "the configuration lies in the data folder and is in every backup")


def _tablespaces(view: ServerView) -> Iterator[Finding]:
    in_place = [name for name, location in view.tablespaces if not location.startswith("/")]
    if in_place and view.version_num // 10000 < _IN_PLACE_SENT:
        yield Finding(
            "tablespaces",
            BROKEN,
            f"in-place tablespaces ({', '.join(in_place)}): PostgreSQL 15 leaves them out of base backups silently",
            "move their tables elsewhere (ALTER TABLE ... SET TABLESPACE) and drop them, or upgrade",
        )
    elif in_place:
        message = f"in-place tablespaces ({', '.join(in_place)}) become folders beside the target in a restore"
        yield Finding("tablespaces", NOTICE, message, "nothing to do; they are meant for tests")
    outside = [f"{name} ({location})" for name, location in view.tablespaces if location.startswith("/")]
    if outside:
        yield Finding("tablespaces", OK, f"backed up too: {', '.join(outside)}")


def _content(view: ServerView) -> Iterator[Finding]:
    if view.size_bytes is not None:
        unseen = f" ({view.databases_unseen} databases not counted)" if view.databases_unseen else ""
        hint = "GRANT pg_monitor lets the role see every size" if view.databases_unseen else ""
        severity = NOTICE if view.databases_unseen else OK
        yield Finding("size", severity, f"databases of {view.size_bytes / 1024**2:.0f} MiB{unseen}", hint)
    if view.collations_changed:
        yield Finding(
            "collations",
            WARNING,
            f"the machine's collations changed since these databases were made: {', '.join(view.collations_changed)}",
            "indexes on text may be out of order: REINDEX them, then ALTER DATABASE ... REFRESH COLLATION VERSION",
        )
    if view.unlogged:
        yield Finding(
            "unlogged tables",
            NOTICE,
            f"{view.unlogged} unlogged tables in database {view.database}: they are empty after a restore",
            "ALTER TABLE ... SET LOGGED for those whose content matters (other databases were not looked at)",
        )


def _extras(view: ServerView) -> Iterator[Finding]:
    if view.superuser:
        return
    for extra in view.missing:
        message = f"optional: without {extra.name}, {extra.purpose}"
        yield Finding("privileges", NOTICE, message, f"run as a superuser: {extra.statements(view.role)}")
