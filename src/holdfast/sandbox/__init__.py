"""Throwaway local servers: found, started, waited for, and always stopped. For the demo, for drills and for tests."""

from __future__ import annotations

from holdfast.sandbox.account import Account, server_account
from holdfast.sandbox.folders import sandbox_folder
from holdfast.sandbox.programs import PostgresPrograms, find_postgres, newest_postgres, postgres_programs
from holdfast.sandbox.server import ThrowawayPostgres
from holdfast.sandbox.settings import PostgresSettings

__all__ = [
    "Account",
    "PostgresPrograms",
    "PostgresSettings",
    "ThrowawayPostgres",
    "find_postgres",
    "newest_postgres",
    "postgres_programs",
    "sandbox_folder",
    "server_account",
]
