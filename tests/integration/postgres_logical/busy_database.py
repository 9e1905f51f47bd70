"""A database whose tables are written, truncated, altered, rewritten and dropped all the while."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from holdfast.sandbox import ThrowawayPostgres

ACCOUNTS = 200
SCENE = (
    f"CREATE TABLE accounts AS SELECT i AS id, 100 AS balance FROM generate_series(1, {ACCOUNTS}) i",
    "CREATE TABLE transfers (source integer, target integer, amount integer)",
    "CREATE TABLE rewritten AS SELECT i FROM generate_series(1, 2000) i",
    "CREATE TABLE refilled AS SELECT i FROM generate_series(1, 500) i",
    "CREATE SEQUENCE counted",
)


def transfer(connection: psycopg.Connection, chance: random.Random) -> None:
    """Move money from one account to another, and note it, in one transaction."""
    source, target, amount = chance.randint(1, ACCOUNTS), chance.randint(1, ACCOUNTS), chance.randint(1, 9)
    with connection.transaction():
        connection.execute("UPDATE accounts SET balance = balance - %s WHERE id = %s", (amount, source))
        connection.execute("UPDATE accounts SET balance = balance + %s WHERE id = %s", (amount, target))
        connection.execute("INSERT INTO transfers VALUES (%s, %s, %s)", (source, target, amount))
        connection.execute("SELECT nextval('counted')")


def change(connection: psycopg.Connection, chance: random.Random) -> None:
    """Do one of what rewrites, empties, makes or drops a table; ``refilled`` is never seen empty by a transaction."""
    match chance.randint(0, 5):
        case 0:
            connection.execute("VACUUM FULL rewritten")
        case 1:
            with connection.transaction():
                connection.execute("TRUNCATE refilled")
                connection.execute("INSERT INTO refilled SELECT i FROM generate_series(1, 500) i")
        case 2:
            connection.execute("ALTER TABLE rewritten ALTER i TYPE bigint")
            connection.execute("ALTER TABLE rewritten ALTER i TYPE integer")
        case 3:
            connection.execute("ALTER TABLE accounts ADD COLUMN IF NOT EXISTS more integer DEFAULT 1")
            connection.execute("ALTER TABLE accounts DROP COLUMN more")
        case 4:
            connection.execute("CREATE TABLE passing (id serial PRIMARY KEY)")
            connection.execute("DROP TABLE passing")
        case 5:
            connection.execute("CREATE VIEW passing_view AS SELECT 1 AS one")
            connection.execute("DROP VIEW passing_view")


@contextmanager
def load(
    server: ThrowawayPostgres, database: str, *works: Callable[[psycopg.Connection, random.Random], None]
) -> Iterator[list[int]]:
    """Do each work over and over on a connection of its own; yields how often each was done."""
    ended = threading.Event()
    done = [0] * len(works)
    errors: list[Exception] = []

    def run(place: int) -> None:
        chance = random.Random(place)
        try:
            with psycopg.connect(server.connection_string(database), autocommit=True) as connection:
                while not ended.wait(0.002 if place == 0 else 0.2):
                    works[place](connection, chance)
                    done[place] += 1
        except Exception as error:  # noqa: BLE001 told by the test
            errors.append(error)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(works))]
    for thread in threads:
        thread.start()
    try:
        yield done
    finally:
        ended.set()
        for thread in threads:
            thread.join(60)
    assert errors == []
