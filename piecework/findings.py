"""What an audit finds: each with where it is, whether it is an error, and the steps that mend it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from piecework.spans import Span
from piecework.states import State

Check = Literal["run", "total", "entries", "indices", "chunks", "payload", "keys", "queue", "leases"]
Step = tuple[str | int | bytes, ...]
"""A step of the `repair` script: its name and its arguments."""
_MOST_RANGES = 10


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    check: Check
    text: str
    """Names the indices, the chunk, the entry or the key."""
    remedy: str
    """What `repair` does about it; else what a person can do. "" for what mends itself."""
    steps: tuple[Step, ...] = field(default=(), repr=False)
    """Empty: `repair` cannot put it back."""
    error: bool = True
    """False: it costs time and no item, and the run's workers mend it themselves."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The verdict on one consistent picture of a run."""

    run: str
    state: State | None
    """None: its record cannot be read."""
    total: int
    """Number of items; while the run is filling, of those that are in chunks."""
    done: int
    """Items that the results hold."""
    failed: int
    """Items that the failures hold."""
    open: int
    """Items in open chunks, each counted once."""
    entries: int
    """Entries of both streams."""
    chunks: int
    """Open chunks."""
    findings: tuple[Finding, ...]
    readable: bool = True
    """False: the run's record, or a key, is such that nothing else could be looked at; all numbers are 0."""

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong that does not mend itself."""
        return not any(finding.error for finding in self.findings)


def ranges(spans: Iterable[Span]) -> str:
    """Spans for people: "items 0-4, 7, 9-11", the first ten of them."""
    texts = [str(start) if count == 1 else f"{start}-{start + count - 1}" for start, count in spans]
    if len(texts) > _MOST_RANGES:
        texts[_MOST_RANGES:] = [f"{len(texts) - _MOST_RANGES} more ranges"]
    one = len(texts) == 1 and texts[0].isdigit()
    return f"{'item' if one else 'items'} {', '.join(texts)}"
