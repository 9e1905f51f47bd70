"""The version of this program; the repository format has its own number (docs/format.md)."""

__version__ = "0.1.0"
