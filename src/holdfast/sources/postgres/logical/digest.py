"""The order-free digest of a table's rows (docs/format.md, the witness).

Source: XXH3-128 of the xxHash specification; the rows are the lines of PostgreSQL's COPY text format.
"""

from __future__ import annotations

from xxhash import xxh3_128_intdigest

MODULUS_MASK = (1 << 128) - 1
LINE_BYTES_MAX = 2 << 30
"""PostgreSQL builds no longer line than about 1 GiB."""


class TableDigest:
    """Adds up the digests of lines, in any order and cut into any pieces. Not for several threads at once."""

    def __init__(self) -> None:
        self._sum = 0
        self._rest = bytearray()
        self.rows = 0

    def feed(self, block: bytes) -> None:
        """Take the next bytes; a line may go on in the next block."""
        cut = block.rfind(b"\n")
        if cut < 0:
            self._rest += block
            return
        lines = block[:cut].split(b"\n")
        if self._rest:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest.clear()
        self._rest += block[cut + 1 :]
        self.rows += len(lines)
        self._sum += sum(map(xxh3_128_intdigest, lines))

    @property
    def is_complete(self) -> bool:
        """Whether the last line was ended."""
        return not self._rest

    def hexdigest(self) -> str:
        """Return the digest of the complete lines so far, 32 hexadecimal digits."""
        return f"{self._sum & MODULUS_MASK:032x}"
