"""A throwaway PostgreSQL server of this machine, as a context manager that leaves nothing running."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from holdfast.model.errors import SourceFailed
from holdfast.sandbox.account import Account, server_account, spawn
from holdfast.sandbox.cluster import log_excerpt, make_cluster, require_same_major, write_configuration
from holdfast.sandbox.folders import hand_over, make_private_folder, make_sandbox_folder, require_reachable
from holdfast.sandbox.lifeline import Lifeline
from holdfast.sandbox.ports import LOCAL_ADDRESS, free_port
from holdfast.sandbox.processes import ends_within, is_in_production, kill_with_children, postmaster_status
from holdfast.sandbox.programs import PostgresPrograms
from holdfast.sandbox.settings import RESTORED_OVERRIDES, PostgresSettings

START_ATTEMPTS_MAX = 5
POLL_SECONDS = 0.02
IMMEDIATE_SECONDS_MAX = 10.0
SOCKET_PATH_BYTES_MAX = 100
"""A socket's path may have 107 bytes on Linux and 103 on macOS, its name included."""

PORT_TAKEN = ("Address already in use", '.lock" already exists')
"""What PostgreSQL logs for a port and for a socket that somebody else has."""


class ThrowawayPostgres:
    """A PostgreSQL server of this machine that exists as long as the ``with`` block does.

    ``folder`` takes everything: ``data`` (made by initdb at the first start), ``run``, ``log``. It must be reachable
    by the account that runs the server (see ``sandbox_folder``); whoever made it removes it. With ``data_folder`` an
    existing cluster, such as a restored one, is started instead: root hands it over to the server's account, access
    rules are ours, and what could touch its source (archiving, synchronous standbys) is switched off; its own files
    stay as they are.

    Stopped fast, then immediately, then by SIGKILL; and by a process beside us if we die ourselves.
    Start, stop, restart and kill may be repeated in any order. Not for use from several threads at once.
    """

    def __init__(
        self,
        programs: PostgresPrograms,
        folder: Path,
        settings: PostgresSettings | None = None,
        *,
        data_folder: Path | None = None,
    ) -> None:
        self.programs = programs
        self.folder = folder.resolve()
        self.settings = settings or PostgresSettings()
        self.data_folder = data_folder.resolve() if data_folder else self.folder / "data"
        self.log_path = self.folder / "log" / "postgres.log"
        self._is_restored = data_folder is not None
        self._port = self.settings.port
        self._sockets_folder = self.settings.sockets_folder
        self._short_folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: Lifeline | None = None
        self._log_start = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def port(self) -> int:
        """The port it listens on, and that names its socket. Known after the first start, then kept."""
        if self._port is None:
            raise SourceFailed(f"the server in {self.folder} has no port yet", hint="Start it first.")
        return self._port

    @property
    def sockets_folder(self) -> Path:
        """The folder of its socket. Known after the first start."""
        if self._sockets_folder is None:
            raise SourceFailed(f"the server in {self.folder} has no socket yet", hint="Start it first.")
        return self._sockets_folder

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs, else None."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def is_running(self) -> bool:
        """Tell whether the server's process is alive."""
        return self.pid is not None

    def start(self) -> None:
        """Make the cluster if there is none, start it and wait until it answers. Does nothing while it runs.

        Raises SourceFailed with the end of the server's log; then nothing is left running.
        """
        if self.is_running():
            return
        self.stop()  # of a server that ended by itself: its lifeline still waits
        account = server_account()
        self._prepare(account)
        for attempt in range(1, START_ATTEMPTS_MAX + 1):
            is_ours_to_choose = self._port is None
            try:
                self._launch(account, self._port or free_port(random.SystemRandom()))
            except _PortTakenError as error:  # somebody was faster between our look and the server's start
                if not is_ours_to_choose or attempt == START_ATTEMPTS_MAX:
                    raise SourceFailed(error.message, hint="Choose another port, or none for a free one.") from error
            else:
                return

    def stop(self) -> None:
        """Stop it: fast, then immediately, then by SIGKILL, each with a bound. May be repeated."""
        process, self._process = self._process, None
        lifeline, self._lifeline = self._lifeline, None
        try:
            if process:
                self._end(process)
        finally:
            if lifeline:
                lifeline.release()

    def restart(self) -> None:
        """Stop it and start it again on the same port."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """End it at once as a crash of the server would, without a shutdown checkpoint. It can be started again."""
        if self._process:
            kill_with_children(self._process)
        self.stop()

    def close(self) -> None:
        """Stop it and remove what lies outside its folder. May be repeated."""
        try:
            self.stop()
        finally:
            if self._short_folder:
                shutil.rmtree(self._short_folder, ignore_errors=True)
                self._short_folder, self._sockets_folder = None, None

    def connection_string(self, database: str = "postgres") -> str:
        """Compose a libpq connection string for the superuser; the password stays in a file that it names."""
        host = LOCAL_ADDRESS if self.settings.listen else str(self.sockets_folder)
        facts = {"host": host, "port": str(self.port), "user": self.settings.superuser, "dbname": database}
        if self.settings.password is not None:
            facts["passfile"] = str(self._passfile)
        return " ".join(f"{name}={_quoted(value)}" for name, value in facts.items())

    def log_excerpt(self) -> str:
        """Read the last lines that the server wrote since its last start."""
        return log_excerpt(self.log_path, self._log_start)

    @property
    def _passfile(self) -> Path:
        return self.folder / "passfile"

    @property
    def _lock_path(self) -> Path:
        return self.data_folder / "postmaster.pid"

    def _prepare(self, account: Account | None) -> None:
        require_reachable(self.programs.folder, account)
        if not self.folder.exists():
            self.folder.mkdir(parents=True)
            self.folder.chmod(0o711)
        require_reachable(self.folder, account)
        for name in ("run", "log"):
            make_private_folder(self.folder / name, account)
        if self._is_restored:
            require_same_major(self.programs, self.data_folder)
            require_reachable(self.data_folder.parent, account)
            hand_over(self.data_folder, account)
            self._write_private(self.folder / "run" / "pg_hba.conf", self.settings.hba_text(), account)
        else:
            self._prepare_own(account)
        if self._sockets_folder is None:
            self._sockets_folder = self._private_sockets_folder(account)
        if self.settings.password is not None:
            self._write_private(self._passfile, f"*:*:*:*:{_escaped(self.settings.password)}\n", None)

    def _prepare_own(self, account: Account | None) -> None:
        if not (self.data_folder / "PG_VERSION").exists():
            run_folder = self.folder / "run"
            made = run_folder / "data"  # renamed when complete: a half made cluster is never taken for one
            shutil.rmtree(made, ignore_errors=True)
            make_private_folder(made, account)
            make_cluster(self.programs, made, self.settings, account)
            made.rename(self.data_folder)
        require_same_major(self.programs, self.data_folder)
        write_configuration(self.data_folder, self.settings, account)

    def _private_sockets_folder(self, account: Account | None) -> Path:
        folder = self.folder / "run"
        if len(os.fsencode(folder / ".s.PGSQL.65535")) <= SOCKET_PATH_BYTES_MAX:
            return folder
        self._short_folder = make_sandbox_folder(account, "hf-")
        make_private_folder(self._short_folder, account)
        return self._short_folder

    @staticmethod
    def _write_private(path: Path, text: str, account: Account | None) -> None:
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
            stream.write(text)
        if account:
            os.chown(path, account.user_id, account.group_id)

    def _options(self, port: int) -> dict[str, str]:
        ours = {
            "listen_addresses": LOCAL_ADDRESS if self.settings.listen else "",
            "lc_messages": "C",  # PORT_TAKEN is English
            "logging_collector": "off",
            "log_destination": "stderr",
            "port": str(port),
            "unix_socket_directories": _listed(str(self.sockets_folder)),
        }
        if not self._is_restored:
            return ours  # its parameters are in its own file, where ALTER SYSTEM can still override them
        ours["hba_file"] = str(self.folder / "run" / "pg_hba.conf")
        ours["data_directory"] = str(self.data_folder)  # a Debian configuration file names its source's
        return {**RESTORED_OVERRIDES, **self.settings.parameters, **ours}

    def _launch(self, account: Account | None, port: int) -> None:
        options = [part for name, value in self._options(port).items() for part in ("-c", f"{name}={value}")]
        arguments = [str(self.programs.path("postgres")), "-D", str(self.data_folder), *options]
        with self.log_path.open("ab") as log:
            self._log_start = log.tell()
            self._process = spawn(arguments, account, output=log, home=str(self.folder / "run"))
        try:
            self._lifeline = Lifeline(self._process.pid, self._lock_path)
            self._wait_until_ready(self._process)
        except BaseException:  # an interrupt too: whatever happens, no server stays behind
            self.stop()
            raise
        self._port = port

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self.settings.start_seconds_max
        while time.monotonic() < deadline:
            if process.poll() is not None:
                self._raise_start_failed(f"ended with code {process.returncode} while starting")
            if self._is_ready(process.pid):
                return
            time.sleep(POLL_SECONDS)
        self._raise_start_failed(f"was not ready after {self.settings.start_seconds_max:.0f} s")

    def _is_ready(self, pid: int) -> bool:
        if postmaster_status(self._lock_path, pid) != "ready":
            return False
        return self.settings.standby or is_in_production(self.data_folder / "global" / "pg_control")

    def _raise_start_failed(self, what: str) -> None:
        excerpt = self.log_excerpt()
        message = f"PostgreSQL {self.programs.version} in {self.data_folder} {what}:\n{excerpt}"
        if any(sign in excerpt for sign in PORT_TAKEN):
            raise _PortTakenError(message)
        raise SourceFailed(message, hint=f"Its log tells the cause: {self.log_path}")

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        bounds = ((signal.SIGINT, self.settings.stop_seconds_max), (signal.SIGQUIT, IMMEDIATE_SECONDS_MAX))
        try:
            for number, seconds in bounds:
                process.send_signal(number)
                if ends_within(process, seconds):
                    break
        finally:  # after an interrupt in the waits too
            if process.poll() is None:
                kill_with_children(process)


class _PortTakenError(SourceFailed):
    """The port was taken between our look and the server's start."""


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _escaped(password: str) -> str:
    return password.replace("\\", "\\\\").replace(":", "\\:")


def _listed(folder: str) -> str:
    """Quote a name for a parameter that is a list of names."""
    return '"' + folder.replace('"', '""') + '"'
