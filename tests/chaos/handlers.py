"""The handlers of the chaos tests: squares, with what `CHAOS_WORK` (JSON) says that goes wrong at which item."""

import asyncio
import json
import multiprocessing
import os
import random
import signal
import time
from typing import Any

import piecework

WORK: dict[str, Any] = json.loads(os.environ.get("CHAOS_WORK", "{}"))


def seconds(item: int) -> float:
    """Some items take nine times as long as others, and a straggler now this long and now that."""
    if item in WORK["stragglers"]:
        return random.uniform(0.0, float(WORK["straggling"]))
    return float(WORK["seconds"]) * (0.2 + 1.6 * (item * 37 % 10) / 9)


def _end(item: int, attempt: int) -> int:
    if item in WORK["poison"]:
        os.kill(os.getpid(), signal.SIGSEGV)
    if item in WORK["failing"] or (item in WORK["flaky"] and attempt == 1):
        raise ValueError(f"{item} is a bad one")
    return item * item


def one(item: int) -> int:
    time.sleep(seconds(item))
    return _end(item, piecework.current().attempt)


def forking(item: int) -> int:
    """One in ten waits in a pool of its own, which it ends by signals."""
    if item % 10:
        return one(item)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.apply(time.sleep, (seconds(item),))
    return _end(item, piecework.current().attempt)


def many(items: list[int]) -> list[int]:
    return [one(item) for item in items]


async def awaited(item: int) -> int:
    attempt = piecework.current().attempt
    await asyncio.sleep(seconds(item))
    return _end(item, attempt)
