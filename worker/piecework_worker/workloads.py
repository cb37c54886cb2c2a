"""The handlers of `piecework bench`: work of a known kind, to measure everything around it. No item has an effect."""

import time

_STEPS = 200
"""A few microseconds."""


def noop(item: object) -> None:
    """As little as a handler can do: what is left is the cost of piecework itself."""


def spin(item: float) -> None:
    """Keep a core busy for `item` seconds of CPU time.

    CPU time and not time: workers that have to share a core take longer for an item, as real work would.
    """
    clock = time.thread_time
    end = clock() + item
    while clock() < end:
        for _ in range(_STEPS):  # so that it is not the clock that keeps the core busy
            pass


def sleep(item: float) -> None:
    """Wait for `item` seconds, as for a server's answer: takes no core, so that many fit on one."""
    time.sleep(item)
