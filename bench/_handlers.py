"""Handlers of the benchmarks, importable by every system's workers."""

import time

NAMES = ("noop", "spin_10_us", "sleep_1_ms", "sleep_10_ms", "sleep_1_s")
"""Those that are measured on every system."""


def noop(item: int) -> int:
    """As little as a handler can do."""
    return item


def spin_10_us(item: int) -> int:
    """10 µs of work; nobody can sleep for so short a time."""
    until = time.perf_counter() + 10e-6
    while time.perf_counter() < until:
        pass
    return item


def sleep_1_ms(item: int) -> int:
    """1 ms. The longer items sleep, so that the cores are free for what each system does besides."""
    time.sleep(0.001)
    return item


def sleep_10_ms(item: int) -> int:
    """10 ms."""
    time.sleep(0.01)
    return item


def sleep_20_ms(item: int) -> int:
    """20 ms."""
    time.sleep(0.02)
    return item


def sleep_50_ms(item: int) -> int:
    """50 ms."""
    time.sleep(0.05)
    return item


def sleep_1_s(item: int) -> int:
    """1 s."""
    time.sleep(1.0)
    return item


def sleep_so_long(seconds: float) -> float:
    """Sleeps as long as the item says; returns how long it was indeed."""
    started = time.perf_counter()
    time.sleep(seconds)
    return time.perf_counter() - started


def sleep_200_ms(item: int) -> int:
    """An item that takes a fifth of a second."""
    time.sleep(0.2)
    return item


def sleep_400_ms(item: int) -> int:
    """An item that takes a bit less than the time between two commits."""
    time.sleep(0.4)
    return item


def nothing(item: object) -> None:
    """A handler whose result is that it was done."""
