"""holdfast beside pgBackRest and restic on one cluster, in one run: time, CPU, memory, stored bytes, as ratios.

python -m benchmarks.peers [--scale N] [--rounds N] [--load SECONDS]     scale 180 makes a cluster of some 3.2 GB
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.sandbox import PostgresSettings, ThrowawayPostgres, newest_postgres, server_account
from holdfast.sandbox.folders import sandbox_folder

PROCESSES = 2
ORDERS_PER_SCALE = 8000


@dataclass(frozen=True)
class Measured:
    """One command: wall and CPU seconds, and the peak resident memory of its largest process in MiB."""

    wall: float
    cpu: float
    peak: float


@dataclass
class Results:
    """Measurements by (tool, step), and stored bytes by (tool, step)."""

    times: dict[tuple[str, str], list[Measured]] = field(default_factory=dict)
    stored: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def add(self, tool: str, step: str, measured: Measured) -> None:
        self.times.setdefault((tool, step), []).append(measured)
        print(f"  {tool:11} {step:12} {measured.wall:6.2f} s  cpu {measured.cpu:6.2f} s  {measured.peak:5.0f} MiB")

    def keep(self, tool: str, step: str, size: int) -> None:
        self.stored.setdefault((tool, step), []).append(size)


def run(command: Sequence[str], environment: Mapping[str, str], user: str | None) -> Measured:
    """Run a command to its end and account for it and all its children; stops the measurement if it fails."""
    begun = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            user=user,
            group=user,
            extra_groups=[] if user else None,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
        )
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            text = output.read()[-3000:].decode(errors="replace")
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{text}")
    return Measured(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def size_of(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


class Bench:
    """The cluster and the three tools around it, all below one folder."""

    def __init__(
        self, root: Path, server: ThrowawayPostgres, user: str | None, results: Results, database: str = "postgres"
    ) -> None:
        self.root = root
        self.server = server
        self.user = user
        self.results = results
        self.database = database
        self.environment = {
            "PATH": f"{server.programs.folder}:{os.environ['PATH']}",
            "HOME": str(root),
            "LC_ALL": "C.UTF-8",
            "HOLDFAST_PASSPHRASE": "a passphrase for a measurement",
            "HOLDFAST_STATE_DIR": str(root / "state"),
            "RESTIC_PASSWORD": "a passphrase for a measurement",
            "RESTIC_CACHE_DIR": str(root / "restic-cache"),
            "GOMAXPROCS": str(PROCESSES),
        }

    def measure(self, tool: str, step: str, command: Sequence[str], as_server: bool = False) -> None:
        user = self.user if as_server else None
        self.results.add(tool, step, run(command, self.environment, user))

    def plain(self, command: Sequence[str], as_server: bool = False) -> None:
        run(command, self.environment, self.user if as_server else None)

    def psql(self, *statements: str, database: str = "postgres") -> None:
        commands = [part for statement in statements for part in ("-c", statement)]
        self.plain(["psql", "-qX", "-d", self.server.connection_string(database), *commands], as_server=True)

    # pgBackRest

    @property
    def pgbackrest(self) -> list[str]:
        return ["pgbackrest", f"--config={self.root / 'pgbackrest.conf'}", "--stanza=bench"]

    def prepare_pgbackrest(self) -> None:
        version = subprocess.run(["pgbackrest", "version"], stdout=subprocess.PIPE, check=True).stdout.split()[1]
        # Block incremental backups came with 2.46; earlier ones copy changed files whole.
        block = "repo1-block=y\n" if tuple(map(int, version.split(b".")[:2])) >= (2, 46) else ""
        (self.root / "pgbackrest.conf").write_text(
            f"""[global]
repo1-path={self.root / "pgbackrest"}
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass=a-passphrase-for-a-measurement
repo1-bundle=y
{block}repo1-retention-full=9
compress-type=zst
compress-level=3
process-max={PROCESSES}
start-fast=y
log-level-file=off
log-level-console=warn
lock-path={self.root / "lock"}
spool-path={self.root / "spool"}

[bench]
pg1-path={self.server.data_folder}
pg1-port={self.server.port}
pg1-socket-path={self.server.sockets_folder}
pg1-user=postgres
"""
        )
        (self.root / "pgbackrest.conf").chmod(0o644)
        self.plain([*self.pgbackrest, "stanza-create"], as_server=True)

    # holdfast

    @property
    def holdfast(self) -> list[str]:
        return [sys.executable, "-m", "holdfast"]

    def prepare_holdfast(self) -> None:
        dsn = f"host={self.server.sockets_folder} port={self.server.port} user=holdfast dbname=postgres"
        (self.root / "holdfast.yaml").write_text(
            f"""application: bench
repositories:
  primary: {{url: "file://{self.root / "holdfast"}"}}
keys: {{passphrase: {{env: HOLDFAST_PASSPHRASE}}}}
sources:
  bench: {{kind: postgres, dsn: "{dsn}"}}
"""
        )
        self.plain([*self.holdfast, "init", "--config", str(self.root / "holdfast.yaml")])

    def with_config(self, *words: str) -> list[str]:
        return [*self.holdfast, words[0], "--config", str(self.root / "holdfast.yaml"), "--quiet", *words[1:]]


def fill(bench: Bench, scale: int) -> None:
    """Load pgbench's tables and one with jsonb: some 17 MB for each step of the scale."""
    address = bench.server.connection_string(bench.database)
    bench.plain(["pgbench", "-q", "-i", "-I", "dtGvp", "-s", str(scale), address], True)
    bench.psql(
        "create table orders as select g as id, now() - g * interval '1 s' as at, jsonb_build_object('customer', "
        "g % 9973, 'sku', md5(g::text), 'qty', g % 7, 'note', repeat(md5((g % 1000)::text), 3)) as doc "
        f"from generate_series(1, {ORDERS_PER_SCALE * scale}) g",
        database=bench.database,
    )


def one_round(bench: Bench, load_seconds: int) -> None:
    """Take a full backup with each tool, then the next after some load, then restore each; everything from empty."""
    root = bench.root
    for name in ("pgbackrest", "holdfast", "restic", "state", "restic-cache"):
        shutil.rmtree(root / name, ignore_errors=True)
    bench.prepare_pgbackrest()
    bench.prepare_holdfast()
    bench.plain(["restic", "init", "-q", "-r", str(root / "restic")])
    bench.psql("checkpoint")
    backups: list[tuple[str, Callable[[str], None]]] = [
        ("pgbackrest", lambda step: bench.measure(
            "pgbackrest", step, [*bench.pgbackrest, f"--type={'full' if step == 'full' else 'incr'}", "backup"], True)),
        ("holdfast", lambda step: bench.measure(
            "holdfast", step, bench.with_config("backup", "--tier", "full" if step == "full" else "incremental"))),
        ("restic", lambda step: bench.measure(
            "restic", step, ["restic", "-q", "-r", str(root / "restic"), "backup", "--exclude=postmaster.pid",
                             "--exclude=pg_wal/*", str(bench.server.data_folder)])),
    ]  # fmt: skip
    for step in ("full", "next"):
        if step == "next":
            bench.plain(
                ["pgbench", "-n", "-c", "4", "-T", str(load_seconds), bench.server.connection_string("postgres")], True
            )
            bench.psql("checkpoint")
        for tool, act in backups:
            before = size_of(root / tool)
            act(step)
            bench.results.keep(tool, step, size_of(root / tool) - before)
    restores = {
        "pgbackrest": [*bench.pgbackrest, f"--pg1-path={root / 'to-pgbackrest'}", "restore"],
        "holdfast": bench.with_config("restore", "bench", "--into", str(root / "to-holdfast"), "--yes"),
        "restic": [
            "restic",
            "-q",
            "-r",
            str(root / "restic"),
            "restore",
            "latest",
            "--target",
            str(root / "to-restic"),
        ],
    }
    for tool, command in restores.items():
        target = root / f"to-{tool}"
        if tool == "pgbackrest":
            target.mkdir(mode=0o700)
            if bench.user:
                shutil.chown(target, bench.user, bench.user)
        os.sync()
        bench.measure(tool, "restore", command, as_server=tool == "pgbackrest")
        shutil.rmtree(target)


def summary(results: Results, size: int) -> str:
    """Return the table for docs/benchmarks.md: medians, and medians of the ratios round by round."""
    lines = [
        f"Cluster of {size / 1e9:.2f} GB, {os.cpu_count()} cores.",
        "",
        "| step | tool | wall s | CPU s | peak MiB | stored MB | wall to pgBackRest's | stored to pgBackRest's |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for step in ("full", "next", "restore"):
        peer = results.times["pgbackrest", step]
        for tool in ("pgbackrest", "holdfast", "restic"):
            mine = results.times[tool, step]
            ratio = statistics.median(a.wall / b.wall for a, b in zip(mine, peer, strict=True))
            stored, stored_ratio = "", ""
            if step != "restore":
                sizes, peers = results.stored[tool, step], results.stored["pgbackrest", step]
                stored = f"{statistics.median(sizes) / 1e6:.0f}"
                stored_ratio = f"{statistics.median(a / b for a, b in zip(sizes, peers, strict=True)):.2f}"
            wall, cpu = (statistics.median(getattr(each, name) for each in mine) for name in ("wall", "cpu"))
            peak = max(each.peak for each in mine)
            lines.append(
                f"| {step} | {tool} | {wall:.2f} | {cpu:.2f} | {peak:.0f} | {stored} | {ratio:.2f} | {stored_ratio} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=int, default=180)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--load", type=int, default=30)
    options = parser.parse_args()
    for program in ("pgbackrest", "restic"):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is not installed: run `make bench`, or install Debian's package of that name")
    account = server_account()
    results = Results()
    with sandbox_folder(account) as root:
        root.chmod(0o777)
        push = f"pgbackrest --config={root / 'pgbackrest.conf'} --stanza=bench archive-push %p"
        parameters = {"archive_mode": "on", "archive_command": push, "max_wal_senders": "8", "fsync": "off",
                      "shared_buffers": "512MB", "max_wal_size": "4GB", "wal_level": "replica"}  # fmt: skip
        settings = PostgresSettings(parameters=parameters)
        server = ThrowawayPostgres(newest_postgres(), root / "server", settings)
        server.start()
        try:
            bench = Bench(root, server, account.name if account else None, results)
            (root / "pgbackrest.conf").touch()
            bench.psql("create role holdfast login replication", "alter system set archive_command = '/bin/true'",
                       "select pg_reload_conf()")  # fmt: skip
            fill(bench, options.scale)
            bench.psql("alter system reset archive_command", "select pg_reload_conf()", "checkpoint")
            size = sum(
                path.stat().st_size
                for path in server.data_folder.rglob("*")
                if path.is_file() and "pg_wal" not in path.parts
            )
            for number in range(options.rounds):
                print(f"round {number + 1} of {options.rounds}")
                one_round(bench, options.load)
        finally:
            server.close()
    print()
    print(summary(results, size))


if __name__ == "__main__":
    main()
