"""Waiting that a signal ends: SIGTERM and SIGINT to stop, SIGCHLD when the horse has ended."""

import signal
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from piecework_worker import own_signals
from piecework_worker.nudge import Nudge
from piecework_worker.own_signals import STOPS


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
        own_signals.handle(number, leave)


class Wakeup:
    """Signal handlers of the worker's main process, and waits that they end without a lock or a race."""

    def __init__(self, on_stop: Callable[[int], None]) -> None:
        self._nudge = Nudge()
        self._on_stop = on_stop

    def install(self) -> None:
        """Take over the signals. Call in the main thread."""
        for number in STOPS:
            own_signals.handle(number, lambda received, _: self._on_stop(received))
        own_signals.handle(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._nudge.write_end, warn_on_full_buffer=False)

    @staticmethod
    def install_in_horse(on_stop: Callable[[], None]) -> None:
        """In a fork made with `STOPS` blocked: SIGTERM is the horse's now, also one that has come meanwhile."""
        signal.set_wakeup_fd(-1)
        own_signals.handle(signal.SIGTERM, lambda *_: on_stop())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)

    def wake(self) -> None:
        """End a wait, from another thread."""
        self._nudge.give()

    def wait(self, seconds: float) -> None:
        """Return after `seconds`, or as soon as a signal or a `wake` has come since the last wait."""
        self._nudge.wait(seconds)
