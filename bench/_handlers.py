"""Handlers of the benchmarks, importable by every system's workers."""

import time


def noop(item: int) -> int:
    """As little as a handler can do."""
    return item


def sleep_50_ms(item: int) -> int:
    """An item that takes 50 ms and leaves a trace of its execution."""
    time.sleep(0.05)
    return item
