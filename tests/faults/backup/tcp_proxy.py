"""A way to a server that can be cut, or fall silent without a word."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

LOCAL_ADDRESS = "127.0.0.1"
BYTES_AT_ONCE = 65536
POLL_SECONDS = 0.05


class Proxy:
    """Passes bytes on between whoever connects and one port of this machine."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server((LOCAL_ADDRESS, 0))
        self._listener.settimeout(POLL_SECONDS)
        self.port: int = self._listener.getsockname()[1]
        self._flowing = threading.Event()
        self._flowing.set()
        self._closed = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, name="proxy", daemon=True)]
        self._threads[0].start()

    def fall_silent(self) -> None:
        """Pass nothing on any more; every connection stays open."""
        self._flowing.clear()

    def cut(self) -> None:
        """End every connection, and take none from now on."""
        self._closed.set()
        self._listener.close()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Cut, and wait until nothing of it runs any more. May be repeated."""
        self.cut()
        self._flowing.set()
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            client.setblocking(True)
            server = socket.create_connection((LOCAL_ADDRESS, self._target_port))
            self._sockets += [client, server]
            for origin, target in ((client, server), (server, client)):
                thread = threading.Thread(target=self._pass_on, args=(origin, target), name="proxy", daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pass_on(self, origin: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := origin.recv(BYTES_AT_ONCE):
                self._flowing.wait()
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    """Give a proxy to a port of this machine that lives as long as the context."""
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
