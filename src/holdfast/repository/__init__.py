"""The stored format and its guarantees (docs/format.md)."""
