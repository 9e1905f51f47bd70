"""What may stand in the file: every key, its form and its default. The JSON Schema and the reference come from here."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from holdfast.config.fields import (
    EXPLAINED,
    Application,
    BucketAddress,
    Duration,
    Name,
    NoticeTarget,
    PostgresAddress,
    Rate,
    RedisAddress,
    RepositoryUrl,
    ScheduleText,
    SearchAddress,
    SecretField,
    Size,
    Zone,
)
from holdfast.sources.postgres.settings import JOBS_MAX

Text = Annotated[str, Field(min_length=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", arbitrary_types_allowed=True)


class RepositorySection(_Section):
    """A place where backups are kept. The first one is backed up to; the others get copies."""

    url: RepositoryUrl
    """Where it lies: a folder (`file:///...`), or a bucket and a prefix in it (`s3://`, `gs://`, `az://`)."""
    region: Text | None = None
    """The bucket's region; else what the environment says."""
    endpoint: Text | None = None
    """Address of an S3-compatible service, such as `https://minio.internal:9000`."""
    path_style: bool | None = None
    """Put the bucket's name into the path of requests, as most S3-compatible services want."""
    profile: Text | None = None
    """Profile of `~/.aws/config` and `~/.aws/credentials`."""
    access_key: SecretField | None = None
    """Access key id; beside `secret_key`. Without both, `AWS_*`, `profile` or the machine's role is used."""
    secret_key: SecretField | None = None
    """Secret access key; beside `access_key`."""
    medium: Name | None = None
    """Kind of medium, counted for the 3-2-1 rule; `disk` for folders and `object` for buckets unless told."""
    offsite: bool = False
    """It lies at another place than the servers it protects."""
    object_lock: Duration | None = None
    """How long the bucket itself refuses to delete what was written (S3 Object Lock)."""
    compression: Annotated[int, Field(ge=1, le=19)] = 3
    """zstd level, from fast to small."""


class KeysSection(_Section):
    """What opens the repositories; at least one of the two."""

    passphrase: SecretField | None = None
    """The passphrase."""
    file: Text | None = None
    """Path of a key file."""

    @model_validator(mode="after")
    def _opens_something(self) -> Self:
        if self.passphrase is None and self.file is None:
            sentence = "nothing opens the repositories; write passphrase: {env: HOLDFAST_PASSPHRASE}, or file: PATH"
            raise PydanticCustomError(EXPLAINED, "{sentence}", {"sentence": sentence})
        return self


class TlsSection(_Section):
    """Certificates in PEM form; paths begin at the configuration's folder."""

    ca: Text | None = None
    """Certificates of the authorities that are trusted."""
    cert: Text | None = None
    """Our own certificate; beside `key`."""
    key: Text | None = None
    """Its private key; beside `cert`."""


class TierSection(_Section):
    """A tier of backups; what is left out keeps its default."""

    schedule: ScheduleText | None = None
    """When: `hourly`, `daily`, `weekly`, `monthly`, `never`, or five cron fields."""
    keep: Duration | None = None
    """How long each backup is kept."""
    rto: Duration | None = None
    """How long a restore may take (objective)."""
    rpo: Duration | None = None
    """How much time may be lost (objective)."""


class LogSection(_Section):
    """The change log of sources that have one; what is left out keeps its default."""

    follow: bool | None = None
    """Follow it continuously."""
    flush: Duration | None = None
    """Store at the latest when the oldest change that is not stored is this old."""
    keep: Duration | None = None
    """How far back any moment can be reached."""
    rto: Duration | None = None
    """How long a restore may take (objective)."""
    rpo: Duration | None = None
    """How much time may be lost (objective)."""


class DrillSection(_Section):
    """Restores tried for real."""

    schedule: ScheduleText | None = None
    """When: as for backups."""


class PolicySection(_Section):
    """Schedules, retention and objectives; what is left out keeps its default."""

    full: TierSection | None = None
    """Backups that read everything and take no hint from earlier ones."""
    incremental: TierSection | None = None
    """Backups that compare with the last one first; each restores alone, too."""
    log: LogSection | None = None
    """The change log between backups."""
    snapshot: TierSection | None = None
    """Backups of sources that have no tiers: search clusters, buckets, Redis."""
    drill: DrillSection | None = None
    """Restores tried for real."""
    copies: Annotated[int, Field(ge=1, le=16)] | None = None
    """How many repositories hold each backup (the 3 of 3-2-1)."""
    media: Annotated[int, Field(ge=1, le=16)] | None = None
    """On how many kinds of medium (the 2 of 3-2-1)."""
    offsite: Annotated[int, Field(ge=0, le=16)] | None = None
    """How many of them at another place (the 1 of 3-2-1)."""


class _SourceSection(_Section):
    policy: PolicySection | None = None
    """What differs from the policy of the application."""


class LogicalSection(_Section):
    """Logical backups of a PostgreSQL source; what is left out keeps its default."""

    databases: Annotated[list[Text], Field(min_length=1)] | None = None
    """The databases to back up; all without it."""
    jobs: Annotated[int, Field(ge=1, le=JOBS_MAX)] = 2
    """How many tables are read at a time."""
    programs: Text | None = None
    """Folder of `pg_dump`, `pg_restore`, `pg_dumpall` and `psql`; else the usual places and `PATH` are searched."""
    digest_max: Size | None = None
    """Tables larger than this are only counted and sampled for the witness; all are digested without it."""


class PostgresSection(_SourceSection):
    """A PostgreSQL cluster, 15 to 18, reached over the network."""

    kind: Literal["postgres"]
    """`postgres`."""
    dsn: PostgresAddress = ""
    """Anything libpq takes, without a password; what it leaves out comes from `PG*` variables and service files."""
    password: SecretField | None = None
    """The role's password; `PGPASSWORD` and `~/.pgpass` work as usual without it."""
    tls: TlsSection | None = None
    """Certificates for the connection."""
    capture: Annotated[list[Literal["physical", "logical"]], Field(min_length=1)] = ["physical"]
    """Which backups are made: of the whole cluster, of its databases as dumps, or both."""
    checkpoint: Literal["fast", "spread"] = "fast"
    """Make the checkpoint before a backup at once, or spread it to spare the server."""
    max_rate: Rate | None = None
    """The most that the server sends; no limit without it."""
    logical: LogicalSection | None = None
    """What logical backups hold and how they are made."""


class RedisSection(_SourceSection):
    """A Redis server, followed as a replica."""

    kind: Literal["redis"]
    """`redis`."""
    url: RedisAddress
    """`redis[s]://[user@]host:port`, without a password."""
    password: SecretField | None = None
    """The password of the user, or of the server."""
    tls: TlsSection | None = None
    """Certificates for the connection."""
    files: Text | None = None
    """An append-only folder (where its manifest lies) or one RDB file, where the server cannot be followed."""


class SnapshotsSection(_Section):
    """Where the search cluster itself puts its snapshots."""

    type: Literal["s3", "fs", "gcs", "azure"]
    """Kind of snapshot repository."""
    bucket: Text | None = None
    """Bucket, for `s3` and `gcs`; container, for `azure`."""
    base_path: Text | None = None
    """Prefix in the bucket."""
    location: Text | None = None
    """Folder on every node, for `fs`."""
    region: Text | None = None
    """The bucket's region."""
    endpoint: Text | None = None
    """Address of an S3-compatible service."""


class SearchSection(_SourceSection):
    """An Elasticsearch or OpenSearch cluster."""

    kind: Literal["search"]
    """`search`."""
    url: SearchAddress
    """`http[s]://[user@]host:port`, without a password."""
    password: SecretField | None = None
    """The user's password."""
    tls: TlsSection | None = None
    """Certificates for the connection."""
    indices: Annotated[list[Text], Field(min_length=1)] = ["*"]
    """Names or patterns of the indices to protect."""
    snapshots: SnapshotsSection | None = None
    """Where the cluster itself puts its snapshots."""


class BucketSection(_SourceSection):
    """A bucket of an S3-compatible service."""

    kind: Literal["bucket"]
    """`bucket`."""
    url: BucketAddress
    """`s3://bucket` or `s3://bucket/prefix`."""
    replicate_to: BucketAddress | None = None
    """Bucket that the service itself replicates to."""
    region: Text | None = None
    """The bucket's region; else what the environment says."""
    endpoint: Text | None = None
    """Address of an S3-compatible service."""
    path_style: bool | None = None
    """Put the bucket's name into the path of requests."""
    profile: Text | None = None
    """Profile of `~/.aws/config` and `~/.aws/credentials`."""
    access_key: SecretField | None = None
    """Access key id; beside `secret_key`."""
    secret_key: SecretField | None = None
    """Secret access key; beside `access_key`."""


SourceSection = Annotated[PostgresSection | RedisSection | SearchSection | BucketSection, Field(discriminator="kind")]


class KubernetesSection(_Section):
    """Deployments that are scaled to zero while a live system is replaced, and back afterwards."""

    namespace: Text
    """Namespace of the deployments."""
    deployments: Annotated[list[Text], Field(min_length=1)]
    """Names of the deployments."""


class QuiesceSection(_Section):
    """What is stopped while a live system is replaced."""

    kubernetes: KubernetesSection | None = None
    """Deployments in Kubernetes."""


class RestoreSection(_Section):
    """What restores need to know."""

    quiesce: QuiesceSection | None = None
    """What is stopped while a live system is replaced."""


class FileSection(_Section):
    """The configuration of holdfast: one application, its sources, and where their backups are kept."""

    application: Application
    """Name of the application that is protected as a whole."""
    timezone: Zone | None = None
    """Zone of times that are written without one; without it such times are refused."""
    repositories: Annotated[dict[Name, RepositorySection], Field(min_length=1)]
    """Places where backups are kept, by name."""
    keys: KeysSection
    """What opens the repositories."""
    sources: dict[Name, SourceSection] = {}
    """Systems that the application is made of, by name."""
    policy: PolicySection | None = None
    """Schedules, retention and objectives; every source may override any of them."""
    restore: RestoreSection | None = None
    """What restores need to know."""
    notify: list[NoticeTarget] = []
    """Where notices go: Apprise URLs, in clear or as secrets."""
