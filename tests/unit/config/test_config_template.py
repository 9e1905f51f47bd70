"""The file that init writes says what was answered, and nothing that should stay secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_examples import load
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.config.answers import (
    DEFAULT_PASSPHRASE,
    SourceFound,
    detected_sources,
    password_variable,
    repository_answers,
    source_found,
)
from holdfast.config.secret_references import SecretReference
from holdfast.config.settings import Config
from holdfast.config.template import Answers, RepositoryAnswer, SourceAnswer, render_config
from holdfast.model.errors import ConfigInvalid
from holdfast.model.policy import DEFAULT_POLICY
from holdfast.model.secrets import Secret

FOLDER = Path("/srv/shop")


def _answers_of(config: Config) -> Answers:
    """Read the answers back out of a loaded file."""
    sections = config.sections
    return Answers(
        application=config.application,
        repositories=tuple(
            RepositoryAnswer(name, one.url, one.region, one.endpoint, one.path_style, one.profile, one.offsite)
            for name, one in sections.repositories.items()
        ),
        sources=tuple(
            SourceAnswer(name, one.kind, one.dsn if one.kind == "postgres" else one.url, getattr(one, "password", None))
            for name, one in sections.sources.items()
        ),
        passphrase=sections.keys.passphrase,
        key_file=sections.keys.file,
        timezone=config.zone.key if config.zone else None,
    )


def test_a_written_file_loads_again_as_the_answers() -> None:
    answers = Answers(
        application="shop",
        repositories=repository_answers(
            ["/srv/backups", "away=s3://b/p?region=eu&endpoint=http://h:9000&path_style=true&offsite=true"], FOLDER
        ),
        sources=tuple(
            source_found(text).answer
            for text in (
                "orders=postgresql://me:pw@db/shop?sslmode=require",
                "other=host=/run/pg dbname='my shop'",
                "cache=rediss://cache:6379",
                "catalog=https://me:pw@search:9200",
                "uploads=s3://shop-storage",
            )
        ),
        passphrase=SecretReference(file="/etc/holdfast/pass phrase"),
        key_file="holdfast.key",
        timezone="Europe/Kyiv",
    )
    assert _answers_of(load(render_config(answers))) == answers


def test_a_file_without_sources_loads_with_the_default_policy() -> None:
    answers = Answers("shop", repository_answers(["backups"], FOLDER), (), DEFAULT_PASSPHRASE)
    config = load(render_config(answers))
    assert config.sources == ()
    assert config.policy == DEFAULT_POLICY
    assert config.repository().url == "file:///srv/shop/backups"


_ADDRESS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=30)
_NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,10}", fullmatch=True)


@settings(deadline=None)
@given(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,10}", fullmatch=True),
    _NAMES,
    st.sampled_from(["Europe/Kyiv", "UTC", None]),
    _ADDRESS,
    st.lists(_ADDRESS, min_size=1, max_size=3),
)
def test_any_answer_survives_being_written(
    application: str, name: str, zone: str | None, text: str, command: list[str]
) -> None:
    answers = Answers(
        application,
        (RepositoryAnswer(name, "s3://bucket", region=text, profile=text),),
        (SourceAnswer(name, "postgres", "", SecretReference(command=tuple(command))),),
        SecretReference(file=text),
        key_file=text,
        timezone=zone,
    )
    assert _answers_of(load(render_config(answers))) == answers


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("orders=postgresql://me:hunter2@db/shop", "postgresql://me@db/shop"),
        ("orders=postgresql://db/shop?password=hunter2&user=me", "postgresql://db/shop?user=me"),
        ("orders=host=db password=hunter2 dbname='my shop'", "host=db dbname='my shop'"),
        ("orders=redis://:hunter2@cache", "redis://cache"),
        ("orders=https://me:hunter2@search", "https://me@search"),
    ],
)
def test_a_password_in_an_address_is_handed_back_and_not_written(text: str, address: str) -> None:
    found = source_found(text)
    assert found.answer.address == address
    assert found.answer.password == SecretReference(env="HOLDFAST_ORDERS_PASSWORD")
    assert found.password == Secret("hunter2")
    rendered = render_config(Answers("shop", repository_answers(["/b"], FOLDER), (found.answer,), DEFAULT_PASSPHRASE))
    assert "hunter2" not in rendered
    assert "{env: HOLDFAST_ORDERS_PASSWORD}" in rendered


def test_the_variable_of_a_password_is_a_variable_for_every_name() -> None:
    assert password_variable("orders-2") == "HOLDFAST_ORDERS_2_PASSWORD"


def test_repositories_without_a_name_get_one() -> None:
    assert [one.name for one in repository_answers(["/a", "tape=/b", "/c"], FOLDER)] == ["primary", "tape", "copy3"]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["a=/x", "a=/y"], "two repositories are named a"),
        (["s3://b?reegion=eu"], "reegion is no option"),
        (["s3://b?path_style=yes"], "neither true nor false"),
        (["Main=/x"], "is not a name"),
        (["ftp://x"], "no address of a repository"),
    ],
)
def test_repositories_that_make_no_sense_are_refused(texts: list[str], words: str) -> None:
    with pytest.raises(ConfigInvalid, match=words):
        repository_answers(texts, FOLDER)


@pytest.mark.parametrize(
    "text", ["postgresql://db/shop", "orders", "orders=", "Orders=redis://x", "orders=mysql://x", "orders=hunter2"]
)
def test_sources_that_make_no_sense_are_refused_without_showing_them(text: str) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        source_found(text)
    assert "hunter2" not in refused.value.message


def test_servers_are_detected_from_the_usual_variables() -> None:
    found = detected_sources(
        {
            "PGHOST": "db.internal",
            "PGUSER": "me",
            "PGDATABASE": "my shop",
            "PGPASSWORD": "hunter2",
            "REDIS_URL": "redis://:hunter3@cache:6379",
            "ELASTICSEARCH_URL": "http://search:9200",
            "S3_BUCKET": "uploads",
        }
    )
    assert [one.answer for one in found] == [
        SourceAnswer(
            "postgres", "postgres", "host=db.internal user=me dbname='my shop'", SecretReference(env="PGPASSWORD")
        ),
        SourceAnswer("redis", "redis", "redis://cache:6379", SecretReference(env="HOLDFAST_REDIS_PASSWORD")),
        SourceAnswer("search", "search", "http://search:9200"),
        SourceAnswer("bucket", "bucket", "s3://uploads"),
    ]
    assert found[1].password == Secret("hunter3")


def test_a_service_or_a_url_names_the_database_too() -> None:
    assert detected_sources({"PGSERVICE": "shop"})[0].answer.address == "service=shop"
    assert detected_sources({"DATABASE_URL": "postgres://me@db/shop"})[0].answer.address == "postgres://me@db/shop"


def test_the_first_of_two_variables_for_one_kind_is_taken() -> None:
    found = detected_sources({"PGHOST": "one", "DATABASE_URL": "postgres://two/shop"})
    assert [one.answer.address for one in found] == ["host=one"]


@pytest.mark.parametrize(
    "environment", [{}, {"PGUSER": "me"}, {"DATABASE_URL": "mysql://db/x"}, {"REDIS_URL": ""}, {"REDIS_URL": "cache"}]
)
def test_what_names_no_server_detects_none(environment: dict[str, str]) -> None:
    assert detected_sources(environment) == ()


def test_where_a_source_was_found_is_told() -> None:
    origins = {one.origin for one in detected_sources({"PGHOST": "db", "REDIS_URL": "redis://c"})}
    assert origins == {"PG* variables", "$REDIS_URL"}
    assert isinstance(source_found("a=redis://x"), SourceFound)
