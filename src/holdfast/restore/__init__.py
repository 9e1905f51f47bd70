"""Brings backups back: plan, write, verify, make usable last."""
