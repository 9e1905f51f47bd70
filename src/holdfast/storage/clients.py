"""Clients of object stores, one for each size of answer, because their time limit belongs to the client."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, MemoryStore, S3Store

from holdfast.model.errors import ConfigInvalid
from holdfast.storage.credentials import RotatingKeys, key_provider, profile_name, read_profile
from holdfast.storage.settings import StoreSettings
from holdfast.version import __version__

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config
    from obstore.store import ObjectStore as Client

SIZE_CLASS_BYTES_MIN = 1024 * 1024
REQUEST_SECONDS_MIN = 60
REQUEST_BYTES_PER_SECOND_MIN = 64 * 1024
"""The slowest line that still gets an object through: a request may take 60 s and a second per 64 KiB."""

CONNECT_SECONDS_MAX = 10
SILENCE_SECONDS_MAX = 60
"""A read that brings nothing for so long is given up."""

_NO_RETRY: RetryConfig = {"max_retries": 0, "retry_timeout": timedelta(seconds=1)}
_LOCAL_ENDINGS = (".local", ".localhost", ".internal", ".lan", ".svc")

ClientMaker: TypeAlias = "Callable[[ClientConfig], Client]"


class ObjectClients:
    """Makes and keeps clients. obstore's own retries are off: they are unseen, and a put repeated says "exists"."""

    def __init__(self, make: ClientMaker, *, http: bool = False, keys: RotatingKeys | None = None) -> None:
        self._make = make
        self._http = http
        self._keys = keys
        self._keys_version = 0
        self._keys_lock = threading.Lock()
        self._lock = threading.Lock()
        self._clients: dict[tuple[int, bool], Client] = {}

    def for_reading(self, size_bytes: int) -> Client:
        """Return the client for an answer of up to so many bytes."""
        return self._client(size_bytes, reading=True)

    def for_writing(self, size_bytes: int) -> Client:
        """Return the client for a request of up to so many bytes."""
        return self._client(size_bytes, reading=False)

    @property
    def keys_version(self) -> int:
        """How often the keys have been renewed; to be read before a request."""
        return self._keys_version

    def renewed(self, keys_version: int) -> bool:
        """Tell whether the keys refused to a request begun under ``keys_version`` have been replaced meanwhile.

        If so the next request uses the new ones.
        """
        with self._keys_lock:
            if keys_version != self._keys_version:
                return True
            if self._keys is None or not self._keys.changed():
                return False
            self._keys_version += 1
        self.close()
        return True

    def close(self) -> None:
        """Drop every client; the next request makes a new one."""
        with self._lock:
            self._clients.clear()

    def _client(self, size_bytes: int, *, reading: bool) -> Client:
        size_class_bytes = size_class(size_bytes)
        with self._lock:
            client = self._clients.get((size_class_bytes, reading))
            if client is None:
                client = self._make(self._options(size_class_bytes, reading=reading))
                self._clients[size_class_bytes, reading] = client
            return client

    def _options(self, size_bytes: int, *, reading: bool) -> ClientConfig:
        options: ClientConfig = {
            "timeout": timedelta(seconds=request_seconds_max(size_bytes)),
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS_MAX),
            "allow_http": self._http,
            "user_agent": f"holdfast/{__version__}",
        }
        if reading:
            # Not for writing: there it would count the time in which the body is still on its way up.
            options["read_timeout"] = timedelta(seconds=SILENCE_SECONDS_MAX)
        return options


def size_class(size_bytes: int) -> int:
    """Return the power of two, from 1 MiB up, that bounds a size."""
    return max(SIZE_CLASS_BYTES_MIN, 1 << max(0, size_bytes - 1).bit_length())


def request_seconds_max(size_bytes: int) -> float:
    """Return how long a request with so many bytes may take."""
    return REQUEST_SECONDS_MIN + size_bytes / REQUEST_BYTES_PER_SECOND_MIN


def object_clients(settings: StoreSettings, environment: Mapping[str, str]) -> ObjectClients:
    """Return the clients for a store's address; nothing is sent yet. Raises ``ConfigInvalid``."""
    scheme = urlsplit(settings.url).scheme
    if scheme == "memory":
        memory = MemoryStore()
        return ObjectClients(lambda _: memory)
    clients = _s3_clients(settings, environment) if scheme == "s3" else ObjectClients(_other_maker(settings, scheme))
    try:
        clients.for_reading(0)
    except (BaseError, ValueError, OSError) as error:
        raise ConfigInvalid(
            f"{settings.url} cannot be used as a store: {str(error).splitlines()[0][:200]}",
            hint="Check the url, and the variables AWS_*, GOOGLE_* or AZURE_* that go with it.",
        ) from error
    return clients


def _other_maker(settings: StoreSettings, scheme: str) -> ClientMaker:
    if scheme == "gs":
        return lambda options: GCSStore.from_url(settings.url, client_options=options, retry_config=_NO_RETRY)
    return lambda options: AzureStore.from_url(settings.url, client_options=options, retry_config=_NO_RETRY)


def _s3_clients(settings: StoreSettings, environment: Mapping[str, str]) -> ObjectClients:
    parts = urlsplit(settings.url)
    bucket, prefix = parts.netloc, parts.path.strip("/") or None
    provider = key_provider(settings, environment)
    config = _s3_config(settings, environment, bucket)
    endpoint = config.get("endpoint", "")
    http = endpoint.startswith("http://")
    if http and not is_local(urlsplit(endpoint).hostname or ""):
        raise ConfigInvalid(
            f"endpoint {endpoint} is not encrypted and not local",
            hint="Write https://; plain http is for endpoints in the same network (localhost, private addresses).",
        )

    def make(options: ClientConfig) -> Client:
        return S3Store(
            bucket,
            prefix=prefix,
            config=config,
            client_options=options,
            retry_config=_NO_RETRY,
            credential_provider=provider,
        )

    return ObjectClients(make, http=http, keys=provider if isinstance(provider, RotatingKeys) else None)


def _s3_config(settings: StoreSettings, environment: Mapping[str, str], bucket: str) -> S3Config:
    profile = read_profile(profile_name(settings, environment), environment)
    values = profile.values if profile else {}
    endpoint = (
        settings.endpoint
        or environment.get("AWS_ENDPOINT_URL_S3")
        or environment.get("AWS_ENDPOINT_URL")
        or values.get("endpoint_url")
    )
    region = (
        settings.region
        or environment.get("AWS_REGION")
        or environment.get("AWS_DEFAULT_REGION")
        or values.get("region")
    )
    path_style = settings.path_style if settings.path_style is not None else profile.path_style if profile else None
    if path_style is None:
        path_style = bool(endpoint) or "." in bucket
    # The checksum lets the store refuse bytes damaged on their way, and is required where objects are locked.
    config: S3Config = {
        "virtual_hosted_style_request": not path_style,
        "disable_bulk_delete": True,
        "checksum_algorithm": "SHA256",
    }
    if region:
        config["region"] = region
    if endpoint:
        config["endpoint"] = endpoint.rstrip("/") if path_style else _with_bucket_host(endpoint, bucket)
    return config


def _with_bucket_host(endpoint: str, bucket: str) -> str:
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{bucket}.{parts.netloc}{parts.path.rstrip('/')}"


def is_local(host: str) -> bool:
    """Tell whether a host can only be in the same network: loopback, private addresses, names without a domain."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(_LOCAL_ENDINGS)
    return address.is_loopback or address.is_private or address.is_link_local
