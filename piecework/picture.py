"""One consistent picture of the small parts of a run's ledger, taken in one transaction; changes nothing.

The streams and the payload are not in it: they are read afterwards, up to where they ended in the picture. So the
server is kept busy for as long as it takes to write the chunks out, about 2 µs for each that was ever made.
"""

from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from piecework.ledger import Ledger

PLACES = ("waiting", "leases", "delayed")
"""An open chunk is in exactly one of them."""
OWN_KEYS = (
    *("run", "chunks", *PLACES, "copies", "results", "failures", "payload", "blocks", "events", "workers", "template"),
)
"""The run's own keys, by their names in `RunKeys`."""
_VERSION = (b"state", b"sealed", b"total", b"filled", b"cut", b"done", b"failed", b"chunk_count")


@dataclass(frozen=True)
class StreamEnd:
    """Where a stream ended."""

    entries: int
    last: str
    """Id of its last entry; "0-0" if it has none."""


@dataclass(frozen=True)
class Picture:
    """What the ledger has of a run at one moment."""

    now_ms: float
    fields: dict[str, str]
    """Of the run's hash; empty: it is gone."""
    version: bytes
    """Differs as soon as anything is recorded, opened, divided or ended."""
    chunks: dict[bytes, bytes]
    places: dict[str, frozenset[bytes]]
    """`PLACES` -> the chunks in it."""
    expiries: dict[bytes, float]
    """Leased chunk -> when its lease runs out (ms)."""
    copies: dict[bytes, bytes]
    """Chunk -> "expiry_ms worker" of its copy."""
    results: StreamEnd
    failures: StreamEnd
    blocks: dict[bytes, float]
    """The index of the payload: first index of each block."""
    payload: frozenset[bytes]
    """The blocks that are there."""
    workers: dict[bytes, float]
    """When each was last seen (ms)."""
    lifetimes: dict[str, int]
    """Own key -> ms until it expires; -1: never, -2: it does not exist."""
    listed: bool
    """The run is among the runs of the server."""
    queue_known: bool
    """Its queue is among RQ's."""
    misused: tuple[str, ...]
    """Keys that hold something else than they should."""


def look(ledger: Ledger) -> Picture:
    """The run as it is now; all is empty if it is gone."""
    keys = ledger.keys
    with ledger.client.pipeline(transaction=True) as pipe:
        asked: list[str] = []

        def ask(key: str, call: Any) -> None:
            call()
            asked.append(key)

        ask("", pipe.time)
        ask(keys.run, lambda: pipe.hgetall(keys.run))
        ask(keys.chunks, lambda: pipe.hgetall(keys.chunks))
        ask(keys.copies, lambda: pipe.hgetall(keys.copies))
        for key in (keys.waiting, keys.delayed):
            ask(key, lambda key=key: pipe.zrange(key, 0, -1))
        for key in (keys.leases, keys.blocks, keys.workers):
            ask(key, lambda key=key: pipe.zrange(key, 0, -1, withscores=True))
        for key in (keys.results, keys.failures):
            ask(key, lambda key=key: pipe.xlen(key))
            ask(key, lambda key=key: pipe.xrevrange(key, count=1))
        ask(keys.payload, lambda: pipe.hkeys(keys.payload))
        ask(keys.runs, lambda: pipe.zscore(keys.runs, ledger.run))
        ask(keys.queues, lambda: pipe.sismember(keys.queues, keys.queue))
        ask(keys.template, lambda: pipe.hlen(keys.template))
        for name in OWN_KEYS:
            key = getattr(keys, name)
            ask(key, lambda key=key: pipe.pttl(key))
        replies: list[Any] = pipe.execute(raise_on_error=False)
    misused = []
    for at, (key, reply) in enumerate(zip(asked, replies, strict=True)):
        if isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE"):
            misused.append(key)
            replies[at] = None
        elif isinstance(reply, Exception):
            raise reply
    answers = iter(replies)
    seconds, microseconds = next(answers)
    raw: dict[bytes, bytes] = next(answers) or {}
    chunks, copies = (next(answers) or {} for _ in range(2))
    waiting, delayed = (frozenset(next(answers) or ()) for _ in range(2))
    leases, blocks, workers = (dict(next(answers) or ()) for _ in range(3))
    results, failures = (_stream_end(next(answers), next(answers)) for _ in range(2))
    payload, score, queue_known, _ = (next(answers) for _ in range(4))
    version = [raw.get(name, b"-") for name in _VERSION]
    for end in (results, failures):
        version += [b"%d" % end.entries, end.last.encode()]
    return Picture(
        now_ms=seconds * 1000 + microseconds / 1000,
        fields={name.decode(errors="replace"): value.decode(errors="replace") for name, value in raw.items()},
        version=b" ".join(version),
        chunks=chunks,
        places={"waiting": waiting, "leases": frozenset(leases), "delayed": delayed},
        expiries=leases,
        copies=copies,
        results=results,
        failures=failures,
        blocks=blocks,
        payload=frozenset(payload or ()),
        workers=workers,
        lifetimes=dict(zip(OWN_KEYS, answers, strict=True)),
        listed=score is not None,
        queue_known=bool(queue_known),
        misused=tuple(dict.fromkeys(misused)),
    )


def _stream_end(entries: int | None, last: list[tuple[bytes, Any]] | None) -> StreamEnd:
    return StreamEnd(entries or 0, last[0][0].decode() if last else "0-0")
