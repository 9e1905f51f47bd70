"""The demo: a throwaway PostgreSQL backed up while it is written to, damaged, brought back, with the proof."""

from __future__ import annotations

from holdfast.demo.order import DemoOrder, DemoOutcome, Measured, Proof
from holdfast.demo.report import Report
from holdfast.demo.run import run_demo

__all__ = ["DemoOrder", "DemoOutcome", "Measured", "Proof", "Report", "run_demo"]
