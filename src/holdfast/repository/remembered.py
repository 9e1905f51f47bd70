"""The newest history entry this host has seen of each area: what tells a rollback (docs/format.md, section 13)."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from holdfast.model.documents import encode_document
from holdfast.model.errors import Denied, IntegrityBroken
from holdfast.repository.area import Area


def ignore_trouble(_: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """Small files below ``folder``, one for each store and area. Losing them loses only the memory.

    ``on_trouble`` is told where nothing can be written there: that is no reason to fail, but a rollback would go
    unnoticed.
    """

    folder: Path
    on_trouble: Callable[[str], None] = ignore_trouble

    def _path(self, area: Area) -> Path:
        return self.folder / f"{area.keys.repository.hex()}-{area.store_id.hex()}" / area.keys.area.hex()

    def seen(self, area: Area) -> tuple[int, bytes] | None:
        """Return number and object hash of the newest entry seen.

        Raises ``IntegrityBroken`` for a damaged file, ``Denied`` for one that cannot be read.
        """
        path = self._path(area)
        try:
            document = json.loads(path.read_bytes())
            number, digest = document["number"], document["hash"]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise Denied(
                f"{path} cannot be read: {error.strerror}",
                hint="It holds the newest history entry this host has seen. Check its owner and mode, or set "
                "HOLDFAST_STATE_DIR to a folder of this user.",
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityBroken(
                f"{path} is damaged; it holds the newest history entry this host has seen of {area.title}",
                hint="Remove the file to begin anew; only the memory of what was seen is lost.",
            ) from error
        if not isinstance(number, int) or not re.fullmatch("[0-9a-f]{64}", str(digest)):
            raise IntegrityBroken(
                f"{path} is damaged", hint="Remove the file; only the memory of what was seen is lost."
            )
        return number, bytes.fromhex(digest)

    def remember(self, area: Area, number: int, digest: bytes) -> None:
        """Note what was seen."""
        seen = self.seen(area)
        if seen is not None and seen[0] >= number:
            return
        document = encode_document({"number": number, "hash": digest.hex(), "store": area.store.url})
        try:
            _replace(self._path(area), document)
        except OSError as error:
            self.on_trouble(
                f"what was seen of {area.title} cannot be remembered in {self.folder} ({error.strerror}): a rollback "
                "of the repository would go unnoticed here; set HOLDFAST_STATE_DIR to a folder that can be written"
            )


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    staging = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        with staging.open("wb") as file:
            file.write(content)
            file.flush()
            # Before the name: a power cut must not leave an empty file, which would be taken for damage.
            os.fsync(file.fileno())
        staging.replace(path)
    except OSError:
        staging.unlink(missing_ok=True)
        raise
