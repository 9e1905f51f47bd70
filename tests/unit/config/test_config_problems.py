"""What is wrong with a configuration is said with line, key, what was read and what would be right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from config_examples import PATH, SMALL, load, refusal_of, small_with
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.config.document import FILE_BYTES_MAX, NODES_MAX
from holdfast.config.loading import load_config
from holdfast.config.problems import PROBLEMS_SHOWN_MAX
from holdfast.model.errors import ConfigInvalid

LINE = 4  # the first line below the smallest configuration


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("polcy: {}", ['polcy: is not a key that is known here; did you mean "policy"?']),
        ("retention: {}", ['did you mean "policy"?']),
        ("policy: {full: {keep: 30 days}}", ["policy.full.keep:", '"30 days" is not a duration', "30d, 15m"]),
        ("policy: {full: {keep: 30}}", ["policy.full.keep:", "read 30", "a duration has a unit"]),
        ("policy: {full: {keep: 0d}}", ["policy.full.keep:", "no time at all"]),
        ("policy: {full: {kep: 30d}}", ["policy.full.kep:", 'did you mean "keep"?']),
        ("policy: {drill: {schedule: dayly}}", ["policy.drill.schedule:", '"dayly" is not a schedule', "hourly"]),
        ("policy: {log: {follow: sometimes}}", ["policy.log.follow:", '"sometimes"', "true or false"]),
        ('policy: {copies: "3"}', ["policy.copies:", 'read "3"', "whole number"]),
        ("policy: {copies: 0}", ["policy.copies:", 'read "0"', "greater than or equal to 1"]),
        ("policy: {copies: 15:30}", ["policy.copies:", 'read "15:30"']),
        ("policy: 5", ["policy:", "keys are wanted"]),
        ("timezone: Europe/Kyyiv", ["timezone:", '"Europe/Kyyiv" is not a timezone', "Europe/Kyiv"]),
        ("timezone: ../../etc/passwd", ["timezone:", "is not a timezone"]),
        ("sources: {Orders: {kind: postgres}}", ["sources.Orders:", '"Orders" is not a name', "a-z, 0-9"]),
        ("sources: {orders: {dsn: dbname=shop}}", ["sources.orders:", "kind is missing", "postgres, redis"]),
        ("sources: {orders: {kind: postgre}}", ["sources.orders:", '"postgre"', 'did you mean "postgres"?']),
        ("sources: {orders: {kind: postgres, url: x}}", ["sources.orders.url:", 'did you mean "dsn"?']),
        ("sources: {orders: {kind: postgres, dsn: hots=db}}", ["sources.orders.dsn:", "hots=", 'Did you mean "host"?']),
        ("sources: {orders: {kind: postgres, dsn: shop}}", ["sources.orders.dsn:", "cannot be read"]),
        ('sources: {orders: {kind: postgres, dsn: "redis://db"}}', ["sources.orders.dsn:", "kind redis"]),
        ("sources: {orders: {kind: postgres, capture: [fysical]}}", ["capture[0]:", '"fysical"', "physical, logical"]),
        ("sources: {orders: {kind: postgres, capture: physical}}", ["capture:", '"physical"', "a list is wanted"]),
        ("sources: {orders: {kind: postgres, capture: []}}", ["capture:", "is empty"]),
        ("sources: {orders: {kind: postgres, capture: [logical, logical]}}", ["capture:", "the same twice"]),
        ("sources: {orders: {kind: postgres, max_rate: 10MiB}}", ["max_rate:", '"10MiB" is not a rate', "64KiB/s"]),
        (
            "sources: {orders: {kind: postgres, capture: [logical], logical: {digest_max: 5 gigs}}}",
            ["digest_max:", '"5 gigs" is not a size'],
        ),
        ("sources: {orders: {kind: postgres, logical: {jobs: 2}}}", ["logical:", "write capture:"]),
        (
            "sources: {orders: {kind: postgres, capture: [logical], logical: {databases: [a, a]}}}",
            ["databases:", "the same twice"],
        ),
        ("sources: {orders: {kind: postgres, capture: [logical], logical: {jobs: 9}}}", ["jobs:", "9"]),
        ("sources: {orders: {kind: postgres, max_rate: 1KiB/s}}", ["max_rate:", "32KiB/s to 1048576KiB/s"]),
        ("sources: {orders: {kind: postgres, tls: {cert: a.pem}}}", ["tls.cert:", "write key beside it"]),
        ("sources: {cache: {kind: redis}}", ["sources.cache.url:", "is missing", "write the address"]),
        ('sources: {cache: {kind: redis, url: "http://x"}}', ["sources.cache.url:", "kind search", "redis://"]),
        ("sources: [orders]", ["sources:", "read a list", "names with keys"]),
        ("sources:", ["sources:", "has no value"]),
        ("application: again", ["application:", "written twice, first on line 1"]),
        ("policy: !!python/object:os.system {}", ["policy:", "the tag"]),
        ("policy: {<<: {}}", ["merge keys"]),
        ("policy: {? [a] : b}", ["a key is a plain word"]),
        ("restore: {quiesce: {kubernetes: {namespace: shop}}}", ["kubernetes.deployments:", "is missing"]),
    ],
)
def test_a_problem_is_named_with_its_line_its_key_and_what_would_be_right(more: str, words: list[str]) -> None:
    message = refusal_of(small_with(more))
    assert message.startswith(f"{PATH}:{LINE}: ")
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["the file is empty"]),
        ("# nothing\n", ["the file is empty"]),
        ("- a list\n", ["read a list", "keys are wanted"]),
        ("just words\n", ['read "just words"']),
        ("a: [1\n", [":2: ", "this is not YAML"]),
        ("a: 1\n---\nb: 2\n", [":2: ", "this is not YAML"]),
        ("\tapplication: shop\n", [":1: ", "this is not YAML"]),
        ("a: \x00\n", ["this is not YAML"]),
        ("a: *b\n", ["this is not YAML", "undefined alias"]),
        ("{}", ["application: is missing", "repositories: is missing", "keys: is missing", "HOLDFAST_PASSPHRASE"]),
    ],
)
def test_a_file_that_is_no_configuration_at_all_is_refused_with_its_line(text: str, words: list[str]) -> None:
    message = refusal_of(text)
    for word in words:
        assert word in message


def test_all_problems_are_listed_at_once_in_the_order_of_the_file() -> None:
    message = refusal_of("aplication: shop\nrepositories: {main: {url: 5}}\nkeys: {}\npolicy: {copies: x}\n")
    lines = message.splitlines()
    assert lines[0] == "5 problems in the configuration:"
    assert len(lines) == 6
    numbers = [int(line.split(":")[1]) for line in lines[1:]]
    assert numbers == sorted(numbers)
    for key in ("aplication", "application", "repositories.main.url", "policy.copies"):
        assert f" {key}: " in message


def test_a_flood_of_problems_is_cut_short_and_counted() -> None:
    message = refusal_of(SMALL + "".join(f"unknown_{number}: 1\n" for number in range(PROBLEMS_SHOWN_MAX + 7)))
    assert message.endswith("and 7 more")


@pytest.mark.parametrize(
    "more",
    [
        "sources: {orders: {kind: postgres, password: hunter2}}",
        "sources: {orders: {kind: postgres, password: {env: hunter2 with blanks}}}",
        "sources: {orders: {kind: postgres, password: {env: A, clear: hunter2}}}",
        "sources: {orders: {kind: postgres, password: {text: hunter2}}}",
        "sources: {orders: {kind: postgres, password: {command: hunter2}}}",
        "sources: {orders: {kind: postgres, pasword: hunter2}}",
        "sources: {orders: {kind: postgres, dsn: host=db password=hunter2}}",
        "sources: {orders: {kind: postgres, dsn: \"host=db password = 'hunter2 x'\"}}",
        'sources: {orders: {kind: postgres, dsn: "host=db password=\'hunter2"}}',
        'sources: {orders: {kind: postgres, dsn: "postgresql://me:hunter2@db/shop"}}',
        'sources: {orders: {kind: postgres, dsn: "postgresql://db/shop?password=hunter2"}}',
        'sources: {orders: {kind: postgres, dsn: "postgresql://db/shop?sslpassword=hunter2"}}',
        'sources: {orders: "postgresql://me:hunter2@db/shop"}',
        'sources: "host=db password=hunter2"',
        'sources: {cache: {kind: redis, url: "redis://:hunter2@cache"}}',
        'sources: {find: {kind: search, url: "https://me:hunter2@search:9200"}}',
        "notify: hunter2",
        "notify: [[hunter2]]",
        "policy: {copies: 'password=hunter2'}",
    ],
)
def test_a_refusal_never_shows_what_may_be_a_secret(more: str) -> None:
    message = refusal_of(small_with(more))
    assert "hunter2" not in message
    assert f":{LINE}: " in message


def test_a_bare_password_is_refused_with_the_forms_that_are_right() -> None:
    message = refusal_of(SMALL.replace("{env: HOLDFAST_PASSPHRASE}", "hunter2"))
    assert "keys.passphrase: a secret is not written here in clear" in message
    assert "{env: NAME}, {file: PATH} or {command: [PROGRAM, ARGUMENT]}; {clear: TEXT}" in message


@pytest.mark.parametrize(
    ("repositories", "words"),
    [
        ('{main: {url: "ftp://host/x"}}', ["repositories.main.url:", "ftp:// is no address of a repository", "s3://"]),
        ("{main: {url: backups}}", ["repositories.main.url:", "file:///absolute/folder"]),
        ('{main: {url: "file://backups/x"}}', ["repositories.main.url:", "absolute path"]),
        ('{main: {url: "file:///a/../b"}}', ["repositories.main.url:", "absolute path"]),
        ('{main: {url: "s3:///x"}}', ["repositories.main.url:", "names no bucket"]),
        ('{main: {url: "s3://bucket/x?region=eu"}}', ["repositories.main.url:", "as keys beside the url"]),
        ('{main: {url: "file:///x", object_lock: 30d}}', ["main.object_lock:", "means nothing for a folder"]),
        ('{main: {url: "file:///x", region: eu}}', ["main.region:", "means nothing for a folder"]),
        ('{main: {url: "s3://x", access_key: {env: A}}}', ["main.access_key:", "write secret_key beside it"]),
        ('{main: {url: "s3://x", compression: 99}}', ["main.compression:", 'read "99"', "19"]),
        ('{main: {url: "file:///x"}, two: {url: "/x/"}}', ["two.url:", "that of main, too", "not two"]),
        ('{main: {url: "file:///x"}, two: {url: "/x/y"}}', ["two.url:", "inside or around that of main"]),
        ("{}", ["repositories:", "is empty"]),
    ],
)
def test_repositories_that_cannot_work_are_explained(repositories: str, words: list[str]) -> None:
    message = refusal_of(f"application: shop\nrepositories: {repositories}\nkeys: {{file: k}}\n")
    assert ":2: " in message
    for word in words:
        assert word in message


def test_the_same_bucket_name_of_two_services_is_two_repositories() -> None:
    load("""\
application: shop
keys: {file: k}
repositories:
  here:  {url: "s3://backups", endpoint: "http://one:9000"}
  there: {url: "s3://backups", endpoint: "http://two:9000"}
""")


def test_keys_that_open_nothing_are_refused() -> None:
    assert "keys: nothing opens the repositories" in refusal_of(
        SMALL.replace("passphrase: {env: HOLDFAST_PASSPHRASE}", "")
    )


def test_keeping_less_than_the_time_until_the_next_backup_is_refused_where_it_is_written() -> None:
    message = refusal_of(small_with("policy:\n  full: {keep: 3d}\n"))
    assert f":{LINE + 1}: policy.full.keep: keep 3d is shorter than the 7d until the next one" in message
    message = refusal_of(small_with("policy:\n  full: {schedule: monthly}\n"))
    assert f":{LINE + 1}: policy.full.schedule: keep 30d is shorter than the 31d" in message


def test_a_source_is_blamed_only_for_what_it_overrides() -> None:
    message = refusal_of(
        small_with("""\
policy: {full: {keep: 3d}}
sources:
  orders: {kind: postgres, policy: {full: {rto: 1h}, incremental: {keep: 1h}}}
""")
    )
    assert "policy.full.keep" in message
    assert "sources.orders.policy.incremental.keep" in message
    assert "sources.orders.policy.full" not in message


def test_a_flush_longer_than_the_promised_loss_is_refused() -> None:
    assert "policy.log.rpo: flush 5s is longer than the rpo of 1s" in refusal_of(small_with("policy: {log: {rpo: 1s}}"))
    load(small_with("policy: {log: {rpo: 1s, follow: false}}"))


def test_a_file_that_cannot_be_read_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="cannot be read: Is a directory"):
        load_config(tmp_path, {})
    for name, content, words in (
        ("latin.yaml", b"application: caf\xe9", "not UTF-8"),
        ("huge.yaml", b"#" * (FILE_BYTES_MAX + 1), "larger than 1 MiB"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigInvalid, match=words):
            load_config(tmp_path / name, {})


def test_aliases_that_multiply_are_stopped() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert NODES_MAX < 9**8
    assert "too many or too deep" in refusal_of("\n".join(lines))
    assert "too many or too deep" in refusal_of("a: &a [*a]")


def _message(text: str) -> str:
    """Return the message of a refusal, or nothing where the text loads."""
    try:
        load(text)
    except ConfigInvalid as refused:
        return refused.message
    return ""


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_below_a_good_file_is_read_or_refused_with_the_file_s_name(text: str) -> None:
    message = _message(SMALL + text)
    assert not message or str(PATH) in message


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["kind", "url", "dsn", "full", "keep", "env", "postgres", "orders", "x"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.sampled_from(["sources", "repositories", "policy", "keys", "restore", "notify", "timezone"]), _JSON)
def test_any_value_under_a_known_key_is_read_or_refused_with_its_key(key: str, value: object) -> None:
    others = [line for line in SMALL.splitlines() if not line.startswith(key)]
    message = _message("\n".join([*others, f"{key}: {json.dumps(value)}", ""]))
    assert not message or key in message
