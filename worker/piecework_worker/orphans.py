"""Makes a process end with its parent, so that a SIGKILL of one leaves no orphan of the other."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int, *, group: bool) -> None:
    """Have the kernel end this process when its parent dies (on Linux; elsewhere see `kill_group_without`).

    With `group`, all of its process group too: that takes a signal handler, which runs only when the
    interpreter does. Without, it is a SIGKILL, which also ends a handler that is deep in C code.
    """
    if sys.platform == "linux":
        if group:
            signal.signal(signal.SIGUSR1, lambda *_: os.killpg(0, signal.SIGKILL))
        number = signal.SIGUSR1 if group else signal.SIGKILL
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    kill_group_without(parent)()  # it may have died before the kernel was told


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
