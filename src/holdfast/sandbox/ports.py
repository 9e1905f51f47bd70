"""Free ports of 127.0.0.1."""

from __future__ import annotations

import random
import socket

from holdfast.model.errors import SourceFailed

LOCAL_ADDRESS = "127.0.0.1"
PORT_FIRST = 20_000
PORT_LAST = 32_000
"""Below the ports that systems hand to outgoing connections (Linux from 32768): nobody gets ours between two starts."""

PORT_ATTEMPTS_MAX = 200


def free_port(source: random.Random) -> int:
    """Find a port that nobody listens on now. Another process may still be faster: the caller tries again."""
    for _ in range(PORT_ATTEMPTS_MAX):
        port = source.randint(PORT_FIRST, PORT_LAST)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL itself does
            try:
                probe.bind((LOCAL_ADDRESS, port))
            except OSError:
                continue
            return port
    raise SourceFailed(
        f"no free port between {PORT_FIRST} and {PORT_LAST} on {LOCAL_ADDRESS}",
        hint="Many servers are running here: stop what is not needed, then try again.",
    )
