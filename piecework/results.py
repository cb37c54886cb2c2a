"""Reads the outcomes of a run back, in index order or as they come, also while workers add to them.

Each commit is one entry of a stream, so that a million outcomes cost a few hundred reads. To put them in
order, an entry whose turn has not come is kept packed while there is room, and else read again when its turn
comes.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from piecework import codec
from piecework.damage import reading
from piecework.errors import CorruptData
from piecework.ledger import Ledger
from piecework.payload import Items
from piecework.records import Failure, Spec, to_failure
from piecework.spans import Span, parse_spans

_ENTRIES_AT_ONCE = 50
_ROOM_BYTES = 64 << 20


@dataclass(frozen=True)
class Outcome:
    """What became of one item: a result, or the failure that was recorded for it."""

    index: int
    item: Any
    result: Any = None
    error: Failure | None = None

    def to_json(self, error_fields: Sequence[str] = ("type", "message")) -> bytes:
        """One JSON line without its end: {"index", "item", "result"} or {"index", "item", "error"}.

        bytes become base64, datetimes ISO 8601, NaN and infinities null. `error_fields` are those of
        `Failure`.
        """
        record: dict[str, Any] = {"index": self.index, "item": self.item}
        if self.error is None:
            record["result"] = self.result
        else:
            record["error"] = {name: getattr(self.error, name) for name in error_fields}
        with reading(f"item {self.index}"):  # another's MessagePack may hold what JSON has not
            try:
                return msgspec.json.encode(record)
            except (OverflowError, ValueError):  # an integer of more digits than Python prints
                return msgspec.json.encode(_big_as_raw(record))


def _big_as_raw(value: Any) -> Any:
    """Integers of any size as JSON numbers; Python's limit on the digits of `str(int)` stays as it is."""
    if type(value) is int and not -(1 << 63) <= value < 1 << 64:
        return msgspec.Raw(_decimal(value).encode())
    if isinstance(value, list):
        return [_big_as_raw(element) for element in value]
    if isinstance(value, dict):
        return {key: _big_as_raw(element) for key, element in value.items()}
    return value


def _decimal(value: int) -> str:
    """Decimal digits of any integer, by halving: below 4300 digits Python's own limit does not bite."""
    if value < 0:
        return "-" + _decimal(-value)
    if value.bit_length() < 13_000:
        return str(value)
    half = int(value.bit_length() * 0.30103) // 2
    high, low = divmod(value, 10**half)
    return _decimal(high) + _decimal(low).rjust(half, "0")


@dataclass
class _Entry:
    """One stream entry: the outcomes of the items in its spans."""

    stream: str
    id: str
    spans: list[Span]
    packed: bytes
    """Empty for an entry that waits for its turn and found no room: it is read again."""
    to_tell: int = 0
    """How many of its spans wait for their turn."""
    kept: bool = False


class _Forgotten(CorruptData):
    """An entry is gone that was there: `retry` has taken it out, or the server has lost its last writes."""


@dataclass(frozen=True)
class _Pending:
    """A span that waits for its turn."""

    entry: _Entry
    offset: int
    """Where the span's outcomes begin among those of the entry."""
    count: int


class ResultReader:
    """Reads forward through the results and the failures of a run. Keeps its place; not for several threads.

    A call that ends with an error of the server may be repeated: nothing is left out, and nothing told twice.
    """

    def __init__(self, ledger: Ledger, spec: Spec, *, failures_only: bool = False) -> None:
        self._ledger = ledger
        self._items = Items(ledger, spec)
        streams = [ledger.keys.failures] if failures_only else [ledger.keys.results, ledger.keys.failures]
        self._last = dict.fromkeys(streams, "0")
        self._pending: dict[int, _Pending] = {}
        """By first index."""
        self._kept_bytes = 0
        self._unpacked: OrderedDict[str, list[Any]] = OrderedDict()
        self.next_index = 0
        """The index that the next outcome in order will have."""

    def as_they_come(self, block_seconds: float = 0.0) -> Iterator[Outcome]:
        """What is new, entry by entry; waits at most `block_seconds` for it, then ends."""
        for entry in self._read(block_seconds):
            values, offset = self._values(entry), 0
            outcomes: list[Outcome] = []
            for start, count in entry.spans:
                outcomes += self._outcomes(entry, start, values[offset : offset + count])
                offset += count
            # Before the first is told: whoever stops listening in between has heard of this entry.
            self._last[entry.stream] = entry.id
            yield from outcomes

    def in_order(self, block_seconds: float = 0.0, at_most_seconds: float = math.inf) -> Iterator[Outcome]:
        """What can be told in index order without a gap; waits at most `block_seconds` for news, then ends.

        Ends after about `at_most_seconds` also while there is more, for a caller that has other things to do.
        """
        yield from self._ripe()
        until = time.monotonic() + at_most_seconds
        for entry in self._read(block_seconds):
            offset = 0
            for start, count in entry.spans:
                # A server that has lost its last writes may record items anew in other spans than those told.
                told = max(0, self.next_index - start)
                if told < count:
                    self._pending[start + told] = _Pending(entry, offset + told, count - told)
                    entry.to_tell += 1
                offset += count
            self._keep(entry)
            self._last[entry.stream] = entry.id
            yield from self._ripe()
            if time.monotonic() > until:
                return

    def rest(self) -> Iterator[Outcome]:
        """What is left behind a gap: in index order still, but not of all items. For a run that is over, or a
        look.
        """
        for start in sorted(self._pending):
            if start >= self.next_index:
                self.next_index = start
                yield from self._ripe()
        self._pending.clear()

    # --- in order

    def _ripe(self) -> Iterator[Outcome]:
        while (found := self._pending.get(self.next_index)) is not None:
            entry = found.entry
            try:
                values = self._values(entry)[found.offset : found.offset + found.count]
            except _Forgotten:
                del self._pending[self.next_index]
                return
            outcomes = list(self._outcomes(entry, self.next_index, values))
            # Only now: a server that goes away before leaves the reader where it was.
            del self._pending[self.next_index]
            self.next_index += found.count
            entry.to_tell -= 1
            if entry.kept and not entry.to_tell:
                self._kept_bytes -= len(entry.packed)
            yield from outcomes

    def _keep(self, entry: _Entry) -> None:
        """Forget the bytes of an entry that has to wait when there is no more room; it can be read again."""
        if not entry.to_tell or (entry.to_tell == 1 and self.next_index in self._pending):
            return
        if self._kept_bytes + len(entry.packed) <= _ROOM_BYTES:
            self._kept_bytes += len(entry.packed)
            entry.kept = True
        else:
            entry.packed = b""

    def _values(self, entry: _Entry) -> list[Any]:
        """The outcomes that an entry packs; the last few are kept, since spans of entries interleave."""
        values = self._unpacked.get(entry.id + entry.stream)
        if values is None:
            packed = entry.packed or self._read_again(entry)
            where = f"run {self._ledger.run}, {entry.stream} {entry.id}"
            values = codec.unpack(packed, where)
            if len(values) != sum(count for _, count in entry.spans):
                raise CorruptData(f"{where}: {len(values)} outcomes for other spans")
            self._unpacked[entry.id + entry.stream] = values
            if len(self._unpacked) > 4:
                self._unpacked.popitem(last=False)
        return values

    def _read_again(self, entry: _Entry) -> bytes:
        client: Any = self._ledger.client
        where = f"run {self._ledger.run}, {entry.stream} {entry.id}"
        with reading(where):
            found = client.xrange(entry.stream, entry.id, entry.id)
            if not found:
                raise _Forgotten(f"{where}: the entry is gone")
            return bytes(found[0][1][b"d"])

    # --- streams

    def _read(self, block_seconds: float) -> Iterator[_Entry]:
        """The entries after `_last`, which the caller moves on when it has taken one in."""
        client: Any = self._ledger.client  # redis-py's types leave open what comes back
        block: int | None = round(block_seconds * 1000) or None
        while True:
            with reading(f"run {self._ledger.run}, its outcomes"):
                reply = client.xread(self._last, count=_ENTRIES_AT_ONCE, block=block)
            streams = reply.items() if isinstance(reply, dict) else reply or ()
            read = 0
            for raw_stream, entries in streams:
                stream = raw_stream.decode()
                for raw_id, fields in _flat(entries):
                    entry_id = raw_id.decode()
                    where = f"run {self._ledger.run}, {stream} {entry_id}"
                    try:
                        spans = parse_spans(fields[b"s"].decode(), where)
                        packed = fields[b"d"]
                    except (KeyError, UnicodeDecodeError):
                        raise CorruptData(f"{where}: not an entry of piecework") from None
                    read += 1
                    yield _Entry(stream, entry_id, spans, packed)
            if not read:
                return
            block = None

    def _outcomes(self, entry: _Entry, start: int, values: list[Any]) -> Iterator[Outcome]:
        items = self._items.span(start, len(values))
        if entry.stream == self._ledger.keys.results:
            for index, (item, value) in enumerate(zip(items, values, strict=True), start):
                yield Outcome(index, item, value)
        else:
            where = f"run {self._ledger.run}, {entry.stream} {entry.id}"
            for index, (item, value) in enumerate(zip(items, values, strict=True), start):
                yield Outcome(index, item, error=to_failure(value, where))


def _flat(entries: Any) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
    """redis-py gives a list of entries (RESP 2) or of lists of entries (RESP 3)."""
    for entry in entries:
        if isinstance(entry, list):
            yield from entry
        else:
            yield entry
