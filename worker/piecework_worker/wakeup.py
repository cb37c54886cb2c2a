"""Waiting that a signal ends: SIGTERM and SIGINT to stop, SIGCHLD when the horse has ended."""

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Final, NoReturn

from piecework_worker.nudge import Nudge

STOPS: Final = (signal.SIGTERM, signal.SIGINT)


class StoppedEarly(BaseException):
    """The worker was told to stop before it had begun; it holds nothing."""


def leave_when_stopped() -> None:
    """Until `Wakeup.install`: a stop raises `StoppedEarly`, also while the handler's module is imported.

    (A container's first process has no default action for these signals: it would not hear them at all.)
    """

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        for each in STOPS:
            signal.signal(each, signal.SIG_IGN)
        raise StoppedEarly(signal.Signals(number).name)

    for number in STOPS:
        signal.signal(number, leave)


class Wakeup:
    """Signal handlers of the worker's main process, and waits that they end without a lock or a race."""

    def __init__(self, on_stop: Callable[[int], None]) -> None:
        self._nudge = Nudge()
        self._on_stop = on_stop

    def install(self) -> None:
        """Take over the signals. Call in the main thread."""
        for number in STOPS:
            signal.signal(number, lambda received, _: self._on_stop(received))
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._nudge.write_end, warn_on_full_buffer=False)

    @staticmethod
    def uninstall_in_horse(on_stop: Callable[[], None]) -> None:
        """In a fork, with `STOPS` blocked: the signals are the horse's now, also one that has come meanwhile.

        Ctrl-C is the main process's to handle.
        """
        horse = os.getpid()

        def stop(number: int, frame: FrameType | None) -> None:
            if os.getpid() == horse:
                on_stop()
                return
            # A process that the handler forked (multiprocessing's pools end theirs so): it has no item boundaries.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)

    def wake(self) -> None:
        """End a wait, from another thread."""
        self._nudge.give()

    def wait(self, seconds: float) -> None:
        """Return after `seconds`, or as soon as a signal or a `wake` has come since the last wait."""
        self._nudge.wait(seconds)
