"""Peak memory of a full backup, the next one and a restore, at several sizes of the cluster.

python -m benchmarks.memory [--scales N ...]     pgbench's scale; 64 makes some 1 GB, 640 some 10 GB
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from benchmarks.peers import Bench, Results, size_of
from holdfast.sandbox import PostgresSettings, ThrowawayPostgres, newest_postgres, server_account
from holdfast.sandbox.folders import sandbox_folder


def measure(root: Path, scale: int) -> str:
    """Return the row of one size for docs/benchmarks.md."""
    account = server_account()
    parameters = {"fsync": "off", "shared_buffers": "512MB", "max_wal_size": "4GB", "wal_level": "replica"}
    server = ThrowawayPostgres(newest_postgres(), root / "server", PostgresSettings(parameters=parameters))
    server.start()
    try:
        bench = Bench(root, server, account.name if account else None, Results())
        bench.psql("create role holdfast login replication")
        bench.plain(
            ["pgbench", "-q", "-i", "-I", "dtGvp", "-s", str(scale), server.connection_string("postgres")], True
        )
        bench.psql("checkpoint")
        size = size_of(server.data_folder / "base")
        bench.prepare_holdfast()
        bench.measure("holdfast", "full", bench.with_config("backup", "--tier", "full"))
        bench.measure("holdfast", "next", bench.with_config("backup", "--tier", "incremental"))
        target = root / "to"
        bench.measure("holdfast", "restore", bench.with_config("restore", "bench", "--into", str(target), "--yes"))
    finally:
        server.close()
    peaks = [bench.results.times["holdfast", step][0].peak for step in ("full", "next", "restore")]
    return f"| {size / 1e9:.1f} | " + " | ".join(f"{peak:.0f}" for peak in peaks) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scales", type=int, nargs="+", default=[64, 640])
    rows = []
    for scale in parser.parse_args().scales:
        with sandbox_folder(server_account()) as root:
            root.chmod(0o777)
            rows.append(measure(root, scale))
            shutil.rmtree(root / "to", ignore_errors=True)
    print(f"\nPeak resident MiB, {os.cpu_count()} cores.\n")
    print("| GB | full | next | restore |\n|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
