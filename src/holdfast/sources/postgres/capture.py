"""One PostgreSQL cluster as a source: the base backup from the first question to the last proof."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from holdfast.model.documents import JsonObject, encode_document
from holdfast.model.errors import Denied, SourceFailed, Unavailable
from holdfast.sources.port import Captured, CaptureRequest, Entry, Identity, LogSink, Probe, StreamSink
from holdfast.sources.postgres import proof
from holdfast.sources.postgres.basebackup import BackupEnd, run_base_backup
from holdfast.sources.postgres.checksums import PAGE_BYTES
from holdfast.sources.postgres.connection import Session, open_replication, open_sql
from holdfast.sources.postgres.damage import assess
from holdfast.sources.postgres.details import BackupDetails, format_lsn
from holdfast.sources.postgres.in_place import SETTING, InPlaceRule
from holdfast.sources.postgres.intake import LABEL_PATH, Intake, read_label
from holdfast.sources.postgres.logical.names import WITNESS
from holdfast.sources.postgres.manifest import ManifestFacts
from holdfast.sources.postgres.server import (
    KIND,
    ServerFacts,
    read_server,
    require_same_system,
    require_supported,
)
from holdfast.sources.postgres.server_settings import ServerSettings, read_server_settings
from holdfast.sources.postgres.settings import PostgresSettings
from holdfast.sources.postgres.slot import reserve_log


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _token() -> str:
    return secrets.token_hex(8)


@dataclass(frozen=True, slots=True)
class _Evidence:
    """Everything known once the stream has ended."""

    server: ServerFacts
    configuration: ServerSettings
    intake: Intake
    end: BackupEnd
    manifest: ManifestFacts
    has_sql: bool

    @property
    def configuration_outside(self) -> bool:
        return not self.intake.has_configuration


class PostgresSource:
    """A cluster reached by the replication protocol; needs a role with REPLICATION, no file and no shell there."""

    def __init__(
        self,
        name: str,
        settings: PostgresSettings,
        *,
        now: Callable[[], datetime] = _utc_now,
        token: Callable[[], str] = _token,
    ) -> None:
        self._name = name
        self._settings = settings
        self._now = now
        self._token = token

    @property
    def kind(self) -> str:
        """The word for it."""
        return KIND

    def probe(self) -> Probe:
        """Look, change nothing."""
        from holdfast.sources.postgres.probe import probe_postgres

        return probe_postgres(self._settings)

    def capture(self, request: CaptureRequest, sink: StreamSink) -> Captured:
        """Stream a base backup with its log into ``sink`` and prove it whole.

        Both tiers read all: an incremental stores only what changed. Raises as the contract says; a page found broken
        is no error but ``damage``.
        """
        started_at, begun = self._now(), time.monotonic()
        with open_replication(self._settings) as session:
            session.stop_requested = request.stop_requested
            evidence = self._stream(session, request, sink)
            self._witness(session, evidence, sink, begun)
        details = _details(evidence)
        sink.drain()  # Only now was every page looked at.
        scanner = evidence.intake.scanner
        findings = scanner.finish(evidence.end.lsn) if scanner is not None else ()
        damage, warned = assess(findings, evidence.end, evidence.intake.start.tablespaces)
        return Captured(
            identity=evidence.server.identity,
            position=f"{format_lsn(evidence.intake.start.lsn)}..{format_lsn(evidence.end.lsn)}",
            started_at=started_at,
            ended_at=self._now(),
            details=details,
            damage=damage,
            notices=(*_notices(evidence), *warned),
        )

    def follow(
        self,
        sink: LogSink,
        stop_requested: Callable[[], bool],
        tell: Callable[[str], None],
        *,
        slot: str | None = None,
        expected: Identity | None = None,
    ) -> None:
        """Follow the log until asked to stop, holding it back on the server with ``slot``, ours alone.

        ``expected`` is the identity that the source has by its backups. Raises as the contract says.
        """
        from holdfast.sources.postgres.follow.follower import Follower, FollowOrder
        from holdfast.sources.postgres.follow.slots import slot_name

        order = FollowOrder(self._name, self._settings, slot or slot_name(self._name), expected)
        Follower(order, sink, stop_requested, tell).run()

    def _stream(self, session: Session, request: CaptureRequest, sink: StreamSink) -> _Evidence:
        require_supported(session.server_version)
        server = read_server(session)
        require_same_system(self._name, request.expected, server.identity)
        in_place = InPlaceRule(server, session.show(SETTING) == "on")
        with _sql_if_allowed(self._settings) as sql:
            asked = sql or (session if session.may_query else None)
            in_place.check_server(asked)
            configuration = read_server_settings(session, asked)
        reserved_lsn = reserve_log(session, f"holdfast_{self._token()}")
        for entry, content in configuration.files:
            stream = sink.open(entry)
            stream.write(content)
            stream.close()
        intake = Intake(sink, server, reserved_lsn, in_place)
        end = run_base_backup(session, self._settings, f"holdfast {self._name}", intake)
        manifest = intake.finish()
        proof.require_unchanged(server, read_server(session))
        proof.require_whole_log(intake, server, end)
        proof.require_manifest_agrees(manifest, server, end)
        return _Evidence(server, configuration, intake, end, manifest, asked is not None)

    def _witness(self, session: Session, evidence: _Evidence, sink: StreamSink, begun: float) -> None:
        """Put what is known of the content beside it; reads rows for a share of the time the backup took so far."""
        from holdfast.sources.postgres.witnessed.tables import Budget
        from holdfast.sources.postgres.witnessed.taking import Cluster, take_witness

        server, intake = evidence.server, evidence.intake
        cluster = Cluster(
            server=server,
            taken_at=self._now(),
            reserved_lsn=intake.reserved_lsn,
            stop_lsn=evidence.end.lsn,
            files=evidence.manifest.files,
            size_bytes=intake.size_bytes,
            sizes=intake.database_sizes,
        )
        now = time.monotonic()
        budget = Budget(now + (now - begun) * self._settings.witness_share)
        stream = sink.open(Entry(WITNESS))
        stream.write(encode_document(take_witness(session, self._settings, cluster, budget)))
        stream.close()


@contextmanager
def _sql_if_allowed(settings: PostgresSettings) -> Iterator[Session | None]:
    """Open a second, ordinary connection where the role may: it is only for what is nice to know."""
    session: Session | None = None
    try:
        session = open_sql(settings)
    except (Denied, Unavailable, SourceFailed):
        session = None
    try:
        yield session
    finally:
        if session is not None:
            session.close()


def _details(evidence: _Evidence) -> JsonObject:
    server, configuration, intake, end = evidence.server, evidence.configuration, evidence.intake, evidence.end
    details = BackupDetails(
        system_identifier=server.system_identifier,
        server_version_num=server.version_num,
        server_version=server.version,
        catalog_version=proof.read_catalog_version(intake, server),
        block_size=server.block_size,
        wal_segment_size=server.wal_segment_size,
        checksums=server.checksums,
        start_lsn=format_lsn(intake.start.lsn),
        stop_lsn=format_lsn(end.lsn),
        start_timeline=intake.start.timeline,
        stop_timeline=end.timeline,
        tablespaces=intake.start.tablespaces,
        in_recovery=server.in_recovery,
        settings=configuration.configured,
        configuration_outside=evidence.configuration_outside,
        collations=configuration.collations,
        server_encoding=configuration.server_encoding,
    )
    label = read_label(intake.kept[LABEL_PATH])
    return {
        **details.to_document(),
        "label": dict(label),
        "files": evidence.manifest.files,
        "blocks_per_segment": server.blocks_per_segment,
        "wal_ranges": [
            {"timeline": piece.timeline, "start_lsn": format_lsn(piece.start_lsn), "end_lsn": format_lsn(piece.end_lsn)}
            for piece in evidence.manifest.wal_ranges
        ],
        "configuration_files": list(configuration.files_seen),
    }


def _notices(evidence: _Evidence) -> Iterator[str]:
    server, intake = evidence.server, evidence.intake
    if server.in_recovery:
        yield (
            "taken from a standby: it ends where that standby stood, which may be behind its primary; "
            "its configuration files are the standby's"
        )
    if server.checksums is not True:
        yield "data checksums are off on the server: damage inside pages cannot be seen (pg_checksums --enable)"
    if server.block_size != PAGE_BYTES:
        yield f"pages have {server.block_size} bytes: they were not looked at, only {PAGE_BYTES} is known"
    if intake.unlogged:
        yield f"{intake.unlogged} unlogged tables and indexes will be empty after a restore"
    if not evidence.has_sql:
        yield "no SQL connection: the server's settings were kept only as far as SHOW tells them"
    elif evidence.configuration_outside and not evidence.configuration.files_kept:
        yield (
            "the server keeps its configuration outside the data folder, and this role may not read the files: kept "
            "parsed only (GRANT pg_read_server_files and EXECUTE ON FUNCTION pg_read_binary_file would keep the bytes, "
            "and let the role read any file)"
        )
