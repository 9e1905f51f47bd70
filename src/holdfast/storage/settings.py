"""Where a store is and how to be let in: what ``opening.open_store`` needs to know."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.model.secrets import Secret


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Settings of one store. Everything but ``url`` may be unknown; what is unknown comes from the environment.

    ``url`` is a folder (``/path`` or ``file:///path``), ``memory://``, ``s3://bucket/prefix``, ``gs://bucket/prefix``
    or ``az://container/prefix``, without secrets in it. The rest is for S3, and is otherwise taken where AWS's own
    tools look for it: ``AWS_*`` variables, ``~/.aws``, a web identity, the role of the container or the machine.
    ``access_key``, ``secret_key`` and ``session_token`` are revealed again every few minutes, so they may rotate.
    ``path_style`` None means path style exactly where an ``endpoint`` is given.
    """

    url: str
    endpoint: str | None = None
    region: str | None = None
    profile: str | None = None
    path_style: bool | None = None
    access_key: Secret | None = None
    secret_key: Secret | None = None
    session_token: Secret | None = None
