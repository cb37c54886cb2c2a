"""Reads what a run's streams tell of its course: who committed how much when, and what happened to its workers.

The outcomes themselves are dropped as they come. Reading changes nothing, and may be repeated.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from piecework.errors import CorruptData
from piecework.ledger import Ledger
from piecework.spans import parse_spans

_FIRST_PAGE = 100
_LARGEST_PAGE = 5000
_PAGE_BYTES = 4 << 20


class Meta(msgspec.Struct, frozen=True):
    """What a horse says about itself with each commit."""

    worker: str
    seconds: float
    """Since its previous commit; for the first, since it took its chunk in hand."""
    times: list[int]
    """See `item_times`."""


@dataclass(frozen=True)
class Commit:
    """What one entry of the results or the failures recorded."""

    at: float
    """Unix seconds, the server's clock."""
    items: int
    failed: bool
    meta: Meta | None
    """None: no horse lived to tell (a crash, a time-out, a lost worker)."""
    told: bool = False
    """The other entry of the same commit has been told: `meta` is that one's, and its time is counted."""


@dataclass(frozen=True)
class Event:
    """What the ledger noted: open, seal, join, leave, claim, release, steal, copy, expired, crash, timeout, reap, …"""

    at: float
    kind: str
    worker: str


def commits(ledger: Ledger, until: float) -> Iterator[Commit]:
    """Everything recorded up to `until` (server's clock), failures first. Raises `CorruptData` naming the entry.

    A commit with results and failures is an entry in each of the two streams, made by one script: with one time and one
    meta. The second of the two is marked as `told`.
    """
    seen: set[tuple[int, bytes]] = set()
    for failed, stream in ((True, ledger.keys.failures), (False, ledger.keys.results)):
        for entry, fields in _entries(ledger, stream, until):
            where = f"run {ledger.run}, {stream} {entry.decode()}"
            at_ms = int(entry.partition(b"-")[0])
            try:
                items = sum(count for _, count in parse_spans(fields[b"s"].decode(), where))
                packed = fields[b"m"]
                meta = msgspec.msgpack.decode(packed, type=Meta) if packed else None
            except (KeyError, UnicodeDecodeError, msgspec.MsgspecError) as error:
                raise CorruptData(f"{where}: not an entry of piecework ({error})") from None
            if failed:
                seen.add((at_ms, packed))
            told = not failed and (at_ms, packed) in seen
            yield Commit(at_ms / 1000, items, failed, meta, told)


def events(ledger: Ledger, until: float) -> list[Event]:
    """The events up to `until`, in order; the first is of kind `open` unless older ones were trimmed."""
    return [
        Event(int(entry.partition(b"-")[0]) / 1000, *(fields.get(name, b"").decode() for name in (b"kind", b"worker")))
        for entry, fields in _entries(ledger, ledger.keys.events, until)
    ]


def _entries(ledger: Ledger, stream: str, until: float) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
    """In pages of about `_PAGE_BYTES`: an entry may hold one small result or megabytes of them."""
    client: Any = ledger.client  # redis-py's types leave open what comes back
    start, count, last = "-", _FIRST_PAGE, str(round(until * 1000))
    while page := client.xrange(stream, start, last, count=count):
        size = 0
        for entry, fields in page:
            size += sum(map(len, fields.values()))
            yield entry, fields
        start = f"({entry.decode()}"
        count = min(_LARGEST_PAGE, max(1, _PAGE_BYTES * len(page) // max(1, size)))
