"""A nudge to whoever commits, the horse or this process: commit now, and hear where the chunk ends.

A pipe that is made before the fork: the worker's main process hears from the server that something was stolen, and a
byte wakes the committing thread. Only a hint: a nudge that is lost, or one too many, costs at most a commit's time.
"""

import os
import select


class Nudge:
    """One for each worker; horses inherit it."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._poll = select.poll()
        self._poll.register(self._read, select.POLLIN)

    def give(self) -> None:
        """Wake who waits, in whichever process."""
        try:
            os.write(self._write, b"!")
        except BlockingIOError:
            return  # there are thousands to be heard already

    def wait(self, seconds: float) -> bool:
        """Return after `seconds`, or with True as soon as a nudge has come since the last wait."""
        if not self._poll.poll(seconds * 1000):
            return False
        try:
            while os.read(self._read, 512):
                pass
        except BlockingIOError:
            pass
        return True
