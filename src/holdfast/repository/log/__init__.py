"""The change log of an area: what a listing tells, spans put and read back, and merged into larger ones."""
