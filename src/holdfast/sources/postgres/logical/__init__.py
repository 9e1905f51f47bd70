"""PostgreSQL by meaning: capture through its own programs, the witness, and restores into live servers."""
