"""Handlers of the benchmarks, importable by every system's workers."""

import time


def noop(item: int) -> int:
    """As little as a handler can do."""
    return item


def sleep_50_ms(item: int) -> int:
    """An item that takes 50 ms and leaves a trace of its execution."""
    time.sleep(0.05)
    return item


def sleep_1_ms(item: int) -> int:
    """An item that takes a millisecond."""
    time.sleep(0.001)
    return item


def sleep_200_ms(item: int) -> int:
    """An item that takes a fifth of a second."""
    time.sleep(0.2)
    return item
