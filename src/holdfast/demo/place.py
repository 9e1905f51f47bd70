"""The demo's folder: where there is room, where the server's account can go, and gone afterwards."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from holdfast.demo.order import DemoOrder
from holdfast.model.errors import OutOfSpace
from holdfast.sandbox.account import Account
from holdfast.sandbox.folders import can_enter, require_reachable

USUAL_PARENTS = ("/var/tmp", "/tmp")  # noqa: S108 the parents only; /tmp comes last: it may lie in memory
COPIES = 3.6
"""The cluster, its two restored copies, and the repository with its own copy, in sizes of the cluster."""


@contextmanager
def demo_folder(order: DemoOrder, account: Account | None) -> Iterator[Path]:
    """Offer a new folder; remove it at the end, whatever happened, unless it is to be kept.

    Raises ``OutOfSpace`` before anything is made, ``ConfigInvalid`` where the account cannot enter the parent.
    """
    folder = Path(tempfile.mkdtemp(prefix="holdfast-demo-", dir=_parent(order, account))).resolve()
    try:
        folder.chmod(0o711)  # the server's account passes through to what is its own, and looks at nothing else
        yield folder
    finally:
        if not order.keep:
            shutil.rmtree(folder, ignore_errors=True)  # must not hide the error that ended the demo; run.py looks


def _parent(order: DemoOrder, account: Account | None) -> Path:
    needed = int(order.cluster_bytes * COPIES)
    if order.folder is not None:
        require_reachable(order.folder, account)
    parents = [order.folder] if order.folder else _parents(order.environment, account)
    for parent in parents:
        if shutil.disk_usage(parent).free >= needed:
            return parent
    looked_at = ", ".join(str(parent) for parent in parents) or "any temporary folder"
    raise OutOfSpace(
        f"the demo needs {needed / 1e9:.1f} GB of disk, and there is not that much free in {looked_at}",
        hint="Make room, or set TMPDIR to a folder on a disk with more of it that every account can enter.",
    )


def _parents(environment: Mapping[str, str], account: Account | None) -> list[Path]:
    named = environment.get("TMPDIR")
    found = [Path(name) for name in ((named,) if named else ()) + USUAL_PARENTS]
    return [parent for parent in dict.fromkeys(found) if parent.is_dir() and can_enter(parent, account)]
