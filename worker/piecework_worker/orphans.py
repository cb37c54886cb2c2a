"""Makes a process end with its parent, so that a SIGKILL of one leaves no orphan of the other."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def end_with_parent(number: signal.Signals) -> None:
    """Have the kernel send this process a signal when its parent dies. Linux only; elsewhere nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


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
