"""Drains piles with the pools of the standard library, whose processes are there and warm. Nothing is recorded."""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

Handler = Callable[[Any], Any]


def pool(handler: Handler, items: Sequence[Any], chunk_size: int, workers: int = 2) -> tuple[float, list[Any]]:
    """(seconds, results as they came) of `multiprocessing.Pool.imap_unordered`."""
    with multiprocessing.Pool(workers) as processes:
        processes.map(time.sleep, [0.05] * workers, chunksize=1)
        started = time.monotonic()
        results = list(processes.imap_unordered(handler, items, chunksize=chunk_size))
        seconds = time.monotonic() - started
    return seconds, _checked(results, items)


def futures(handler: Handler, items: Sequence[Any], chunk_size: int, workers: int = 2) -> tuple[float, list[Any]]:
    """(seconds, results) of `concurrent.futures.ProcessPoolExecutor.map`."""
    with ProcessPoolExecutor(workers) as processes:
        list(processes.map(time.sleep, [0.05] * workers))
        started = time.monotonic()
        results = list(processes.map(handler, items, chunksize=chunk_size))
        seconds = time.monotonic() - started
    return seconds, _checked(results, items)


def _checked(results: list[Any], items: Sequence[Any]) -> list[Any]:
    if len(results) != len(items):
        raise SystemExit("the pool lost items")
    return results
