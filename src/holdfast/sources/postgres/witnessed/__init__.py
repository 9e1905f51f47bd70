"""The witness of a physical backup: rows read in a snapshot that is one position of the log."""
