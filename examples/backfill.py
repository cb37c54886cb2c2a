"""A backfill: each item writes rows elsewhere, so that doing an item twice must do no harm.

piecework records each item once, but it may run one more than once: a worker may be killed after the write
and before the record. The idempotency key is the same each time, so the second write finds the first.

    piecework run backfill:load --jsonl orders.jsonl --run orders-2026 --retries 3

The database's path is in BACKFILL_DB, by default orders.db in the current directory.
"""

import os
import sqlite3
from contextlib import closing
from typing import TypedDict

import piecework


class Order(TypedDict):
    """An item: one line of orders.jsonl."""

    customer: str
    cents: int


class Summary(TypedDict):
    """A result."""

    key: str
    written: bool
    """False: an earlier attempt had written it already."""


def load(order: Order) -> Summary:
    """Write one order, once."""
    if order["cents"] < 0:
        raise ValueError(f"an order of {order['cents']} cents")
    key = piecework.current().idempotency_key
    # A connection for each item: one that was opened before the fork must not be used after it.
    with closing(sqlite3.connect(os.environ.get("BACKFILL_DB", "orders.db"), timeout=30)) as database:
        database.execute("CREATE TABLE IF NOT EXISTS orders (key TEXT PRIMARY KEY, customer TEXT, cents INTEGER)")
        with database:
            cursor = database.execute(
                "INSERT INTO orders VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING",
                (key, order["customer"], order["cents"]),
            )
    return {"key": key, "written": cursor.rowcount == 1}
