"""S3 answering wrongly, late or not at all, over real connections."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from obstore.store import S3Store
from tests.contract.storage.moto_server import make_bucket, running_moto
from tests.faults.storage.scripted_http import CUT, HANG, Action, Reply, Script, failing_at_random, serving

from holdfast.model.errors import (
    AlreadyExists,
    ConfigInvalid,
    Conflict,
    Denied,
    HoldfastError,
    IntegrityBroken,
    NotFound,
    OutcomeUnknown,
    OutOfSpace,
    Unavailable,
)
from holdfast.model.secrets import Secret
from holdfast.storage.clients import ObjectClients
from holdfast.storage.objects import ObjectStore
from holdfast.storage.opening import open_store
from holdfast.storage.port import Store
from holdfast.storage.race import probe_race
from holdfast.storage.settings import StoreSettings
from holdfast.storage.settled import Retry, SettledStore

FACTS = {"etag": '"1"', "last-modified": "Tue, 01 Jan 2030 00:00:00 GMT"}

CALLS: dict[str, Callable[[Store], object]] = {
    "create": lambda store: store.create("history/1", b"entry"),
    "put": lambda store: store.put("volatile/x", b"entry"),
    "get": lambda store: store.get("history/1"),
    "range": lambda store: store.get("history/1", 2, 5),
    "head": lambda store: store.head("history/1"),
    "list": lambda store: list(store.list("history/")),
    "delete": lambda store: store.delete("history/1"),
}


def refusal(status: int, code: str) -> Reply:
    return Reply(status, f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>why</Message></Error>'.encode())


@contextlib.contextmanager
def scripted_store(decide: Action | Callable[[str, str], Action], **more: Secret) -> Iterator[tuple[Store, Script]]:
    script = Script(decide if callable(decide) else lambda _method, _path: decide)
    with serving(script) as endpoint:
        keys = {"access_key": Secret("id"), "secret_key": Secret("VERYSECRET")} | more
        store = open_store(StoreSettings("s3://bucket/prefix", endpoint=endpoint, region="eu-west-1", **keys), {})
        yield store, script
        store.close()


@pytest.mark.parametrize("operation", CALLS)
@pytest.mark.parametrize(
    ("reply", "error", "error_of_create"),
    [
        (Reply(500), Unavailable, OutcomeUnknown),
        (refusal(500, "InternalError"), Unavailable, OutcomeUnknown),
        (Reply(502), Unavailable, OutcomeUnknown),
        (refusal(503, "SlowDown"), Unavailable, OutcomeUnknown),
        (Reply(504), Unavailable, OutcomeUnknown),
        (Reply(408), Unavailable, OutcomeUnknown),
        (Reply(429), Unavailable, Unavailable),
        (refusal(400, "RequestTimeout"), Unavailable, OutcomeUnknown),
        (refusal(400, "ExpiredToken"), Denied, Denied),
        (refusal(401, "x"), Denied, Denied),
        (refusal(403, "AccessDenied"), Denied, Denied),
        (refusal(403, "RequestTimeTooSkewed"), Denied, Denied),
        (Reply(405), Denied, Denied),
        (refusal(501, "NotImplemented"), Denied, Denied),
        (refusal(301, "PermanentRedirect"), Denied, Denied),
        (refusal(404, "NoSuchBucket"), Denied, Denied),
        (refusal(507, "XMinioStorageFull"), OutOfSpace, OutOfSpace),
        (CUT, Unavailable, OutcomeUnknown),
    ],
    ids=lambda value: f"{value.status} {value.body[34:60].decode()}" if isinstance(value, Reply) else None,
)
def test_answer_becomes_the_right_error_after_one_request(
    operation: str, reply: Action, error: type[HoldfastError], error_of_create: type[HoldfastError]
) -> None:
    if operation == "head" and isinstance(reply, Reply) and reply.status == 400:
        error = Denied  # an answer to HEAD bears no code that could tell more
    with scripted_store(reply) as (store, script):
        with pytest.raises(error_of_create if operation == "create" else error) as caught:
            CALLS[operation](store)
        if operation != "create" and error is Unavailable:
            assert not isinstance(caught.value, OutcomeUnknown)
        assert len(script.requests) == (2 if operation == "head" and reply == refusal(404, "NoSuchBucket") else 1)
        assert caught.value.hint
        assert "VERYSECRET" not in f"{caught.value}{caught.value.hint}{caught.value.__cause__}"


@pytest.mark.parametrize("reply", [refusal(412, "PreconditionFailed"), refusal(409, "ConditionalRequestConflict")])
def test_exists_is_only_said_of_a_create(reply: Reply) -> None:
    with scripted_store(reply) as (store, script):
        with pytest.raises(AlreadyExists):
            CALLS["create"](store)
        assert script.requests[0][2]["if-none-match"] == "*"
        for operation in ("put", "get", "range", "head", "list", "delete"):
            with pytest.raises(Unavailable):
                CALLS[operation](store)


def test_absent_object_is_told_apart_from_an_absent_bucket() -> None:
    with scripted_store(refusal(404, "NoSuchKey")) as (store, _):
        for operation in ("get", "range", "head"):
            with pytest.raises(NotFound):
                CALLS[operation](store)
        CALLS["delete"](store)


def test_hints_name_the_cause() -> None:
    for reply, word in (
        (refusal(403, "RequestTimeTooSkewed"), "clock"),
        (refusal(400, "ExpiredToken"), "expired"),
        (refusal(301, "PermanentRedirect"), "region"),
        (refusal(404, "NoSuchBucket"), "Create it"),
    ):
        with scripted_store(reply) as (store, _), pytest.raises(Denied) as caught:
            CALLS["get"](store)
        assert word in caught.value.hint


def test_nobody_listening_is_unavailable_and_certainly_not_written() -> None:
    with serving(Script(lambda _method, _path: CUT)) as endpoint:
        keys = {"access_key": Secret("id"), "secret_key": Secret("key")}
        store = open_store(StoreSettings("s3://bucket", endpoint=endpoint, **keys), {})
    for call in CALLS.values():
        with pytest.raises(Unavailable) as caught:
            call(store)
        assert not isinstance(caught.value, OutcomeUnknown)


@pytest.mark.parametrize("operation", CALLS)
def test_a_server_that_hangs_is_given_up_after_the_time_limit(operation: str) -> None:
    script = Script(lambda _method, _path: HANG)
    with serving(script) as endpoint:

        def impatient(options: dict[str, object]) -> S3Store:
            return S3Store(
                "bucket",
                config={"endpoint": endpoint, "virtual_hosted_style_request": False, "disable_bulk_delete": True},
                client_options={**options, "timeout": timedelta(milliseconds=200)},  # type: ignore[typeddict-item]
                retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=1)},
                credential_provider=lambda: {"access_key_id": "a", "secret_access_key": "b", "expires_at": None},
            )

        store = ObjectStore("s3://bucket", ObjectClients(impatient, http=True))
        with pytest.raises(OutcomeUnknown if operation == "create" else Unavailable):
            CALLS[operation](store)
        assert len(script.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"x" * 50, FACTS, announced=100),
        Reply(206, b"34", FACTS | {"content-range": "bytes 2-4/10"}),
        Reply(200, b"", {}),
        Reply(206, b"garbage", {"content-range": "nonsense"}),
    ],
    ids=["cut off", "short", "nothing", "nonsense"],
)
def test_a_body_that_is_not_what_was_asked_for_is_unavailable(reply: Reply) -> None:
    with scripted_store(reply) as (store, _), pytest.raises(Unavailable):
        store.get("history/1", 2, 5)


def test_a_range_that_is_short_every_time_is_broken_in_the_end() -> None:
    with scripted_store(Reply(206, b"34", FACTS | {"content-range": "bytes 2-4/10"})) as (store, script):
        with pytest.raises(IntegrityBroken):
            SettledStore(store, sleep=lambda _: None).get("history/1", 2, 5)
        assert len(script.requests) > 1


GARBAGE = [
    b"<html>welcome</html>",
    b"<!DOCTYPE html><html><br></html>",
    b"garbage",
    b"",
    b"<Error><Code>InternalError</Code></Error>",
]


@pytest.mark.parametrize("body", GARBAGE)
@pytest.mark.parametrize("facts", [{}, FACTS], ids=["bare", "with facts"])
def test_200_with_garbage_is_never_an_empty_listing(body: bytes, facts: dict[str, str]) -> None:
    with scripted_store(Reply(200, body, facts)) as (store, _), pytest.raises(Unavailable):
        CALLS["list"](store)


@pytest.mark.parametrize("body", GARBAGE)
def test_200_with_garbage_to_a_create_proves_nothing(body: bytes) -> None:
    with scripted_store(Reply(200, body)) as (store, _), pytest.raises(OutcomeUnknown):
        CALLS["create"](store)


def listing(*names: str, more: bool = False) -> Reply:
    def entry(name: str) -> str:
        facts = "<Size>1</Size><LastModified>2030-01-01T00:00:00.000Z</LastModified>"
        return f"<Contents><Key>prefix/{name}</Key>{facts}</Contents>"

    token = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>" if more else ""
    return Reply(200, f"<ListBucketResult>{''.join(map(entry, names))}{token}</ListBucketResult>".encode())


def test_a_page_of_garbage_in_the_middle_does_not_end_a_listing() -> None:
    pages = iter([listing("h/1", "h/2", more=True), Reply(200, GARBAGE[0]), listing("h/3"), listing()])
    with scripted_store(lambda _method, _path: next(pages)) as (store, script):
        assert [info.name for info in store.list("h/")] == ["h/1", "h/2", "h/3"]
        assert len(script.requests) == 4


def test_garbage_for_a_first_page_is_not_an_empty_listing() -> None:
    pages = iter([Reply(200, GARBAGE[0]), listing("h/1"), listing()])
    with scripted_store(lambda _method, _path: next(pages)) as (store, _):
        assert [info.name for info in store.list("h/")] == ["h/1"]


def test_a_listing_out_of_order_is_refused() -> None:
    with scripted_store(listing("h/2", "h/1")) as (store, _), pytest.raises(Denied, match="order"):
        list(store.list("h/"))


def test_credentials_renewed_after_they_expired_are_used_without_a_restart(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("old")

    def decide(_method: str, _path: str) -> Action:
        used = script.requests[-1][2]["authorization"].split("Credential=")[1].split("/")[0]
        return Reply(200, b"entry", FACTS) if used == "new" else refusal(400, "ExpiredToken")

    with scripted_store(decide, access_key=Secret(key.read_text)) as (store, script):
        with pytest.raises(Denied):
            store.get("history/1")
        key.write_text("new")
        retries: list[Retry] = []
        settled = SettledStore(store, on_retry=retries.append, sleep=lambda _: None)
        assert settled.get("history/1") == b"entry"
        assert [retry.reason for retry in retries] == [
            "the credentials for s3://bucket/prefix/history/1 were just renewed"
        ]


def test_keys_that_cannot_be_read_are_told_as_such() -> None:
    def unreadable() -> str:
        raise ConfigInvalid("file /run/key cannot be read")

    with (
        scripted_store(Reply(200), access_key=Secret(unreadable)) as (store, _),
        pytest.raises(ConfigInvalid, match="/run/key"),
    ):
        store.get("history/1")


def test_without_credentials_the_hint_says_how_to_give_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serving(Script(lambda _method, _path: Reply(404))) as endpoint:
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", endpoint)
        store = open_store(StoreSettings("s3://bucket", endpoint=endpoint), {"HOME": str(tmp_path)})
        with pytest.raises(Denied) as caught:
            store.get("history/1")
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with running_moto() as endpoint:
        yield endpoint


def test_a_store_failing_one_request_in_ten_is_used_as_if_it_were_sound(moto: str) -> None:
    make_bucket(moto, "flaky")
    script = failing_at_random(moto, 0.1, seed=5)
    retries: list[Retry] = []
    with serving(script) as endpoint:
        keys = {"access_key": Secret("id"), "secret_key": Secret("key")}
        bare = open_store(StoreSettings("s3://flaky/home", endpoint=endpoint, region="eu-central-1", **keys), {})
        store = SettledStore(bare, on_retry=retries.append, sleep=lambda _: None)
        contents = {f"packs/{number:03}": f"content {number}".encode() * 100 for number in range(200)}
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda name: store.create(name, contents[name]), contents))
            found = dict(pool.map(lambda name: (name, bytes(store.get(name))), contents))
        assert found == contents
        assert [info.name for info in store.list("packs/")] == sorted(contents)
        with pytest.raises(Conflict):
            store.create("packs/000", b"other")
        assert probe_race(store, rounds=3).sound
        store.close()
    assert len(retries) > 10
