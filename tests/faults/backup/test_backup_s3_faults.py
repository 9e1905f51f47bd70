"""Whole backups into S3 over real connections that fail: finite time, the right error, nothing listed that is wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import count

import pytest
from tests.contract.storage.moto_server import ACCESS_KEY, REGION, SECRET_KEY, make_bucket, running_moto
from tests.faults.backup.whole_backups import World, make
from tests.faults.storage.scripted_http import (
    CUT,
    FORWARD,
    HANG,
    LOSE_ANSWER,
    Action,
    Reply,
    Script,
    failing_at_random,
    serving,
)

from holdfast.backup import packer
from holdfast.model.errors import Conflict, Denied, HoldfastError, IntegrityBroken, OutOfSpace, Unavailable
from holdfast.model.secrets import Secret
from holdfast.sources.port import Tier
from holdfast.storage.opening import open_store
from holdfast.storage.port import Store
from holdfast.storage.settings import StoreSettings
from holdfast.storage.settled import RetryPolicy, SettledStore

BUCKET = "backups"
END_SECONDS_MAX = 60.0
HANG_SECONDS = 1.0
PATIENT = RetryPolicy(tries_max=10, wait_seconds_first=0.05, wait_seconds_max=1.0)
PACK_BYTES = 1 << 20
FACTS = {"etag": '"1"', "last-modified": "Tue, 01 Jan 2030 00:00:00 GMT"}
GARBAGE = Reply(200, b"<html>Welcome to the hotel network</html>" * 20, FACTS)


def refusal(status: int, code: str) -> Reply:
    return Reply(status, f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>why</Message></Error>'.encode())


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with running_moto() as started:
        make_bucket(started, BUCKET)
        yield started


NUMBERS = count(1)


@pytest.fixture
def prefix() -> str:
    return f"copy-{next(NUMBERS)}"


def store_at(endpoint: str, prefix: str) -> Store:
    settings = StoreSettings(
        f"s3://{BUCKET}/{prefix}",
        endpoint=endpoint,
        region=REGION,
        access_key=Secret(ACCESS_KEY),
        secret_key=Secret(SECRET_KEY),
    )
    return open_store(settings, {})


@pytest.fixture
def sound(world: World, endpoint: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The store as it is when nothing fails, with one backup."""
    monkeypatch.setattr(packer, "PACK_BYTES", PACK_BYTES)
    store = store_at(endpoint, prefix)
    make(store)
    world.backup(store, 1)
    yield store
    store.close()


def striking(action: Action, method: str, part: str, upstream: str, times: int = 10**6) -> Script:
    """A script that answers requests of one method about one kind of object wrongly, and forwards the others."""
    lock = threading.Lock()
    struck: list[str] = []

    def decide(asked: str, path: str) -> Action:
        with lock:
            if asked == method and part in path and len(struck) < times:
                struck.append(path)
                return action
        return FORWARD

    return Script(decide, upstream)


def fail(world: World, script: Script, prefix: str, act: Callable[[Store], object]) -> HoldfastError | None:
    """Run something over a failing connection; return its error, or None where it was ridden out, in finite time."""
    begun = time.monotonic()
    with serving(script) as failing_endpoint:
        store = store_at(failing_endpoint, prefix)
        try:
            act(store)
        except HoldfastError as error:
            return error
        finally:
            store.close()
            assert time.monotonic() - begun < END_SECONDS_MAX
    return None


LASTING = {
    "500": (refusal(500, "InternalError"), Unavailable),
    "503": (refusal(503, "SlowDown"), Unavailable),
    "cut": (CUT, Unavailable),
    "expired": (refusal(400, "ExpiredToken"), Denied),
    "denied": (refusal(403, "AccessDenied"), Denied),
    "full": (refusal(507, "XMinioStorageFull"), OutOfSpace),
}


@pytest.mark.parametrize(("kind", "part"), [*((kind, "/packs/") for kind in LASTING), ("503", "/history/")])
def test_a_put_that_fails_for_good_is_told_and_leaves_no_backup(
    world: World, sound: Store, endpoint: str, prefix: str, kind: str, part: str
) -> None:
    action, wanted = LASTING[kind]
    error = fail(world, striking(action, "PUT", part, endpoint), prefix, lambda store: world.backup(store, 2))
    assert isinstance(error, wanted)
    assert error.exit_code == 1
    assert error.hint
    assert SECRET_KEY not in f"{error} {error.hint} {error.__cause__!r}"
    assert len(world.require_sound(sound)) == 1
    world.backup(sound, 2, Tier.INCREMENTAL)
    assert len(world.require_sound(sound)) == 2


def test_expired_credentials_are_told_with_what_to_do(world: World, sound: Store, endpoint: str, prefix: str) -> None:
    script = striking(refusal(400, "ExpiredToken"), "GET", "", endpoint)
    error = fail(world, script, prefix, lambda store: world.backup(store, 2))
    assert isinstance(error, Denied)
    assert "credential" in error.hint.lower() or "key" in error.hint.lower()


@pytest.mark.parametrize(
    ("method", "part"),
    [("GET", ""), ("GET", "/history/"), ("GET", "identity"), ("PUT", "/packs/"), ("PUT", "/history/")],
)
def test_success_with_garbage_never_becomes_a_wrong_backup(
    world: World, sound: Store, endpoint: str, prefix: str, method: str, part: str
) -> None:
    script = striking(GARBAGE, method, part, endpoint)
    error = fail(world, script, prefix, lambda store: world.backup(store, 2))
    if error is not None:
        assert isinstance(error, IntegrityBroken | Unavailable | Conflict), repr(error)
        assert error.hint
    # A put that was answered and not done is no backup; one that was done is a whole one.
    assert len(world.require_sound(sound)) == (1 if error is not None else 2)
    world.backup(sound, 3)
    assert world.check(sound).findings == ()


@pytest.mark.parametrize("part", ["", "/packs/", "/history/", "prefix="])
def test_reading_over_a_lying_connection_gives_right_bytes_or_an_error(
    world: World, sound: Store, endpoint: str, prefix: str, part: str
) -> None:
    script = striking(GARBAGE, "GET", part, endpoint)
    error = fail(world, script, prefix, world.require_sound)
    assert isinstance(error, IntegrityBroken | Unavailable), repr(error)
    assert len(world.require_sound(sound)) == 1


SHORT = Reply(200, b"x", FACTS, announced=9000)


@pytest.mark.parametrize(
    ("action", "method", "part"),
    [
        (CUT, "PUT", "/packs/"),
        (LOSE_ANSWER, "PUT", "/packs/"),
        (LOSE_ANSWER, "PUT", "/history/"),
        (HANG, "PUT", "/history/"),
        (HANG, "GET", "/history/"),
        (Reply(500), "PUT", "/history/"),
        (Reply(503), "GET", "prefix="),
        (SHORT, "GET", "/history/"),
    ],
)
def test_a_failure_that_passes_is_ridden_out(
    world: World, sound: Store, endpoint: str, prefix: str, action: Action, method: str, part: str
) -> None:
    script = striking(action, method, part, endpoint, times=2)
    # A hanging request ends when the peer gives up; here soon.
    timer = threading.Timer(HANG_SECONDS, script.released.set)
    timer.start()
    error = fail(world, script, prefix, lambda store: world.backup(store, 2))
    timer.join()
    assert error is None, repr(error)
    assert len(world.require_sound(sound)) == 2
    assert world.check(sound).findings == ()


@pytest.mark.parametrize("seed", range(2))
def test_two_of_a_hundred_requests_failing_change_nothing(
    world: World, sound: Store, endpoint: str, prefix: str, seed: int
) -> None:
    def work(bare: Store) -> None:
        store = SettledStore(bare, PATIENT)
        for version in range(2, 5):
            world.backup(store, version, Tier.INCREMENTAL)
        world.require_sound(store)
        assert world.check(store).findings == ()

    assert fail(world, failing_at_random(endpoint, 0.02, seed), prefix, work) is None
    assert len(world.require_sound(sound)) == 4
