"""The demo's story with its repository in S3: a server of its own, and 2 % of all requests failing at random."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import boto3
from botocore.config import Config
from tests.acceptance.demo.told import Told
from tests.contract.storage.moto_server import ACCESS_KEY, REGION, SECRET_KEY, make_bucket, running_moto
from tests.faults.storage.scripted_http import FORWARD, Action, failing_at_random, serving
from tests.servers import processes_below

from holdfast.config.template import RepositoryAnswer
from holdfast.demo import DemoOrder, run_demo

BUCKET = "demo"
SHARE_FAILING = 0.02
SEED = 32
"""With it 5 of the first 80 requests fail: however many are made, some do."""

FAILED_MIN = 5


def counting(decide: Callable[[str, str], Action], failed: list[str]) -> Callable[[str, str], Action]:
    def count(method: str, path: str) -> Action:
        action = decide(method, path)
        if action != FORWARD:
            failed.append(f"{method} {path}")
        return action

    return count


def keys_in_bucket(endpoint: str) -> list[str]:
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(s3={"addressing_style": "path"}),
    )
    found = [str(row["Key"]) for row in client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]
    client.close()
    return found


def test_the_story_holds_in_s3_where_requests_fail_at_random(server_folder: Path) -> None:
    failed: list[str] = []
    told = Told()
    with running_moto() as upstream:
        make_bucket(upstream, BUCKET)
        script = failing_at_random(upstream, SHARE_FAILING, SEED)
        script = replace(script, decide=counting(script.decide, failed))
        with serving(script) as endpoint:
            place = RepositoryAnswer("any", f"s3://{BUCKET}/below", region=REGION, endpoint=endpoint, path_style=True)
            keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
            order = DemoOrder(scale=2, folder=server_folder, repository=place, environment={**os.environ, **keys})
            outcome = run_demo(order, told)
        left = keys_in_bucket(upstream)
    assert all(proof.holds for proof in outcome.proofs)
    assert len(failed) >= FAILED_MIN
    assert outcome.retries >= 1
    assert not left, "the demo removes what it put into the bucket, and nothing else was there"
    assert not processes_below(server_folder)
    assert not list(server_folder.iterdir())
