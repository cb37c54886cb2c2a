"""Handlers for tests of the command line; each test's machine has a copy of this file as `tasks.py`."""

import ctypes
import os
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def square(item: int) -> int:
    return item * item


def modules(item: int) -> list[str]:
    """What a worker has imported to run an item."""
    return sorted(sys.modules)


def echo(item: Any) -> Any:
    return item


def noted(item: int) -> int:
    """50 ms; appends its item to a file, so that executions can be counted."""
    time.sleep(0.05)
    with Path("noted.txt").open("a") as file:
        file.write(f"{item}\n")
    return item * item


def gated(item: int) -> int:
    """Waits until the test lets it go."""
    gate = Path("gate")
    while item and not gate.exists():
        time.sleep(0.01)
    return item * item


def prints(item: int) -> int:
    print("said by the handler", item, flush=True)
    return item


def four_failures(item: int) -> object:
    """Raises, aborts, hangs in C, returns what cannot be stored. With the file `fixed` it does none of it."""
    if Path("fixed").exists():
        return item
    if item == 3:
        raise ValueError("three is odd")
    if item == 5:
        os.abort()
    if item == 7:
        ctypes.PyDLL(None).sleep(600)
    if item == 9:
        return {"handle": object()}
    return item


def odd_fails(item: int) -> int:
    if item % 2:
        raise ValueError(f"{item} is odd")
    return item


def no_database(item: int) -> None:
    """Fails for every item; the last one waits until the test lets it go."""
    while item == 29 and not Path("gate").exists():
        time.sleep(0.01)
    raise ConnectionError("no database")


def all_types(item: int) -> object:
    return [3**20_000, b"\xff\x00", datetime(2024, 2, 29, 12, tzinfo=UTC), float("nan"), "ä😀", -(2**70)][item]


def batched(items: list[int]) -> list[int]:
    return [item * item for item in items]


def total(results: Iterable[int]) -> str:
    """A reduction."""
    return f"total {sum(results)}"


def bad_total(results: Iterable[int]) -> str:
    raise ValueError("cannot add")
