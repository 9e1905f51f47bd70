"""The order-free digest of a table's rows (docs/format.md, section 14).

Source: XXH3-128 of the xxHash specification; the rows are the lines of PostgreSQL's COPY text format.
"""

from __future__ import annotations

import numpy as np
from xxhash import xxh3_128_digest

MODULUS_MASK = (1 << 128) - 1
WORDS = 4


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
        # Added in words of 32 bits, which 64 hold for four thousand million rows: half as slow as numbers of 128 bits.
        words = np.frombuffer(b"".join(map(xxh3_128_digest, lines)), ">u4").reshape(-1, WORDS)
        for word, total in enumerate(words.sum(axis=0, dtype=np.uint64).tolist()):
            self._sum += total << (32 * (WORDS - 1 - word))

    @property
    def is_complete(self) -> bool:
        """Whether the last line was ended."""
        return not self._rest

    def hexdigest(self) -> str:
        """Return the digest of the complete lines so far, 32 hexadecimal digits."""
        return f"{self._sum & MODULUS_MASK:032x}"
