"""From settings to a store. Imports object-store libraries only when one is asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from holdfast.model.errors import ConfigInvalid
from holdfast.storage.folder import FolderStore
from holdfast.storage.port import Store
from holdfast.storage.settings import StoreSettings

OBJECT_SCHEMES = ("s3", "gs", "az", "memory")

_FORMS = "Write /folder, file:///folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix."


def open_store(settings: StoreSettings, environment: Mapping[str, str] = os.environ) -> Store:
    """Return the store at an address; nothing is sent or created yet. The caller closes it.

    What comes back tries everything once: wrap it in ``settled.SettledStore``. Each ``memory://`` store is a new one.
    Raises ``ConfigInvalid``.
    """
    parts = urlsplit(settings.url) if "://" in settings.url else SplitResult("", "", settings.url, "", "")
    if parts.scheme in {"", "file"}:
        return FolderStore(_folder(settings.url, parts))
    if parts.scheme not in OBJECT_SCHEMES:
        raise ConfigInvalid(f"{parts.scheme}:// is not a kind of store", hint=_FORMS)
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ConfigInvalid(
            f"the {parts.scheme}:// address of a store holds credentials or options",
            hint="Keep the address to bucket and prefix; give keys and options as settings of their own.",
        )
    if parts.scheme != "memory" and not parts.netloc:
        raise ConfigInvalid(f"{settings.url} names no bucket", hint=_FORMS)

    from holdfast.storage.clients import object_clients
    from holdfast.storage.objects import ObjectStore

    address = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    return ObjectStore(address, object_clients(settings, environment))


def _folder(url: str, parts: SplitResult) -> Path:
    if not parts.scheme:
        if not url:
            raise ConfigInvalid("the address of the store is empty", hint=_FORMS)
        return Path(url).expanduser().absolute()
    if parts.netloc not in {"", "localhost"} or not parts.path:
        raise ConfigInvalid(f"{url} is not a folder of this machine", hint="Write file:/// with three slashes.")
    return Path(unquote(parts.path))
