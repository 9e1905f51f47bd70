"""Seals backups: from a source's streams to an entry of its history."""
