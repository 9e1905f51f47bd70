"""Object stores (S3 and compatible, Google, Azure, memory) as a store, through obstore."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import obstore
from obstore.exceptions import BaseError, UnauthenticatedError

from holdfast.model.errors import Denied, NotFound, Unavailable
from holdfast.storage.clients import ObjectClients
from holdfast.storage.names import check_name, check_prefix, check_volatile, is_name
from holdfast.storage.object_errors import is_range_refusal, read_answer, translate
from holdfast.storage.port import VOLATILE_PREFIX, Data, ObjectInfo
from holdfast.storage.short import check_length

LIST_CHUNK = 1000
UNKNOWN_READ_BYTES = 64 * 1024 * 1024
"""The size assumed, for the time limit only, of a read to the end of an object."""

PART_BYTES_MIN = 32 * 1024 * 1024
PARTS_MAX = 900
"""Some stores take 1,000 parts at most."""

PARTS_AT_ONCE = 2

ABSENT_NAME = VOLATILE_PREFIX + "probe/never-written"
KEYS_REFUSED_STATUS = frozenset({400, 401, 403})


class ObjectStore:
    """Objects of a bucket below a prefix. Keeps the contract of ``port.Store``; each call is one request.

    (Two for a ``head`` that finds nothing, one more for a listing, as many as parts for a large ``put``.)
    """

    def __init__(self, url: str, clients: ObjectClients) -> None:
        self._url = url
        self._clients = clients

    @property
    def url(self) -> str:
        """The address as configured."""
        return self._url

    def create(self, name: str, data: Data) -> None:
        """Put with the condition that the name is free, in one request however large."""
        check_name(name)
        with self._translated(name, creating=True):
            obstore.put(self._clients.for_writing(len(data)), name, data, mode="create", use_multipart=False)

    def put(self, name: str, data: Data | Path) -> None:
        """Put without condition; a large file in parts, which an aborted try may leave behind."""
        check_volatile(name)
        size_bytes = data.stat().st_size if isinstance(data, Path) else len(data)
        if isinstance(data, Path) and size_bytes > PART_BYTES_MIN:
            self._put_parts(name, data, size_bytes)
            return
        content = data.read_bytes() if isinstance(data, Path) else data
        with self._translated(name):
            obstore.put(self._clients.for_writing(size_bytes), name, content, use_multipart=False)

    def get(self, name: str, start: int = 0, end: int | None = None) -> Data:
        """Read a range, and compare its length with what the store announced."""
        check_name(name)
        if end is not None and end <= start:
            self.head(name)
            return b""
        try:
            with self._translated(name):
                return self._get_range(name, start, end)
        except Unavailable as error:
            # Stores refuse a range that begins at or after the end; here that is an empty answer.
            if is_range_refusal(error.__cause__) and self.head(name).size_bytes <= start:
                return b""
            raise

    def head(self, name: str) -> ObjectInfo:
        """Facts of one object. Absence is confirmed by a get, whose answer can tell a missing bucket apart."""
        check_name(name)
        try:
            with self._translated(name):
                meta = obstore.head(self._clients.for_reading(0), name)
        except NotFound:
            with self._translated(name):
                meta = obstore.get(self._clients.for_reading(UNKNOWN_READ_BYTES), name).meta
        return ObjectInfo(name, meta["size"], meta["last_modified"])

    def list(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """Page through a listing; names that are not ours are passed over, a listing out of order is refused.

        obstore takes any XML answered with 200 (a proxy's page, an error document) for the end of a listing. So the
        end is believed only when asking again behind the last name finds nothing, and emptiness only of a store that
        can still say "absent".
        """
        check_prefix(prefix)
        latest = after
        asked_again = False
        while True:
            found = False
            for info in self._list_once(prefix, latest):
                found = True
                latest = info.name
                if is_name(info.name):
                    yield info
            if asked_again and not found:
                break
            asked_again = True
        if latest == after:
            self._check_absence_is_told(prefix)

    def delete(self, name: str) -> None:
        """Delete; stores that tell of an absent object are heard as content."""
        check_name(name)
        with contextlib.suppress(NotFound), self._translated(name):
            obstore.delete(self._clients.for_writing(0), name)

    def local_path(self, name: str) -> Path | None:
        """None: nothing is local."""
        check_name(name)
        return None

    def close(self) -> None:
        """Drop the clients with their connections."""
        self._clients.close()

    def _list_once(self, prefix: str, after: str) -> Iterator[ObjectInfo]:
        latest = ""
        with self._translated(prefix):
            client = self._clients.for_reading(UNKNOWN_READ_BYTES)
            pages = iter(obstore.list(client, prefix or None, offset=after or None, chunk_size=LIST_CHUNK))
        while True:
            with self._translated(prefix):
                page = next(pages, None)
            if page is None:
                return
            for meta in page:
                name = meta["path"]
                if name <= latest:
                    raise self._out_of_order(prefix)
                latest = name
                if name > after:
                    yield ObjectInfo(name, meta["size"], meta["last_modified"])

    def _check_absence_is_told(self, prefix: str) -> None:
        with contextlib.suppress(NotFound, Denied):
            self.get(ABSENT_NAME, 0, 1)
            raise Unavailable(
                f"{self._subject(prefix)} looks empty, but something answers there that is not the store",
                hint="It affirms an object that was never written: check the endpoint, and any proxy on the way.",
            )

    def _get_range(self, name: str, start: int, end: int | None) -> bytes:
        client = self._clients.for_reading(UNKNOWN_READ_BYTES if end is None else end - start)
        if end is not None:
            result = obstore.get(client, name, options={"range": (start, end)})
        elif start:
            result = obstore.get(client, name, options={"range": {"offset": start}})
        else:
            result = obstore.get(client, name)
        size_bytes = result.meta["size"]
        content = result.bytes().to_bytes()
        check_length(self._subject(name), min(size_bytes if end is None else end, size_bytes) - start, len(content))
        return content

    def _put_parts(self, name: str, path: Path, size_bytes: int) -> None:
        part_bytes = max(PART_BYTES_MIN, -(-size_bytes // PARTS_MAX))
        with self._translated(name):
            obstore.put(
                self._clients.for_writing(part_bytes),
                name,
                path,
                use_multipart=True,
                chunk_size=part_bytes,
                max_concurrency=PARTS_AT_ONCE,
            )

    def _subject(self, name: str) -> str:
        return f"{self._url}/{name}"

    def _out_of_order(self, prefix: str) -> Denied:
        return Denied(
            f"{self._subject(prefix)} is not listed in the order of names",
            hint="S3 directory buckets and some gateways do so; holdfast needs an ordinary bucket.",
        )

    @contextlib.contextmanager
    def _translated(self, name: str, *, creating: bool = False) -> Iterator[None]:
        keys_version = self._clients.keys_version
        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            subject = self._subject(name)
            translated = translate(subject, error, creating=creating)
            keys_refused = isinstance(error, UnauthenticatedError) or read_answer(error).status in KEYS_REFUSED_STATUS
            if isinstance(translated, Denied) and keys_refused and self._clients.renewed(keys_version):
                raise Unavailable(f"the credentials for {subject} were just renewed") from error
            raise translated from error
