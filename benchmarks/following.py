"""Following the log, replaying it, and files of it by command: speed, lag, CPU and memory, each beside a peer.

python -m benchmarks.following [stream] [lag] [sync] [replay] [files]     all of them without a name; needs 12 GB
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.peers import Bench, Results
from holdfast.backup.following import LogSettings, LogSurroundings, open_log
from holdfast.model.logs import Generation
from holdfast.model.secrets import Secret
from holdfast.repository.area import Area
from holdfast.repository.format.names import RunId
from holdfast.repository.keyring import Passphrase
from holdfast.repository.repository import create_repository, open_repository
from holdfast.sandbox import PostgresSettings, ThrowawayPostgres, newest_postgres, server_account
from holdfast.sandbox.folders import hand_over, sandbox_folder
from holdfast.storage.folder import FolderStore
from holdfast.storage.settled import SettledStore

STREAM_BYTES = 3 << 30
PIECE_BYTES = 128 << 10
REPLAY_BYTES = 2 << 30
FILES = 64
SEGMENT_BYTES = 16 << 20
PARAMETERS = {
    "fsync": "on",
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "wal_keep_size": "6GB",
    "checkpoint_timeout": "1h",
}


@contextmanager
def bench_server(**more: str) -> Iterator[Bench]:
    """Give a server in a folder of its own, and what runs commands beside it."""
    account = server_account()
    with sandbox_folder(account) as root:
        root.chmod(0o777)
        settings = PostgresSettings(parameters=PARAMETERS | more)
        server = ThrowawayPostgres(newest_postgres(), root / "server", settings)
        server.start()
        try:
            yield Bench(root, server, account.name if account else None, Results())
        finally:
            server.close()


def ask(bench: Bench, query: str) -> str:
    words = ["psql", "-XqAt", "-d", bench.server.connection_string("postgres"), "-c", query]
    return subprocess.run(words, env=bench.environment, stdout=subprocess.PIPE, check=True, text=True).stdout.strip()


def configure(bench: Bench, flush: str) -> None:
    dsn = f"host={bench.server.sockets_folder} port={bench.server.port} user=postgres dbname=postgres"
    (bench.root / "holdfast.yaml").write_text(
        f"""application: bench
repositories:
  primary: {{url: "file://{bench.root / "holdfast"}"}}
keys: {{passphrase: {{env: HOLDFAST_PASSPHRASE}}}}
sources:
  bench: {{kind: postgres, dsn: "{dsn}", policy: {{log: {{flush: {flush}}}}}}}
"""
    )
    bench.environment["HOLDFAST_CONFIG"] = str(bench.root / "holdfast.yaml")
    bench.plain([*bench.holdfast, "init"])


@contextmanager
def follower(bench: Bench) -> Iterator[subprocess.Popen[bytes]]:
    """Follow as a process of its own; it has its base backup when the body begins."""
    with (bench.root / "follow.log").open("wb") as log:
        process = subprocess.Popen(
            [*bench.holdfast, "follow"], env=bench.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            until(lambda: b"first base backup" in (bench.root / "follow.log").read_bytes())
            yield process
        finally:
            process.terminate()
            process.wait(60)


def until(holds: Callable[[], bool], seconds_max: float = 300.0) -> float:
    """Wait until something holds; return the seconds that took."""
    begun = time.perf_counter()
    while not holds():
        if time.perf_counter() - begun > seconds_max:
            raise SystemExit("waited too long")
        time.sleep(0.02)
    return time.perf_counter() - begun


def used_by(process: subprocess.Popen[bytes]) -> tuple[float, float]:
    """Return CPU seconds so far and peak MiB of a process that runs."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    peak = int(Path(f"/proc/{process.pid}/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return cpu, peak


def segments(bench: Bench) -> list[Path]:
    """Return the complete segments, oldest first."""
    current = ask(bench, "SELECT pg_walfile_name(pg_switch_wal())")
    found = sorted(path for path in (bench.server.data_folder / "pg_wal").iterdir() if len(path.name) == 24)
    return [path for path in found if path.name <= current]


def write_load(bench: Bench, seconds: int, clients: int = 8) -> str:
    """Run pgbench; return its transactions per second."""
    words = ["pgbench", "-n", "-c", str(clients), "-j", "2", "-T", str(seconds)]
    done = subprocess.run(
        [*words, bench.server.connection_string("postgres")],
        env=bench.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True,
    )  # fmt: skip
    return next(line.split()[2] for line in done.stdout.splitlines() if line.startswith("tps"))


def fill(bench: Bench, scale: int = 40) -> None:
    bench.plain(["pgbench", "-q", "-i", "-s", str(scale), bench.server.connection_string("postgres")])


# The measurements


def stream() -> None:
    """Store a log of ordinary compressibility as fast as it comes, beside the disk's own speed."""
    with bench_server() as bench:
        fill(bench)
        write_load(bench, 20)
        content = b"".join(path.read_bytes() for path in segments(bench))[: 512 << 20]
        folder = bench.root / "holdfast"
        store = SettledStore(FolderStore(folder))
        create_repository(store, Passphrase(Secret("a passphrase for a measurement")), "bench", datetime.now(UTC))
        opened = open_repository(store, [Passphrase(Secret("a passphrase for a measurement"))])
        area = Area(store, opened.store_id, opened.keys.area_of("bench", "bench"), "bench", "bench")
        wall, cpu, stored = _stream(area, content)
        begun = time.perf_counter()
        with (bench.root / "plain").open("wb") as file:
            written = 0
            while written < stored:
                written += file.write(content[: min(16 << 20, stored - written)])
                os.fsync(file.fileno())
        disk = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"stream: {STREAM_BYTES / 1e9:.1f} GB in {wall:.1f} s, {STREAM_BYTES / wall / 1e6:.0f} MB/s, "
        f"{cpu / (STREAM_BYTES / 1e9):.1f} CPU s per GB, stored {stored / 1e6:.0f} MB, peak {peak:.0f} MiB (with "
        f"{len(content) >> 20} MiB of log held by this script); "
        f"as many stored bytes in plain files of 16 MiB with fsync: {disk:.1f} s"
    )


def _stream(area: Area, content: bytes) -> tuple[float, float, int]:
    wake = threading.Event()
    with ThreadPoolExecutor(4) as executor:
        around = LogSurroundings(executor, RunId(os.urandom(16).hex()), lambda: datetime.now(UTC), print)
        begun, cpu = time.perf_counter(), time.process_time()
        with open_log([area], around, LogSettings()) as log:
            log.when_durable(wake.set)
            log.begin(Generation("0" * 32, 0))
            view, position = memoryview(content), 0
            while position < STREAM_BYTES:
                if not log.has_room:
                    wake.wait(0.05)
                    wake.clear()
                    continue
                at = position % (len(content) - PIECE_BYTES)
                log.append(position, view[at : at + PIECE_BYTES])
                position += PIECE_BYTES
            if not log.flush(120):
                raise SystemExit("the log was not stored")
            figures = log.figures
        return time.perf_counter() - begun, time.process_time() - cpu, figures.stored_bytes


def lag() -> None:
    """Follow pgbench, and see how soon everything is durable once it stops."""
    with bench_server() as bench:
        fill(bench)
        configure(bench, "500ms")
        with follower(bench) as process:
            before, start = used_by(process)[0], ask(bench, "SELECT pg_current_wal_insert_lsn()")
            tps = write_load(bench, 30)
            end = ask(bench, "SELECT pg_current_wal_insert_lsn()")
            durable = f"SELECT coalesce(bool_and(flush_lsn >= '{end}'), false) FROM pg_stat_replication"
            behind = until(lambda: ask(bench, durable) == "t")
            cpu, peak = used_by(process)
        size = int(ask(bench, f"SELECT pg_wal_lsn_diff('{end}', '{start}')::bigint"))
    print(
        f"lag: {size / 1e6:.0f} MB of log in 30 s by pgbench -c 8 ({tps} tps); all durable {behind:.2f} s after the "
        f"load (flush: 500ms); {(cpu - before) / (size / 1e9):.1f} CPU s per GB, peak {peak:.0f} MiB"
    )


def sync() -> None:
    """Commit synchronously to the repository, beside a server that waits for nobody."""
    with bench_server() as bench:
        fill(bench, 10)
        alone = write_load(bench, 15)
        configure(bench, "5s")
        with follower(bench):
            bench.psql("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
            time.sleep(2)
            together = write_load(bench, 20)
            bench.psql("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
    print(f"sync: pgbench -c 8 makes {alone} commits a second alone, {together} with synchronous_standby_names = '*'")


def replay() -> None:
    """Bring back some GB of log with holdfast, and with cp as restore_command."""
    with bench_server(archive_mode="on") as bench:
        archive = bench.root / "archive"
        archive.mkdir()
        hand_over(archive, server_account())
        bench.psql(f"ALTER SYSTEM SET archive_command = 'cp %p {archive}/%f'", "SELECT pg_reload_conf()")
        fill(bench, 10)
        configure(bench, "5s")
        peer = bench.root / "peer"
        host = ["-h", str(bench.server.sockets_folder), "-p", str(bench.server.port), "-U", "postgres"]
        bench.plain(["pg_basebackup", "-D", str(peer), "-c", "fast", "-X", "stream", *host], True)
        with follower(bench):
            bench.psql("CREATE TABLE large (id bigint, word text)", "CREATE INDEX ON large (id)")
            start = ask(bench, "SELECT pg_current_wal_lsn()")
            insert = "INSERT INTO large SELECT n, md5(n::text) FROM generate_series(1, 400000) n"
            while int(ask(bench, f"SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '{start}')::bigint")) < REPLAY_BYTES:
                bench.psql(insert, "UPDATE pgbench_accounts SET abalance = abalance + 1")
            end = ask(bench, "SELECT pg_switch_wal()")
            rows = ask(bench, "SELECT count(*) FROM large")
            until(lambda: ask(bench, "SELECT last_archived_wal >= pg_walfile_name("
                                     f"'{end}'::pg_lsn - 1) FROM pg_stat_archiver") == "t")  # fmt: skip
            size = int(ask(bench, f"SELECT pg_wal_lsn_diff('{end}', '{start}')::bigint"))
        ours, alone = bench.root / "ours", bench.root / "alone"
        os.sync()
        with_log = timed(bench, "restore", "bench", "--latest", "--into", str(ours))
        without = timed(bench, "restore", "bench", "--backup", "latest", "--into", str(alone))
        shutil.rmtree(alone)
        os.sync()
        hand_over(ours, server_account())
        started = recover(bench, ours, rows)
        with (peer / "postgresql.auto.conf").open("a") as file:
            file.write(f"restore_command = 'cp {archive}/%f %p'\narchive_mode = off\n")
        (peer / "recovery.signal").touch()
        hand_over(peer, server_account())
        os.sync()
        copied = recover(bench, peer, rows)
    log_seconds = max(0.0, with_log - without)
    print(
        f"replay: {size / 1e9:.2f} GB of log: holdfast brings it back in {log_seconds:.1f} s (restores of "
        f"{with_log:.1f} s with it and {without:.1f} s without), the server replays it in "
        f"{started:.1f} s; with cp {copied:.1f} s; ratio {(log_seconds + started) / copied:.2f}"
    )


def timed(bench: Bench, *words: str) -> float:
    begun = time.perf_counter()
    bench.plain([*bench.holdfast, *words, "--quiet"])
    return time.perf_counter() - begun


def recover(bench: Bench, folder: Path, rows: str) -> float:
    """Start a folder, and return the seconds until it takes writes; everything must be there."""
    settings = PostgresSettings(parameters={"shared_buffers": "512MB"}, start_seconds_max=600)
    place = bench.root / f"server-{folder.name}"
    server = ThrowawayPostgres(bench.server.programs, place, settings, data_folder=folder)
    begun = time.perf_counter()
    server.start()
    try:
        again = Bench(bench.root, server, bench.user, Results())
        until(lambda: ask(again, "SELECT pg_is_in_recovery()") == "f", 600)
        took = time.perf_counter() - begun
        if ask(again, "SELECT count(*) FROM large") != rows:
            raise SystemExit(f"{folder.name} does not hold all rows")
    finally:
        server.close()
    return took


def files() -> None:
    """Push and fetch segments by command, one process each, as the server would; pgBackRest is asynchronous."""
    with bench_server(archive_mode="on", archive_command="/bin/true") as bench:
        fill(bench, 80)
        write_load(bench, 20)
        (bench.root / "pgbackrest.conf").touch()
        bench.prepare_pgbackrest()
        with (bench.root / "pgbackrest.conf").open("a") as file:
            file.write("archive-async=y\narchive-get-queue-max=256MiB\n")
        configure(bench, "5s")
        chosen = segments(bench)[:FILES]
        results: dict[str, list[float]] = {}
        pushed = "wal push: holdfast", "archive-push: pgbackrest"
        for number, path in enumerate(waiting(bench, chosen)):
            _one(bench, results, pushed[0], [*bench.holdfast, "wal", "push", str(path)], number)
            ready = path.parent / "archive_status" / f"{path.name}.ready"
            ready.rename(ready.with_suffix(".done"))
        bench.psql("ALTER SYSTEM SET archive_command = '/bin/false'", "SELECT pg_reload_conf()")
        for path in chosen:
            ready = path.parent / "archive_status" / f"{path.name}.ready"
            ready.with_suffix(".done").unlink(missing_ok=True)
            ready.touch()
            hand_over(ready, server_account())
        for number, path in enumerate(chosen):
            _one(bench, results, pushed[1], [*bench.pgbackrest, "archive-push", str(path)], number, as_server=True)
        target = bench.root / "fetched"
        target.mkdir(mode=0o777)
        target.chmod(0o777)
        for number, path in enumerate(chosen):
            words = [*bench.holdfast, "wal", "fetch", path.name, str(target / f"h{number}")]
            _one(bench, results, "wal fetch: holdfast", words, number)
        for number, path in enumerate(chosen):
            words = [*bench.pgbackrest, "archive-get", path.name, str(target / f"p{number}")]
            _one(bench, results, "archive-get: pgbackrest", words, number, as_server=True)
    for name, times in results.items():
        times.sort()
        mean, median = sum(times) / len(times), times[len(times) // 2]
        print(
            f"files: {name}: {len(times)} segments, {1000 * mean:.0f} ms a segment (median {1000 * median:.0f} ms), "
            f"{SEGMENT_BYTES / mean / 1e6:.0f} MB/s"
        )


def waiting(bench: Bench, chosen: Sequence[Path]) -> list[Path]:
    """Return copies of segments in a folder that looks as a server's does whose archiver is behind."""
    folder = bench.root / "behind" / "pg_wal"
    (folder / "archive_status").mkdir(parents=True)
    for path in chosen:
        shutil.copy(path, folder / path.name)
        (folder / "archive_status" / f"{path.name}.ready").touch()
    return [folder / path.name for path in chosen]


def _one(
    bench: Bench, results: dict[str, list[float]], name: str, words: Sequence[str], number: int, as_server: bool = False
) -> None:
    begun = time.perf_counter()
    bench.plain(words, as_server)
    results.setdefault(name, []).append(time.perf_counter() - begun)


MEASUREMENTS: dict[str, Callable[[], None]] = {
    "stream": stream, "lag": lag, "sync": sync, "replay": replay, "files": files,
}  # fmt: skip


def main() -> None:
    for name in sys.argv[1:] or MEASUREMENTS:
        MEASUREMENTS[name]()


if __name__ == "__main__":
    main()
