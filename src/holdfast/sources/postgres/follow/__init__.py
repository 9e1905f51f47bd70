"""Follows a PostgreSQL server's log as a standby would: connects, streams, acknowledges what is durable."""
