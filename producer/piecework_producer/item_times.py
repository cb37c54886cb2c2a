"""How long items took, as the commits tell it: counts in buckets whose edges are powers of four, from 1 µs.

A percentile is found within its bucket by geometric interpolation: it is right to the bucket, a factor of four, and an
estimate within it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

BUCKETS = 24
_FIRST_SECONDS = 1e-6
_FACTOR = 4.0


def edge(bucket: int) -> float:
    """Seconds at which a bucket begins; items below 1 µs are in the first."""
    return float(_FIRST_SECONDS * _FACTOR**bucket)


@dataclass
class ItemTimes:
    """A histogram of item times."""

    counts: list[int] = field(default_factory=lambda: [0] * BUCKETS)

    def add(self, counts: Sequence[int]) -> None:
        """Count in what one commit tells."""
        for bucket, count in enumerate(counts[:BUCKETS]):
            self.counts[bucket] += count

    @property
    def total(self) -> int:
        """Number of items that were timed: attempts that failed are among them."""
        return sum(self.counts)

    @property
    def used(self) -> range:
        """The buckets from the first to the last that have items."""
        full = [bucket for bucket, count in enumerate(self.counts) if count]
        return range(full[0], full[-1] + 1) if full else range(0)

    def percentile(self, percent: float) -> float | None:
        """Seconds that `percent` of the items took at most; None without items."""
        wanted, before = self.total * percent / 100, 0
        for bucket in self.used:
            count = self.counts[bucket]
            if count and before + count >= wanted:
                return edge(bucket) * float(_FACTOR ** ((wanted - before) / count))
            before += count
        return None
