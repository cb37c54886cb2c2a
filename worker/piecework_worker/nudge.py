"""A pipe that wakes who waits at it: another thread, a horse (it is made before the fork), or a process with signals.

By one the committing thread hears that something was stolen, by another the main process that a signal has come. Only a
hint: a nudge that is lost, or one too many, costs at most the time of a wait.
"""

import os
import select


class Nudge:
    """One pipe; both of its ends are inherited by forks, and never block."""

    def __init__(self) -> None:
        self._read, self.write_end = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self.write_end, False)
        self._poll = select.poll()
        self._poll.register(self._read, select.POLLIN)

    def give(self) -> None:
        """Wake who waits, in whichever process."""
        try:
            os.write(self.write_end, b"!")
        except BlockingIOError:
            return  # there are thousands to be heard already

    def wait(self, seconds: float) -> bool:
        """Return after `seconds`, or with True as soon as a nudge has come since the last wait."""
        if not self._poll.poll(max(0.0, seconds) * 1000):
            return False
        try:
            while os.read(self._read, 512):
                pass
        except BlockingIOError:
            pass
        return True
