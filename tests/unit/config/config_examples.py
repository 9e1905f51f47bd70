"""Configurations that the tests of this folder start from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from holdfast.config.loading import config_from_text
from holdfast.config.settings import Config
from holdfast.model.errors import ConfigInvalid

PATH = Path("/etc/holdfast/holdfast.yaml")

WHOLE = """\
application: bookshop
timezone: Europe/Kyiv
repositories:
  main:  {url: "s3://bookshop-backups/holdfast", region: eu-central-1}
  disk:  {url: "file:///srv/backups", medium: disk}
  away:  {url: "s3://bookshop-elsewhere/holdfast", region: eu-west-1, offsite: true, object_lock: 30d}
keys: {passphrase: {env: HOLDFAST_PASSPHRASE}}
sources:
  orders:  {kind: postgres, dsn: "host=db.internal user=backup dbname=shop", capture: [physical, logical]}
  cache:   {kind: redis, url: "redis://cache.internal:6379"}
  catalog:
    kind: search
    url: "http://search.internal:9200"
    indices: [books, authors]
    snapshots: {type: s3, bucket: bookshop-backups, base_path: search}
  covers:  {kind: bucket, url: "s3://bookshop-covers", replicate_to: "s3://bookshop-covers-copy"}
policy:
  full:        {schedule: weekly,  keep: 30d, rto: 4h,  rpo: 24h}
  incremental: {schedule: daily,   keep: 14d, rto: 2h,  rpo: 24h}
  log:         {follow: true, flush: 5s, keep: 7d, rto: 15m, rpo: 15m}
  snapshot:    {schedule: hourly,  keep: 48h, rto: 30m, rpo: 1h}
  drill:       {schedule: daily}
  copies: 3
  media: 2
  offsite: 1
restore:
  quiesce: {kubernetes: {namespace: bookshop, deployments: [web, worker]}}
notify: ["mailto://ops@example.org", {env: CHAT_URL}]
"""

SMALL = """\
application: bookshop
repositories: {main: {url: "file:///srv/backups"}}
keys: {passphrase: {env: HOLDFAST_PASSPHRASE}}
"""


def load(text: str, environment: Mapping[str, str] | None = None, path: Path = PATH) -> Config:
    """Load a text as if it were the file at ``path``."""
    return config_from_text(text, path, environment or {})


def small_with(more: str) -> str:
    """Return the smallest configuration with more lines below it."""
    return SMALL + more


def refusal_of(text: str) -> str:
    """Return the message with which a text is refused."""
    with pytest.raises(ConfigInvalid) as refused:
        load(text)
    return refused.value.message
