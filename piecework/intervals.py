"""A set of indices as sorted intervals that are merged as they come: as large as its gaps, not as its indices."""

from bisect import bisect_left, bisect_right

from piecework.spans import Span


class Intervals:
    """Add spans, and ask which parts of a span are in. Its length is the number of indices."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def copy(self) -> "Intervals":
        """One of its own."""
        made = Intervals()
        made._starts, made._stops, made._size = self._starts.copy(), self._stops.copy(), self._size
        return made

    def add(self, start: int, count: int) -> None:
        """Add start..start+count-1, whatever of it is in already."""
        self._size += count - sum(length for _, length in self.inside(start, count))
        stop = start + count
        first, last = bisect_left(self._stops, start), bisect_right(self._starts, stop)
        if first < last:  # it touches others: they become one
            start, stop = min(start, self._starts[first]), max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    def inside(self, start: int, count: int) -> list[Span]:
        """The parts of start..start+count-1 that are in, ascending."""
        found: list[Span] = []
        stop = start + count
        for i in range(bisect_right(self._stops, start), bisect_left(self._starts, stop)):
            low, high = max(start, self._starts[i]), min(stop, self._stops[i])
            found.append((low, high - low))
        return found

    def outside(self, start: int, count: int) -> list[Span]:
        """The parts of start..start+count-1 that are not in, ascending."""
        found: list[Span] = []
        at = start
        for low, length in (*self.inside(start, count), (start + count, 0)):
            if at < low:
                found.append((at, low - at))
            at = low + length
        return found
