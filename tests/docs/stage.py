"""Where the commands of one page run: a folder of its own, a server, stand-ins for what only a real host has."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.docs.pages import ROOT, Block
from tests.integration.postgres_capture.servers import execute

from holdfast.sandbox import ThrowawayPostgres, server_account
from holdfast.sandbox.account import Account

PAGE_SECONDS_MAX = 400
STOP_SECONDS_MAX = 20
PASSWORD = "correct horse"
PASSPHRASE = "the words on your recovery kit"
ORDERS = 20_000

HOST_FOLDERS = ("/backups", "/etc/holdfast", "/var/tmp", "/var/lib", "/srv", "/mnt", "/media", "/opt", "/root")
"""Folders of the reader's host: they are moved below the page's own folder."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How the blocks of a page went: what each printed, those that were reached only."""

    exit_code: int
    outputs: tuple[str, ...]


class Stage:
    """Runs a page's blocks in one shell, in order. ``close`` stops every server that was started from its folder.

    What stands for what (the whole table; nothing else of a page is changed):

    - ``db.internal`` is 127.0.0.1, 5432 the port of the page's server, 5433 a free port;
    - ``/usr/lib/postgresql/17/bin`` is where its programs are, ``/var/lib/postgresql/17/main`` its data folder;
    - the folders of ``HOST_FOLDERS`` lie below the page's folder, and so does the home;
    - ``sudo -u postgres`` becomes the account that runs the servers, where we are root; ``chown`` hands to it;
    - ``systemctl`` starts and stops the page's server; ``pip`` does nothing, because holdfast is installed;
    - a block of SQL is given to psql, as the superuser, in the database ``shop``.
    """

    def __init__(self, folder: Path, server: ThrowawayPostgres, free_port: int) -> None:
        self.folder = folder
        self.server = server
        self.free_port = free_port
        self.account: Account | None = server_account()
        self._follower: subprocess.Popen[bytes] | None = None
        for name in ("bin", "home", "work", "var/tmp", "var/lib", "etc", "backups", "srv", "mnt/usb", "root"):
            (folder / name).mkdir(parents=True)
        for name in ("var/tmp", "srv", "mnt"):
            (folder / name).chmod(0o1777)
        (folder / "work" / "rescue").symlink_to(ROOT / "rescue")
        self._environment = self._make_environment()
        self._make_stand_ins()
        execute(server, "CREATE DATABASE shop")
        execute(
            server,
            "CREATE TABLE orders AS SELECT n AS id, md5(n::text) AS customer, n % 997 AS euro "
            f"FROM generate_series(1, {ORDERS}) n",
            "ALTER TABLE orders ADD PRIMARY KEY (id)",
            "CREATE UNLOGGED TABLE basket (id int)",
            database="shop",
        )

    # Before the page

    def give_role(self) -> None:
        """Make the role that getting started makes, and its password file."""
        execute(self.server, f"CREATE ROLE holdfast LOGIN REPLICATION PASSWORD '{PASSWORD}'")
        passfile = self.folder / "home" / ".pgpass"
        passfile.write_text(f"127.0.0.1:{self.server.port}:*:holdfast:{PASSWORD}\n")
        passfile.chmod(0o600)

    def set(self, **variables: str) -> None:
        self._environment |= variables

    def follow(self) -> None:
        """Start ``holdfast follow``; it ends with the stage."""
        program = str(self.folder / "bin" / "holdfast")
        with (self.folder / "follow.log").open("wb") as log:
            self._follower = subprocess.Popen(
                [program, "follow"], env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def run_before(self, commands: str) -> None:
        """Run what the page takes for granted. Written like a page."""
        ran = self.run([Block(0, "sh", "", commands)])
        assert ran.exit_code == 0, f"the stage could not be set:\n{ran.outputs[-1]}"

    # The page

    def run(self, page: Sequence[Block]) -> Ran:
        """Run blocks in one shell, as a reader would; the first that ends otherwise than it says ends it all."""
        marker = f"-- {secrets.token_hex(8)} --"
        script = "\n".join(self._script(block, marker) for block in page)
        path = self.folder / "page.sh"
        path.write_text(f"set -eu -o pipefail\n{script}\n")
        with subprocess.Popen(
            ["bash", str(path)],
            cwd=self.folder / "work",
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            try:
                output, _ = process.communicate(timeout=PAGE_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                output, _ = process.communicate()
                output += b"\n(killed: too slow)"
        parts = output.decode("utf-8", "replace").split(f"{marker}\n")[1:]
        return Ran(process.returncode, tuple(parts))

    def moved(self, text: str) -> str:
        """Return a text of a page with what stands for what is only on a real host."""
        pairs = {
            "/usr/lib/postgresql/17/bin": str(self.server.programs.folder),
            "/var/lib/postgresql/17/main": str(self.server.data_folder),
            "db.internal": "127.0.0.1",
            "5432": str(self.server.port),
            "5433": str(self.free_port),
            **{name: f"{self.folder}{name}" for name in HOST_FOLDERS},
        }
        pattern = "|".join(rf"{re.escape(name)}(?![\w])" for name in pairs)
        return re.sub(pattern, lambda found: pairs[found[0]], text)

    def close(self) -> None:
        """Stop what the page left running: servers on folders below ours, and the page's own if it was restarted."""
        if self._follower is not None:
            self._follower.terminate()
            self._follower.wait(STOP_SECONDS_MAX * 2)
        places = [*self.folder.rglob("postmaster.pid"), self.server.data_folder / "postmaster.pid"]
        for place in places:
            try:
                pid = int(place.read_text().split("\n", 1)[0])
                os.kill(pid, signal.SIGQUIT)
            except (OSError, ValueError):
                continue
            until = time.monotonic() + STOP_SECONDS_MAX
            while place.exists() and time.monotonic() < until:
                time.sleep(0.02)

    def _script(self, block: Block, marker: str) -> str:
        text = self.moved(block.text)
        if block.language == "sql":
            text = f"psql -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -U postgres -d shop <<'SQL'\n{text}\nSQL"
        lines = [f"echo '{marker}'"]
        if block.exit_code:
            lines += ["set +e", f"(\n{text}\n)", "code=$?", "set -e"]
            lines += [f'[ $code = {block.exit_code} ] || {{ echo "ended with $code"; exit 99; }}']
        else:
            lines.append(text)
        return "\n".join(lines)

    def _make_environment(self) -> dict[str, str]:
        programs = f"{self.folder / 'bin'}:{self.server.programs.folder}:/usr/bin:/bin:/usr/sbin:/sbin"
        return {
            "PATH": programs,
            "HOME": str(self.folder / "home"),
            "LC_ALL": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",  # what a command says on both outputs comes in the order of a terminal
            "PGPORT": str(self.server.port),
            "PGHOST": "/tmp",
            "PGUSER": "postgres",
        }

    def _make_stand_ins(self) -> None:
        python = Path(sys.executable)
        data, programs = self.server.data_folder, self.server.programs.folder
        as_server = f"cd /; HOME=/ exec runuser -u {self.account.name} --" if self.account else "exec"
        own = self.account.name if self.account else ""
        options = f"-p {self.server.port} -c unix_socket_directories=/tmp -c listen_addresses=127.0.0.1"
        control = f"{self.folder / 'bin' / 'sudo'} -u postgres {programs / 'pg_ctl'} -w -s -D {data}"
        self._stand_in("holdfast", f'exec {shlex.quote(str(python))} -m holdfast "$@"')
        self._stand_in("python", f'exec {shlex.quote(str(python))} "$@"')
        self._stand_in("pip", "exit 0")
        self._stand_in("sudo", f'[ "$1" != -u ] || shift 2\n{as_server} "$@"')
        if own:
            self._stand_in(
                "chown", f'for word; do shift; set -- "$@" "${{word/#postgres:/{own}:}}"; done\nexec /bin/chown "$@"'
            )
        else:
            self._stand_in("chown", "exit 0")
        self._stand_in(
            "systemctl",
            f'case "$1" in\n'
            f"stop) exec {control} stop -m fast ;;\n"
            f"start) exec {control} -l {self.folder / 'var/tmp/main.log'} -o {shlex.quote(options)} start ;;\n"
            f'*) echo "systemctl $1 is not played here" >&2; exit 64 ;;\nesac',
        )

    def _stand_in(self, name: str, body: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
