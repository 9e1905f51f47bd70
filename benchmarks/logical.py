"""Logical backups beside pg_dump, and restores into a server beside pg_restore, on one cluster, in one run.

python -m benchmarks.logical [--scale N] [--rounds N]     scale 180 makes a database of some 3 GB
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics

from benchmarks.peers import Bench, Results, fill, size_of
from holdfast.sandbox import PostgresSettings, ThrowawayPostgres, newest_postgres, server_account
from holdfast.sandbox.folders import sandbox_folder

SCRIPT, DIRECTORY, HOLDFAST = "pg_dump -Fc, gzip", "pg_dump -Fd -j2 -Z1", "holdfast"
PG_RESTORE = "pg_restore -j2"
CHANGES = {
    "1 % in one place": "aid % 1000000 < 10000",
    "1 % everywhere": "aid % 100 = 0",
}


def configure(bench: Bench) -> None:
    for name in ("holdfast", "state"):
        shutil.rmtree(bench.root / name, ignore_errors=True)
    dsn = f"host={bench.server.sockets_folder} port={bench.server.port} user=postgres dbname=postgres"
    (bench.root / "holdfast.yaml").write_text(
        f"""application: bench
repositories:
  primary: {{url: "file://{bench.root / "holdfast"}"}}
keys: {{passphrase: {{env: HOLDFAST_PASSPHRASE}}}}
sources:
  bench: {{kind: postgres, dsn: "{dsn}", capture: [logical], logical: {{databases: [shop]}}}}
"""
    )
    bench.plain([*bench.holdfast, "init", "--config", str(bench.root / "holdfast.yaml")])


def one_round(bench: Bench) -> None:
    """Dump with each tool and restore each dump, then back up twice more after rows were changed."""
    root, server = bench.root, bench.server
    shop = server.connection_string("shop")
    configure(bench)
    shutil.rmtree(root / "dump", ignore_errors=True)
    bench.measure(SCRIPT, "dump", ["bash", "-c", f"pg_dump -Fc -d '{shop}' | gzip >'{root / 'dump.gz'}'"])
    bench.results.keep(SCRIPT, "dump", (root / "dump.gz").stat().st_size)
    bench.measure(DIRECTORY, "dump", ["pg_dump", "-Fd", "-j2", "-Z1", "-f", str(root / "dump"), "-d", shop])
    bench.results.keep(DIRECTORY, "dump", size_of(root / "dump"))
    bench.measure(HOLDFAST, "dump", bench.with_config("backup"))
    bench.results.keep(HOLDFAST, "dump", size_of(root / "holdfast"))
    bench.psql("drop database if exists peer", "create database peer", "checkpoint")
    os.sync()
    bench.measure(
        PG_RESTORE, "restore", ["pg_restore", "-j2", "-d", server.connection_string("peer"), str(root / "dump")]
    )
    bench.psql("drop database peer", "checkpoint")
    os.sync()
    target = f"postgresql:///again?host={server.sockets_folder}&port={server.port}&user=postgres"
    bench.measure(HOLDFAST, "restore", bench.with_config("restore", "bench", "--into", target, "--only", "shop"))
    bench.psql("drop database again")
    for name, where in CHANGES.items():
        change = f"update pgbench_accounts set abalance = abalance + 1 where {where}"
        bench.plain(["psql", "-qX", "-d", shop, "-c", change, "-c", "vacuum pgbench_accounts"], True)
        before = size_of(root / "holdfast")
        bench.measure(HOLDFAST, name, bench.with_config("backup"))
        bench.results.keep(HOLDFAST, name, size_of(root / "holdfast") - before)


def summary(results: Results) -> str:
    """Return the table for docs/benchmarks.md: medians over the rounds."""
    lines = [
        "| step | tool | wall s | CPU s | peak MiB | stored MB | holdfast's wall to its |",
        "|---|---|---|---|---|---|---|",
    ]
    for (tool, step), mine in results.times.items():
        own = results.times[HOLDFAST, step]
        ratio = statistics.median(b.wall / a.wall for a, b in zip(mine, own, strict=True))
        wall, cpu = (statistics.median(getattr(each, name) for each in mine) for name in ("wall", "cpu"))
        peak = max(each.peak for each in mine)
        stored = results.stored.get((tool, step))
        size = f"{statistics.median(stored) / 1e6:.1f}" if stored else ""
        lines.append(f"| {step} | `{tool}` | {wall:.2f} | {cpu:.2f} | {peak:.0f} | {size} | {ratio:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=int, default=180)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    account = server_account()
    results = Results()
    with sandbox_folder(account) as root:
        root.chmod(0o777)
        parameters = {"fsync": "off", "shared_buffers": "512MB", "max_wal_size": "4GB", "maintenance_work_mem": "256MB"}
        server = ThrowawayPostgres(newest_postgres(), root / "server", PostgresSettings(parameters=parameters))
        server.start()
        try:
            bench = Bench(root, server, account.name if account else None, results, database="shop")
            bench.environment["HOLDFAST_POSTGRES_BIN"] = str(server.programs.folder)
            bench.psql("create database shop")
            fill(bench, options.scale)
            for number in range(options.rounds):
                print(f"round {number + 1} of {options.rounds}")
                one_round(bench)
        finally:
            server.close()
    print()
    print(summary(results))


if __name__ == "__main__":
    main()
