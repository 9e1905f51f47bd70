"""The newest history entry this host has seen of each area: what tells a rollback (docs/format.md, section 13)."""

from __future__ import annotations

import json
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path

from holdfast.model.documents import encode_document
from holdfast.model.errors import IntegrityBroken
from holdfast.repository.area import Area


@dataclass(frozen=True, slots=True)
class Remembered:
    """Small files below ``folder``, one for each store and area. Losing them loses only the memory."""

    folder: Path

    def _path(self, area: Area) -> Path:
        return self.folder / f"{area.keys.repository.hex()}-{area.store_id.hex()}" / area.keys.area.hex()

    def seen(self, area: Area) -> tuple[int, bytes] | None:
        """Return number and object hash of the newest entry seen; raises ``IntegrityBroken`` for a damaged file."""
        path = self._path(area)
        try:
            document = json.loads(path.read_bytes())
            number, digest = document["number"], document["hash"]
        except FileNotFoundError:
            return None
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
        """Note what was seen. Raises OSError where the folder cannot be written."""
        seen = self.seen(area)
        if seen is not None and seen[0] >= number:
            return
        path = self._path(area)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        staging = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}")
        staging.write_bytes(encode_document({"number": number, "hash": digest.hex(), "store": area.store.url}))
        staging.replace(path)
