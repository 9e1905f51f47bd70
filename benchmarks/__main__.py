"""Every measurement of docs/benchmarks.md, one after another."""

from __future__ import annotations

import subprocess
import sys

for module in (
    "benchmarks.peers",
    "benchmarks.logical",
    "benchmarks.following",
    "benchmarks.memory",
    "benchmarks.index_scale",
):
    print(f"== {module}", flush=True)
    subprocess.run([sys.executable, "-m", module], check=True)
