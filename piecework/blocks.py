"""Which items of a run the payload has: each block is unpacked and its items counted. Changes nothing."""

from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from piecework import codec
from piecework.errors import CorruptData
from piecework.intervals import Intervals
from piecework.ledger import Ledger
from piecework.picture import Picture
from piecework.spans import Span

_BLOCKS_AT_ONCE = 20


@dataclass(frozen=True)
class Blocks:
    """The blocks of a payload as they were found."""

    there: Intervals
    """Items that are in a readable block."""
    end: int
    """Index behind the last one."""
    damaged: dict[str, str]
    """Field -> what is wrong with it."""
    gone: tuple[str, ...]
    """In the index, and not in the payload."""
    unknown: tuple[str, ...]
    """Readable blocks that the index does not have: nobody finds them."""

    def lost(self, total: int) -> list[Span]:
        """Items of a run of `total` that cannot be read by their index."""
        return self.there.outside(0, total) if total else []


def read_blocks(ledger: Ledger, picture: Picture) -> Blocks:
    """Read the whole payload, a few blocks at a time."""
    client: Any = ledger.client
    numbered = sorted((int(field), field) for field in picture.payload if field.isdigit())
    damaged = {field.decode(errors="replace"): "not a block" for field in picture.payload if not field.isdigit()}
    counts: dict[int, int] = {}
    for at in range(0, len(numbered), _BLOCKS_AT_ONCE):
        some = numbered[at : at + _BLOCKS_AT_ONCE]
        packed = client.hmget(ledger.keys.payload, [field for _, field in some])
        for (start, field), block in zip(some, packed, strict=True):
            try:
                counts[start] = len(codec.unpack(block or b"", "its bytes"))
            except CorruptData as error:
                damaged[field.decode()] = str(error)
    there = Intervals()
    starts = [start for start, _ in numbered]
    for start, following in zip_longest(starts, starts[1:]):
        # A reader looks into the last block that begins at or before its item.
        count = counts.get(start, 0) if following is None else min(counts.get(start, 0), following - start)
        if count:
            there.add(start, count)
    return Blocks(
        there=there,
        end=max((start + count for start, count in counts.items()), default=0),
        damaged=damaged,
        gone=tuple(sorted(name.decode(errors="replace") for name in picture.blocks if name not in picture.payload)),
        unknown=tuple(str(start) for start in counts if picture.blocks.get(b"%d" % start) != start),
    )
