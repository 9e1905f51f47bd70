"""The stores that the conformance suite runs against: a folder, memory, and S3 as moto serves it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.storage.moto_server import ACCESS_KEY, REGION, SECRET_KEY, make_bucket, running_moto

from holdfast.model.secrets import Secret
from holdfast.storage.opening import open_store
from holdfast.storage.port import Store
from holdfast.storage.settings import StoreSettings

STORES = ("folder", "memory", "s3")


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    with running_moto() as endpoint:
        yield endpoint


@pytest.fixture
def s3_settings(moto_endpoint: str) -> StoreSettings:
    bucket = f"holdfast-{uuid.uuid4().hex[:12]}"
    make_bucket(moto_endpoint, bucket)
    return StoreSettings(
        f"s3://{bucket}/some/prefix",
        endpoint=moto_endpoint,
        region=REGION,
        access_key=Secret(ACCESS_KEY),
        secret_key=Secret(SECRET_KEY),
    )


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "s3":
        settings = request.getfixturevalue("s3_settings")
    elif request.param == "memory":
        settings = StoreSettings("memory://")
    else:
        settings = StoreSettings(str(tmp_path / "repository"))
    opened = open_store(settings)
    yield opened
    opened.close()
