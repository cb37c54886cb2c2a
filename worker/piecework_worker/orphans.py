"""Makes a horse, and all that its items have started, end with its worker, so that a SIGKILL leaves no orphan."""

import fcntl
import os
import signal
import sys
from collections.abc import Callable


class Leash:
    """A pipe of which the worker alone has the writing end: when that closes, the worker has ended, however it did.

    Linux then kills the process group at the other end, at once, whatever it is doing (signal-driven I/O, see
    fcntl(2): F_SETOWN, F_SETSIG). Elsewhere see `kill_group_without`. Make one before the first fork.
    """

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()

    def take(self) -> None:
        """In a fork that leads a process group: end with the worker, also if it has ended already."""
        if sys.platform == "linux":
            fcntl.fcntl(self._reading, fcntl.F_SETOWN, -os.getpid())
            fcntl.fcntl(self._reading, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(self._reading, fcntl.F_SETFL, os.O_ASYNC)
        os.close(self._writing)


def parent_is(pid: int) -> bool:
    """Whether the parent is still the process that it was."""
    return os.getppid() == pid


def kill_group_without(parent: int) -> Callable[[], bool]:
    """A check that ends the whole process group, the commands it runs too, when the parent has died."""

    def check() -> bool:
        if not parent_is(parent):
            os.killpg(0, signal.SIGKILL)
        return True

    return check
