"""``python -m holdfast`` is the same as ``holdfast``."""

from __future__ import annotations

from holdfast.interfaces.cli.main import run

if __name__ == "__main__":
    run()
