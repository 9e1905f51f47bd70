"""What a good configuration says once it is loaded."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from config_examples import SMALL, WHOLE, load, small_with

from holdfast.config.loading import load_config
from holdfast.config.settings import KubernetesQuiesce
from holdfast.model.errors import ConfigInvalid
from holdfast.model.policy import DEFAULT_POLICY
from holdfast.model.secrets import Secret
from holdfast.sources.postgres.settings import Checkpoint


def test_every_part_of_a_whole_file_is_understood() -> None:
    config = load(WHOLE, {"CHAT_URL": "slack://token"})
    assert config.application == "bookshop"
    assert config.zone is not None
    assert config.zone.key == "Europe/Kyiv"
    assert [(one.name, one.medium, one.offsite) for one in config.repositories] == [
        ("main", "object", False),
        ("disk", "disk", False),
        ("away", "object", True),
    ]
    assert config.repository("away").object_lock == timedelta(days=30)
    assert [(one.name, one.kind) for one in config.sources] == [
        ("orders", "postgres"),
        ("cache", "redis"),
        ("catalog", "search"),
        ("covers", "bucket"),
    ]
    assert config.source("orders").captures == ("physical", "logical")
    assert config.quiesce == KubernetesQuiesce("bookshop", ("web", "worker"))
    assert config.notice_urls() == (Secret("mailto://ops@example.org"), Secret("slack://token"))


def test_the_first_repository_is_the_one_that_is_backed_up_to() -> None:
    assert load(WHOLE).repository().name == "main"
    assert load(WHOLE).store_settings().region == "eu-central-1"


def test_a_small_file_gets_the_defaults() -> None:
    config = load(SMALL)
    assert config.policy == DEFAULT_POLICY
    assert config.zone is None
    assert config.sources == ()
    assert config.repository().compression == 3


def test_the_written_defaults_are_the_defaults() -> None:
    assert load(WHOLE).policy == DEFAULT_POLICY


def test_a_partial_policy_merges_key_by_key_and_a_source_overrides_it() -> None:
    config = load(
        small_with("""\
policy: {full: {keep: 60d}, copies: 2}
sources:
  orders: {kind: postgres, policy: {full: {schedule: "0 3 * * sun"}, log: {rpo: 1m}, copies: 4}}
  other: {kind: postgres}
""")
    )
    orders = config.source("orders").policy
    assert orders.full.keep == timedelta(days=60)
    assert orders.full.schedule.text == "0 3 * * sun"
    assert orders.full.rto == DEFAULT_POLICY.full.rto
    assert (orders.log.rpo, orders.log.flush) == (timedelta(minutes=1), timedelta(seconds=5))
    assert (orders.copies, config.policy.copies) == (4, 2)
    assert config.source("other").policy == config.policy


def test_settings_of_a_postgres_source_carry_everything_but_the_secret_in_sight() -> None:
    config = load(
        small_with("""\
sources:
  orders:
    kind: postgres
    dsn: host=db.internal user=backup
    password: {env: ORDERS_PASSWORD}
    tls: {ca: tls/ca.pem, cert: /tls/cert.pem, key: ~/key.pem}
    checkpoint: spread
    max_rate: 64MiB/s
    capture: [logical]
    logical: {databases: [shop, "odd name"], jobs: 3, programs: /opt/postgres/bin, digest_max: 20GiB}
"""),
        {"ORDERS_PASSWORD": "hunter2", "HOME": "/home/backup"},
    )
    settings = config.source_settings("orders")
    assert settings.dsn == "host=db.internal user=backup"
    assert settings.password == Secret("hunter2")
    assert settings.checkpoint is Checkpoint.SPREAD
    assert settings.max_rate_kib == 64 * 1024
    assert settings.databases == ("shop", "odd name")
    assert (settings.jobs, settings.programs) == (3, Path("/opt/postgres/bin"))
    assert settings.witness_bytes_max == 20 << 30
    assert settings.tls_root_certificate == Path("/etc/holdfast/tls/ca.pem")
    assert settings.tls_certificate == Path("/tls/cert.pem")
    assert settings.tls_key == Path("/home/backup/key.pem")
    assert "hunter2" not in f"{settings}{config!r}"


def test_settings_of_a_store_carry_its_keys() -> None:
    config = load(
        """\
application: bookshop
keys: {file: holdfast.key}
repositories:
  main:
    url: s3://bookshop-backups/holdfast/
    endpoint: http://127.0.0.1:5000
    path_style: true
    access_key: {env: ID}
    secret_key: {clear: very-secret}
""",
        {"ID": "AKIA"},
    )
    settings = config.store_settings("main")
    assert settings.url == "s3://bookshop-backups/holdfast"
    assert settings.endpoint == "http://127.0.0.1:5000"
    assert settings.path_style is True
    assert settings.access_key == Secret("AKIA")
    assert settings.secret_key == Secret("very-secret")
    assert config.key_file() == Path("/etc/holdfast/holdfast.key")
    assert config.passphrase() is None


def test_keys_of_a_store_may_rotate_while_it_is_open(tmp_path: Path) -> None:
    for name in ("id", "key"):
        (tmp_path / name).write_text("old\n")
    config = load(
        """\
application: bookshop
keys: {file: holdfast.key}
repositories: {main: {url: "s3://bookshop", access_key: {file: id}, secret_key: {file: key}}}
""",
        path=tmp_path / "holdfast.yaml",
    )
    secret_key = config.store_settings().secret_key
    (tmp_path / "key").write_text("new\n")
    assert secret_key is not None
    assert secret_key.reveal() == "new"


def test_a_missing_passphrase_variable_is_a_usage_error_that_names_it() -> None:
    with pytest.raises(ConfigInvalid, match="HOLDFAST_PASSPHRASE is not set") as refused:
        load(SMALL).passphrase()
    assert refused.value.exit_code == 2


def test_a_secret_that_is_missing_for_one_source_does_not_stop_another() -> None:
    config = load(
        small_with("""\
sources:
  one: {kind: postgres, password: {env: NOT_THERE}}
  two: {kind: postgres, dsn: dbname=two}
""")
    )
    assert config.source_settings("two").dsn == "dbname=two"
    with pytest.raises(ConfigInvalid, match="the password of source one is missing"):
        config.source_settings("one")


def test_kinds_of_later_releases_are_valid_and_refused_only_when_asked_for() -> None:
    config = load(WHOLE)
    for name in ("cache", "catalog", "covers"):
        with pytest.raises(ConfigInvalid, match="cannot back up yet"):
            config.source_settings(name)


def test_an_unknown_name_is_refused_with_the_near_one() -> None:
    with pytest.raises(ConfigInvalid, match="no source ordres") as refused:
        load(WHOLE).source_settings("ordres")
    assert 'did you mean "orders"?' in refused.value.hint
    with pytest.raises(ConfigInvalid, match="no repository tape") as refused:
        load(WHOLE).store_settings("tape")
    assert "main, disk, away" in refused.value.hint


def test_names_that_yaml_would_read_as_something_else_are_names() -> None:
    config = load(small_with("sources: {on: {kind: postgres}, 2024: {kind: postgres}, no: {kind: postgres}}\n"))
    assert [source.name for source in config.sources] == ["on", "2024", "no"]


def test_a_folder_may_be_written_as_a_path() -> None:
    assert load(SMALL.replace("file:///srv/backups", "/srv//backups/")).repository().url == "file:///srv/backups"


def test_a_file_is_read_from_where_it_is_found(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(SMALL)
    assert load_config(path, {}).path == path
    assert load_config(None, {"HOLDFAST_CONFIG": str(path)}).path == path


def test_the_room_itself_imports_neither_pydantic_nor_yaml() -> None:
    program = (
        "import sys, holdfast.config, holdfast.config.location, holdfast.model.moments\n"
        "sys.exit(bool({'pydantic', 'yaml', 'psycopg'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": ":".join(sys.path)}, check=True)


def test_loading_a_configuration_imports_no_database_driver() -> None:
    program = "import sys, holdfast.config.loading\nsys.exit(bool({'psycopg', 'obstore'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": ":".join(sys.path)}, check=True)
