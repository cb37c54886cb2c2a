"""What a horse tells its worker without a word to Redis: a few numbers in memory that both share.

The horse writes, the worker reads, also after the horse has died. Every cell is one aligned 64-bit store.
"""

import mmap

IDLE = -1
"""No item is in hand."""
UNKNOWN = -2
"""Some item of several is in hand."""
_FOREVER = (1 << 63) - 1


class Progress:
    """Made before the fork. `index` is the item in hand, IDLE or UNKNOWN."""

    def __init__(self) -> None:
        self._cells = memoryview(mmap.mmap(-1, 24)).cast("q")
        self.reset()

    def reset(self) -> None:
        """Before a horse is forked."""
        self._cells[0], self._cells[1], self._cells[2] = IDLE, _FOREVER, 0

    def begin(self, index: int, deadline_ns: int | None) -> None:
        """The horse takes an item in hand, to be killed if still at it at `deadline_ns` (monotonic clock)."""
        cells = self._cells
        cells[1] = _FOREVER if deadline_ns is None else deadline_ns
        cells[0] = index

    def end(self) -> None:
        """No item is in hand any more."""
        self._cells[1] = _FOREVER
        self._cells[0] = IDLE

    def conclude(self) -> None:
        """The horse is about to exit on purpose: an exit without this is a crash, whatever its exit code."""
        self._cells[2] = 1

    @property
    def index(self) -> int:
        """The item in hand, IDLE or UNKNOWN."""
        return self._cells[0]

    @property
    def concluded(self) -> bool:
        """Whether the horse ended on purpose."""
        return self._cells[2] == 1

    def overdue(self, now_ns: int) -> bool:
        """Whether the item in hand has had its time."""
        return now_ns > self._cells[1]
