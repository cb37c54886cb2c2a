"""What the streams of a run hold: each entry is unpacked and its outcomes counted, and the indices kept as intervals.

The first record of an index counts, results before failures; what comes second, what is damaged or foreign, and what
lies beyond the range is told by entry. Memory grows with the gaps between what is recorded, and with what is wrong.
"""

from dataclasses import dataclass
from typing import Any

from piecework import codec
from piecework.errors import CorruptData
from piecework.intervals import Intervals
from piecework.ledger import Ledger
from piecework.picture import Picture, StreamEnd
from piecework.records import to_failure
from piecework.spans import Span, parse_spans

STREAMS = ("results", "failures")
_ENTRIES_AT_ONCE = 20
"""An entry has up to 16 MiB before compression, or one larger item."""


@dataclass(frozen=True)
class WrongEntry:
    """An entry of a stream that cannot stay as it is."""

    stream: str
    id: str
    why: str
    """"" if it can be read."""
    doubled: tuple[Span, ...] = ()
    """What was recorded before."""
    beyond: tuple[Span, ...] = ()
    """What the run does not have."""
    kept: tuple[tuple[int, int, int], ...] = ()
    """The rest of it: (place among its outcomes, first index, number of items)."""


class Recorded:
    """Reads both streams of a run on, and keeps what they hold."""

    def __init__(self, ledger: Ledger, total: int) -> None:
        self._ledger, self._total = ledger, total
        self.indices = Intervals()
        """Of the run's range, in either stream."""
        self.counts = dict.fromkeys(STREAMS, 0)
        self.entries = dict.fromkeys(STREAMS, 0)
        self.wrong: list[WrongEntry] = []
        self._last = dict.fromkeys(STREAMS, "0-0")

    def read_to(self, picture: Picture) -> bool:
        """Read on to where the streams end in the picture.

        False: they are not those that were read before (failed items were opened again, or entries were removed), and
        what is kept here is of no use any more.
        """
        ends = dict(zip(STREAMS, (picture.results, picture.failures), strict=True))
        for stream, end in ends.items():
            self._read(stream, end)
        return all(self.entries[s] == end.entries and self._last[s] == end.last for s, end in ends.items())

    def _read(self, stream: str, end: StreamEnd) -> None:
        client: Any = self._ledger.client
        while self.entries[stream] < end.entries:
            after = f"({self._last[stream]}"
            entries = client.xrange(getattr(self._ledger.keys, stream), after, end.last, _ENTRIES_AT_ONCE)
            for raw_id, fields in entries:
                self._take(stream, raw_id.decode(), fields)
                self.entries[stream] += 1
                self._last[stream] = raw_id.decode()
            if not entries:
                return

    def _take(self, stream: str, entry: str, fields: dict[bytes, bytes]) -> None:
        try:
            spans, _ = read_entry(stream, fields)
        except CorruptData as error:
            self.wrong.append(WrongEntry(stream, entry, str(error)))
            return
        doubled: list[Span] = []
        beyond: list[Span] = []
        kept: list[tuple[int, int, int]] = []
        place = 0
        for start, count in spans:
            fits = max(0, min(count, self._total - start))
            if fits < count:
                beyond.append((start + fits, count - fits))
            if fits:
                doubled += self.indices.inside(start, fits)
                new = self.indices.outside(start, fits)
                self.indices.add(start, fits)
                self.counts[stream] += sum(length for _, length in new)
                kept += [(place + first - start, first, length) for first, length in new]
            place += count
        if doubled or beyond:
            self.wrong.append(WrongEntry(stream, entry, "", tuple(doubled), tuple(beyond), tuple(kept)))


def read_entry(stream: str, fields: dict[bytes, bytes]) -> tuple[list[Span], list[Any]]:
    """The spans and the outcomes of an entry. Raises `CorruptData` saying what is wrong with it."""
    if b"s" not in fields or b"d" not in fields:
        raise CorruptData("not an entry of piecework")
    spans = parse_spans(fields[b"s"].decode(errors="replace"), "its spans")
    values = codec.unpack(fields[b"d"], "its outcomes")
    if len(values) != (expected := sum(count for _, count in spans)):
        raise CorruptData(f"it has {len(values)} outcomes for {expected} items")
    if stream == "failures":
        for value in values:
            to_failure(value, "its outcomes")
    return spans, values
