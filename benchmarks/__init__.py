"""Measurements: how fast holdfast is beside its peers, how large an index it can open: python -m benchmarks."""
