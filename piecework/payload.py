"""The items of a run, by index: computed for a range, else read from the payload a block at a time."""

from typing import Any

from piecework.errors import CorruptData
from piecework.ledger import Ledger
from piecework.records import Spec


class Items:
    """Reads items; keeps the last block that it read."""

    def __init__(self, ledger: Ledger, spec: Spec) -> None:
        self._ledger, self._spec = ledger, spec
        self._first = 0
        self._block: list[Any] = []

    def slice(self, start: int, stop: int) -> list[Any]:
        """Items start..stop-1, or fewer: at least one, all of one block. The list is the caller's.

        Raises `UnknownRun` if the payload is gone, `CorruptData` if it is damaged.
        """
        if self._spec.items == "range":
            first, step = self._spec.start, self._spec.step
            return list(range(first + start * step, first + stop * step, step))
        if not self._first <= start < self._first + len(self._block):
            self._first, self._block = self._ledger.block_at(start)
            if not self._first <= start < self._first + len(self._block):
                raise CorruptData(f"run {self._ledger.run}, block {self._first}: item {start} is missing")
        return self._block[start - self._first : stop - self._first]

    def span(self, start: int, count: int) -> list[Any]:
        """Exactly items start..start+count-1."""
        items: list[Any] = []
        while len(items) < count:
            items += self.slice(start + len(items), start + count)
        return items
