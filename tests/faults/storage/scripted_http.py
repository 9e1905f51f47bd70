"""An HTTP server in front of another, or of nothing, that answers by a script: real bytes on a real connection."""

from __future__ import annotations

import contextlib
import http.client
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

UPSTREAM_SECONDS_MAX = 60
HANG_SECONDS_MAX = 30
STOP_POLL_SECONDS = 0.01
HOP_HEADERS = {"connection", "transfer-encoding", "keep-alive", "server", "date"}


@dataclass(frozen=True)
class Reply:
    """An answer of our own; ``announced`` differs from the body's length where it is to be cut off."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    announced: int | None = None


CUT = "cut"
HANG = "hang"
FORWARD = "forward"
LOSE_ANSWER = "lose the answer"
Action = Reply | str


@dataclass
class Script:
    """Decides each request, and keeps what came: method, path and headers in small letters."""

    decide: Callable[[str, str], Action]
    upstream: str = ""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)


def failing_at_random(upstream: str, probability: float, seed: int) -> Script:
    """A script that fails requests at random, half of the ways after the work was done."""
    chance = random.Random(seed)
    lock = threading.Lock()
    failures: list[Action] = [Reply(500), Reply(503), CUT, LOSE_ANSWER, LOSE_ANSWER, LOSE_ANSWER]

    def decide(_method: str, _path: str) -> Action:
        with lock:
            return chance.choice(failures) if chance.random() < probability else FORWARD

    return Script(decide, upstream)


@contextlib.contextmanager
def serving(script: Script) -> Iterator[str]:
    """Give the endpoint of a server that follows the script."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            script.requests.append((self.command, self.path, {key.lower(): text for key, text in self.headers.items()}))
            action = script.decide(self.command, self.path)
            if action == HANG:
                script.released.wait(HANG_SECONDS_MAX)
            if isinstance(action, str) and action in {FORWARD, LOSE_ANSWER}:
                reply = self.forwarded(body)
                if action == FORWARD:
                    self.answer(reply)
                    return
            if isinstance(action, Reply):
                self.answer(action)
            else:
                self.close_connection = True

        def forwarded(self, body: bytes) -> Reply:
            parts = urlsplit(script.upstream)
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=UPSTREAM_SECONDS_MAX)
            try:
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for key, text in self.headers.items():
                    connection.putheader(key, text)
                connection.endheaders(body)
                response = connection.getresponse()
                content = response.read()
                headers = {key: text for key, text in response.getheaders() if key.lower() not in HOP_HEADERS}
                announced = int(headers.pop("Content-Length", headers.pop("content-length", len(content))))
                return Reply(response.status, content, headers, announced)
            finally:
                connection.close()

        def answer(self, reply: Reply) -> None:
            announced = len(reply.body) if reply.announced is None else reply.announced
            self.send_response(reply.status)
            for key, text in reply.headers.items():
                self.send_header(key, text)
            self.send_header("content-length", str(announced))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body)
                self.close_connection = len(reply.body) != announced

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = handle_any

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_: object) -> None:
            """Clients that give up are part of the script."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(STOP_POLL_SECONDS,), name="scripted-http", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        script.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
