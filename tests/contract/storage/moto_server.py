"""A moto S3 server as a process of its own, on a free port of 127.0.0.1."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import boto3
from botocore.config import Config

START_SECONDS_MAX = 60
ACCESS_KEY = "testing"
SECRET_KEY = "testing-secret"
REGION = "eu-central-1"

ONE_BY_ONE = """
import threading
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.server import main

lock = threading.Lock()
answer = DomainDispatcherApplication.__call__

def answer_one_by_one(self, environ, start_response):
    with lock:
        return answer(self, environ, start_response)

DomainDispatcherApplication.__call__ = answer_one_by_one
main()
"""
"""moto looks for a name and puts the object in two steps: side by side, two conditional puts may both succeed there."""


@contextlib.contextmanager
def running_moto() -> Iterator[str]:
    """Give the endpoint of a server that lives as long as the context."""
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", ONE_BY_ONE, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_until_open(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=START_SECONDS_MAX)


def make_bucket(endpoint: str, bucket: str) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(s3={"addressing_style": "path"}),
    )
    client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    client.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_open(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"moto ended with {process.returncode} instead of starting")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError("moto did not open its port in time")
