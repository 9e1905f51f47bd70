"""PostgreSQL, physically: capture over the replication protocol, and refill into a folder."""
