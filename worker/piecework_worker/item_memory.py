"""`--item-memory`: how much memory a horse may take on top of what it had at its fork.

The kernel refuses more (RLIMIT_DATA, Linux), so that the allocation fails and not the machine: in Python that is a
MemoryError, the item's failure. It is a guard against a greedy item and no prison: a handler may raise the limit again.
It holds for the horse, for all items that it has in hand at once, and for each process that it starts.
"""

import resource
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from piecework.quantity import item_memory_bytes

_OWN_BYTES = 16 << 20
"""For the stack of the committing thread and what it packs."""
_RESERVE_BYTES = 128 << 20
"""A horse has 64 MiB of results in hand at most, and their packed copy."""

_limit: str | None = None
_stop: Callable[[], None] | None = None


def impose(limit: str | None, stop: Callable[[], None]) -> None:
    """Limit this process, a horse that was just forked. `stop` is called when an item has met the limit.

    Raises `OSError`, `ValueError` where the kernel has no such limit.
    """
    global _limit, _stop
    if limit is None:
        return
    _limit, _stop = limit, stop
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = _data_bytes() + item_memory_bytes(limit) + _OWN_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


@contextmanager
def met(error: BaseException) -> Iterator[str]:
    """For the record of an item's exception: gives what is to be said of the limit, "" if it was not met.

    Memory that the item still holds by its frames is let go of, and the horse begins no further item: who knows what
    else is left of this one. What it has done it can commit, with some memory more.
    """
    if _stop is None or _limit is None or not isinstance(error, MemoryError):
        yield ""
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    more = soft + _RESERVE_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (more if hard == resource.RLIM_INFINITY else min(more, hard), hard))
    yield f"the item needed more than --item-memory {_limit}"
    traceback.clear_frames(error.__traceback__)
    _stop()


def hint(limit: str | None) -> str:
    """What is added to the message of a crash: C code that gets no memory may well abort."""
    return "" if limit is None else f" (under --item-memory {limit}, which it may have met)"


def _data_bytes() -> int:
    """What RLIMIT_DATA counts of this process: see VmData in proc(5)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) << 10
    raise OSError("/proc/self/status has no VmData")
