"""Signal handlers that are this process's alone: what a handler forks does not inherit them.

A multiprocessing pool ends its processes with SIGTERM and then waits for them. With an inherited handler such a process
lives on, or never hears: what comes before the interpreter has found itself after a fork, CPython forgets. So the stop
signals wait over each fork, and the child hears them when its actions are `_IN_FORKS`.
"""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

STOPS: Final = (signal.SIGTERM, signal.SIGINT)

_IN_FORKS: Final = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGINT: signal.SIG_IGN,  # Ctrl-C reaches the whole group, and is the main process's to handle
    signal.SIGCHLD: signal.SIG_DFL,
}
_own: dict[int, Callable[[int, FrameType | None], Any]] = {}
_before = threading.local()


def handle(number: int, handler: Callable[[int, FrameType | None], Any]) -> None:
    """Like `signal.signal`, for this process and none of its forks. Call in the main thread."""
    _own[number] = handler
    signal.signal(number, handler)


def _block() -> None:
    _before.mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _before.mask)


def _give_up() -> None:
    for number, handler in _own.items():
        if signal.getsignal(number) is handler:  # else the handler's code has set one: that is its own affair
            signal.signal(number, _IN_FORKS[signal.Signals(number)])
    _own.clear()
    _unblock()


os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_give_up)
