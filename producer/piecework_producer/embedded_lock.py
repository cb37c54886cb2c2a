"""The flocks of the embedded server: the kernel drops them with the last descriptor, so no crash leaves one behind."""

import contextlib
import fcntl
import os
import weakref
from pathlib import Path
from typing import ClassVar


class Lock:
    """A flock on an open file description of its own, so that two in one process exclude each other too."""

    _all: ClassVar[weakref.WeakSet["Lock"]] = weakref.WeakSet()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._all.add(self)

    def take(self, kind: int) -> bool:
        """Take it, or change its kind, without waiting. A change that is refused gives up what was held."""
        try:
            fcntl.flock(self.descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    @classmethod
    def close_all(cls) -> None:
        for lock in list(cls._all):
            lock.close()

    __del__ = close


os.register_at_fork(after_in_child=Lock.close_all)


def is_held(lock_file: Path) -> bool:
    # Looking holds it for an instant. A starter that is in the way then tries again.
    with contextlib.closing(Lock(lock_file)) as lock:
        return not lock.take(fcntl.LOCK_SH)
