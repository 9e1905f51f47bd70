"""Runs PostgreSQL's client programs: how they reach the server, what they say, and that they end."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from holdfast.model.errors import (
    ConfigInvalid,
    Denied,
    HoldfastError,
    Interrupted,
    OutOfSpace,
    SourceFailed,
    Unavailable,
)
from holdfast.sources.postgres.connection import Session
from holdfast.sources.postgres.failures import clean
from holdfast.sources.postgres.logical.private_files import hidden_file, path_of, private_folder

SERVICE = "holdfast"
BLOCK_BYTES = 1 << 20
BATCH_BYTES = 256 << 10
BATCH_SECONDS = 0.002
"""What wrote less than this is given so much time to write more: programs write 4 KiB at a time, and a block costs."""
SAID_BYTES_MAX = 16 << 10
TICK_SECONDS = 0.1
SILENCE_SECONDS_MAX = 3600.0
"""How long a child may neither say nor take anything: an index of a large table takes its time."""
END_SECONDS_MAX = 30.0

# Of what libpq knows, what every version of it since 12 knows: a service file with an unknown word is refused whole.
_KNOWN = re.compile(
    r"host|hostaddr|port|user|ssl(mode|cert|key|password|rootcert|crl|crldir|sni)|channel_binding|options|passfile|"
    r"ssl_(min|max)_protocol_version|gssencmode|krbsrvname|gsslib|connect_timeout|keepalives(_idle|_interval|_count)?|"
    r"tcp_user_timeout|application_name"
)

_PLACES = re.compile(rb"^psql:<stdin>:\d+: (?=\w)|^(psql:<stdin>:\d+: )?(LOCATION|LINE \d+):.*\n?", re.MULTILINE)
"""Where in psql's script and in the server's source something failed: of no use to an operator."""

_WORDS: tuple[tuple[str, type[HoldfastError], str], ...] = (
    (
        r"row-level security|row security",
        Denied,
        "Row security would hide rows from this role: ALTER ROLE ... BYPASSRLS (as a superuser).",
    ),
    (
        r"permission denied|must be (owner|superuser|member)|Only roles with|\b42501:",
        Denied,
        "Give the role what is named: `holdfast doctor` prints the exact statements.",
    ),
    (r"password authentication failed|no password supplied", Denied, "Check the password of this source."),
    (
        r"conflict with recovery",
        Unavailable,
        "The standby had to replay what this read would have hidden: raise max_standby_streaming_delay there, or set "
        "hot_standby_feedback = on, and run this again.",
    ),
    (
        r"lock timeout|\b55P03:",
        Unavailable,
        "Another session holds a lock on it; look at pg_locks, and run this again.",
    ),
    (
        r"No space left|disk full|could not (extend|write).*(space|quota)|Disk quota",
        OutOfSpace,
        "Make room where the message says, and run this again.",
    ),
    (
        r"server closed the connection|connection .*(lost|reset)|terminating connection|"
        r"could not (connect|receive|send)|connection to server .* failed|no connection to the server",
        Unavailable,
        "Read the server's log at this time: it restarted, ended the session, or the network broke.",
    ),
)


class ClientAccess:
    """How children reach the server a session is connected to. Use it as a context: its files live as long.

    The address and every secret stand in files that lie in memory and that children inherit; their arguments and
    their environment hold none, and no disk does.
    """

    def __init__(self, session: Session, password: str | None = None) -> None:
        params = session.resolved()
        self.secrets = tuple(value for value in (password, params.get("password"), params.get("sslpassword")) if value)
        self._password = password or params.get("password") or os.environ.get("PGPASSWORD")
        self._params = {name: value for name, value in params.items() if _KNOWN.fullmatch(name)}
        self._open = ExitStack()
        self._folder: Path | None = None
        self.files: tuple[int, ...] = ()
        self.environment: dict[str, str] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._folder = stack.enter_context(private_folder())
            params = dict(self._params)
            if self._password is not None:
                if "\n" in self._password:
                    raise ConfigInvalid(
                        "the password of this source has a line break", hint="No password file can hold one."
                    )
                escaped = self._password.replace("\\", "\\\\").replace(":", "\\:")
                params["passfile"] = self._hide(stack, "password", f"*:*:*:*:{escaped}\n")
            lines = [f"[{SERVICE}]"]
            for name, value in params.items():
                if "\n" in value or value != value.strip():
                    raise ConfigInvalid(
                        f"{name} of this source begins or ends with a blank, or has a line break",
                        hint="PostgreSQL's client programs cannot be given such a value.",
                    )
                lines.append(f"{name}={value}")
            service = self._hide(stack, "service", "\n".join(lines) + "\n")
            kept = {
                name: value for name, value in os.environ.items() if not name.startswith("PG") or name == "PGPASSFILE"
            }
            self.environment = {**kept, "PGSERVICEFILE": service, "LC_MESSAGES": "C", "PGTZ": "UTC"}
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def _hide(self, stack: ExitStack, name: str, text: str) -> str:
        fd = hidden_file(name, text)
        stack.callback(os.close, fd)
        self.files += (fd,)
        return path_of(fd)

    @property
    def folder(self) -> Path:
        """A private folder that ends with this context."""
        assert self._folder is not None
        return self._folder

    def address(self, database: str) -> str:
        """Return the connection string for a database; it holds no secret."""
        quoted = database.replace("\\", "\\\\").replace("'", "\\'")
        return f"service={SERVICE} dbname='{quoted}'"


class Child:
    """One running program with pipes; use it as a context, at whose end it is certainly gone."""

    def __init__(
        self,
        arguments: Sequence[str],
        access: ClientAccess,
        doing: str,
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> None:
        self._arguments = list(arguments)
        self._access = access
        self.doing = doing
        self._stop_requested = stop_requested
        self._said = bytearray()
        self._first: bytes | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: threading.Thread | None = None

    def __enter__(self) -> Self:
        try:
            self._process = subprocess.Popen(
                self._arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._access.environment,
                pass_fds=self._access.files,
                cwd="/",
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            raise SourceFailed(
                f"{self._arguments[0]} cannot be started: {error.strerror}",
                hint="Reinstall PostgreSQL's client programs.",
            ) from error
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # a limit of the machine: a smaller pipe does as well
                    fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, BLOCK_BYTES)
        self._listener = threading.Thread(target=self._listen, name="child-messages", daemon=True)
        self._listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._running
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if self._listener is not None:
            self._listener.join()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def pid(self) -> int:
        """The process id."""
        return self._running.pid

    @property
    def said(self) -> str:
        """What it wrote to standard error so far, bounded, without secrets."""
        return clean(_PLACES.sub(b"", bytes(self._said)), self._access.secrets)

    def _listen(self) -> None:
        pipe = self._running.stderr
        assert pipe is not None
        while block := os.read(pipe.fileno(), 4096):
            self._said += block
            del self._said[:-SAID_BYTES_MAX]  # Its last words say why it ended.

    def give(self, pieces: Iterable[bytes]) -> None:
        """Write to its standard input and end it. A child that ended early is told by ``finish``."""
        pipe = self._running.stdin
        assert pipe is not None
        with suppress(BrokenPipeError):
            for piece in pieces:
                self._write(pipe, piece)
        with suppress(OSError):
            pipe.close()

    def send(self, piece: bytes) -> None:
        """Write to its standard input, which stays open. A child that ended early is told by ``finish``."""
        pipe = self._running.stdin
        assert pipe is not None
        with suppress(BrokenPipeError):
            self._write(pipe, piece)

    def _write(self, pipe: IO[bytes], piece: bytes) -> None:
        os.set_blocking(pipe.fileno(), False)
        view = memoryview(piece)
        while view:
            self._ready(pipe, writing=True)
            with suppress(BlockingIOError):
                view = view[os.write(pipe.fileno(), view[:BLOCK_BYTES]) :]

    def begin(self) -> None:
        """Wait for its first output, which stays to be taken; raises what it failed with where there is none."""
        self._first = self._read()
        if not self._first:
            self.finish()
            raise SourceFailed(
                f"{self.doing}: {self._name} wrote nothing", hint="Reinstall PostgreSQL's client programs."
            )

    def take(self) -> Iterator[bytes]:
        """Yield its standard output in blocks until it ends it."""
        block, self._first = self._first, None
        if block is None:
            block = self._read()
        while block:
            yield block
            if len(block) < BATCH_BYTES:
                time.sleep(BATCH_SECONDS)
            block = self._read()

    def _read(self) -> bytes:
        pipe = self._running.stdout
        assert pipe is not None
        self._ready(pipe, writing=False)
        return os.read(pipe.fileno(), BLOCK_BYTES)

    def _ready(self, pipe: IO[bytes], *, writing: bool) -> None:
        poll = select.poll()
        poll.register(pipe.fileno(), select.POLLOUT if writing else select.POLLIN)
        deadline = time.monotonic() + SILENCE_SECONDS_MAX
        while not poll.poll(TICK_SECONDS * 1000):
            if self._stop_requested():
                raise Interrupted(f"stopped while {self.doing}")
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{self._name} was silent for too long while {self.doing}",
                    hint="Look at the server's load and locks.",
                )
        if self._stop_requested():
            raise Interrupted(f"stopped while {self.doing}")

    @property
    def _name(self) -> str:
        return Path(self._arguments[0]).name

    def finish(self) -> None:
        """Wait for its end; raises what it failed with, in its own words."""
        process = self._running
        deadline = time.monotonic() + SILENCE_SECONDS_MAX
        while True:
            try:
                code = process.wait(TICK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                if self._stop_requested():
                    raise Interrupted(f"stopped while {self.doing}") from None
                if time.monotonic() > deadline:
                    raise Unavailable(f"{self._name} does not end ({self.doing})") from None
        if self._listener is not None:
            self._listener.join(END_SECONDS_MAX)
        if code:
            raise child_failed(self._name, code, self.said, self.doing)


def child_failed(name: str, code: int, said: str, doing: str) -> HoldfastError:
    """Return the error for a program that ended with ``code``."""
    if code < 0:
        return SourceFailed(
            f"{doing}: {name} was ended by signal {-code}" + (f" ({said})" if said else ""),
            hint="Somebody killed it, or the machine ran out of memory; run this again.",
        )
    for pattern, kind, hint in _WORDS:
        if re.search(pattern, said, re.IGNORECASE):
            return kind(f"{doing}: {said}", hint=hint)
    return SourceFailed(f"{doing}: {name} ended with {code}: {said or 'without a word'}", hint="Read the server's log.")


def run_child(
    arguments: Sequence[str],
    access: ClientAccess,
    doing: str,
    stop_requested: Callable[[], bool] = lambda: False,
    *,
    give: Iterable[bytes] = (),
    take: Callable[[bytes], None] = lambda block: None,
) -> str:
    """Run a program to its end: what it is given first, then what it writes. Returns what it said; raises its failure.

    For programs that read everything before they write much: what waits in the pipe meanwhile is at most a block.
    """
    with Child(arguments, access, doing, stop_requested) as child:
        child.give(give)
        for block in child.take():
            take(block)
        child.finish()
        return child.said
