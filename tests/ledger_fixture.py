"""Runs for tests of the ledger: made in one line, looked into, and pushed to where only time or bad luck
would.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

from redis import Redis

from piecework.codec import pack, unpack
from piecework.keys import job_id
from piecework.ledger import KEEP_SECONDS, Ledger
from piecework.records import Chunk as Chunk
from piecework.records import Claim, Committed, Failure, Spec, pack_failures
from piecework.spans import indices, parse_spans, spans_of, without
from piecework_producer.pile import rq_job_template

BOOM = Failure("ValueError", "boom")


def opened(client: Redis, run: str, keep: int = KEEP_SECONDS, **spec: Any) -> Ledger:
    """A run that is being filled."""
    ledger = Ledger(client, run)
    ledger.open(Spec(**{"handler": "m:f", **spec}), rq_job_template(client, run), keep)
    return ledger


def sealed(
    client: Redis,
    run: str,
    total: int = 10,
    size: int = 5,
    budget: tuple[float, bool] | None = None,
    keep: int = KEEP_SECONDS,
    **spec: Any,
) -> Ledger:
    """A run of a range of `total` items in chunks 1, 2, … of `size` items, ready for workers."""
    ledger = opened(client, run, keep, **spec)
    if total:
        ledger.fill(0, total, b"", "")
        ledger.cut(size)
    ledger.seal(total, budget)
    return ledger


def claimed(ledger: Ledger, number: int = 1, worker: str = "w", lease: float = 60) -> Claim:
    """Claim a chunk as a worker would after RQ has popped it."""
    ledger.client.lrem(ledger.keys.queue, 0, job_id(ledger.run, number))
    claim = ledger.claim(number, worker, lease)
    assert claim is not None
    return claim


def commit(
    ledger: Ledger,
    chunk: int,
    start: int,
    count: int,
    *,
    failing: Iterable[int] = (),
    retries: dict[int, float] | None = None,
    careful: int = 0,
    say: str = "",
    worker: str = "",
) -> Committed:
    """Commit items start..start+count-1: those in `failing` as failed, those in `retries` to be tried again.

    The result of an item is `[index, say]`.
    """
    failed, again = sorted(failing), retries or {}
    spans = without(start, count, sorted({*failed, *again}))
    return ledger.commit(
        chunk,
        start,
        count,
        worker=worker,
        careful=careful,
        results=(spans, pack([[index, say] for index in indices(spans)])) if spans else ([], b""),
        failures=(spans_of(failed), pack_failures([BOOM for _ in failed])) if failed else ([], b""),
        retries=again,
        meta=b"meta",
    )


def outcomes(client: Redis, stream: str) -> list[tuple[int, Any]]:
    """(index, outcome) of all entries of the results or the failures, in the order of recording."""
    found: list[tuple[int, Any]] = []
    for _, fields in cast(list[tuple[bytes, dict[bytes, bytes]]], client.xrange(stream)):
        assert list(fields) == [b"s", b"d", b"m"]
        spans = parse_spans(fields[b"s"].decode(), stream)
        found += zip(indices(spans), unpack(fields[b"d"], stream), strict=True)
    return found


def done(ledger: Ledger) -> list[int]:
    """Indices of the items that have results."""
    return sorted(index for index, _ in outcomes(ledger.client, ledger.keys.results))


def failed(ledger: Ledger) -> list[int]:
    """Indices of the items that have failures."""
    return sorted(index for index, _ in outcomes(ledger.client, ledger.keys.failures))


# --- chunks


def chunk(ledger: Ledger, number: int) -> Chunk:
    """A chunk of the run."""
    packed = cast(bytes | None, ledger.client.hget(ledger.keys.chunks, str(number)))
    assert packed is not None
    return Chunk.parse(b"%d" % number, packed)


def chunks(ledger: Ledger) -> list[Chunk]:
    """All chunks of the run that were ever made."""
    stored = cast(dict[bytes, bytes], ledger.client.hgetall(ledger.keys.chunks))
    return sorted((Chunk.parse(*pair) for pair in stored.items()), key=lambda chunk: chunk.id)


def store(ledger: Ledger, chunk: Chunk) -> None:
    """Write a chunk, behind the ledger's back."""
    numbers = (chunk.start, chunk.stop, chunk.next, chunk.careful, chunk.deliveries, chunk.crashes, chunk.losses)
    estimate = (chunk.begun, chunk.begun_ms, chunk.item_ns)
    text = " ".join(map(str, (*numbers, chunk.attempt, *estimate, chunk.owner)))
    ledger.client.hset(ledger.keys.chunks, str(chunk.id), text)


def at_pace(ledger: Ledger, number: int, *, since: float = 0.0, item_seconds: float = 1.0, begun: int = 0) -> None:
    """Have a leased chunk look as if its owner had last committed `since` seconds ago."""
    seconds, microseconds = ledger.client.time()
    there = chunk(ledger, number)
    now_ms = seconds * 1000 + microseconds // 1000
    begun_ms, item_ns = now_ms - round(since * 1000), round(item_seconds * 1e9)
    store(ledger, replace(there, begun=begun or there.next + 1, begun_ms=begun_ms, item_ns=item_ns))


def queued(ledger: Ledger) -> list[int]:
    """Chunks in the order in which the RQ queue delivers them."""
    prefix = job_id(ledger.run, 0)[:-1]
    jobs = cast(list[bytes], ledger.client.lrange(ledger.keys.queue, 0, -1))
    return [int(job.decode().removeprefix(prefix)) for job in jobs]


def members(ledger: Ledger, zset: str) -> set[int]:
    """Chunks in the waiting, leased or delayed ones."""
    return set(map(int, cast(list[bytes], ledger.client.zrange(zset, 0, -1))))


def set_all_to_the_past(ledger: Ledger, *zsets: str) -> None:
    """Let leases expire, retries become due, and waiting chunks be old, without waiting for it."""
    for zset in zsets:
        for number in members(ledger, zset):
            ledger.client.zadd(zset, {str(number): 1})


# --- keys


def keys_of(client: Redis, run: str) -> list[str]:
    """All keys on the server that have the run's id in their name."""
    names = (key.decode() for key in client.scan_iter(count=1000))
    return sorted(name for name in names if f":{run}:" in name or f"piecework-{run}" in name)


def keys_without_lifetime(client: Redis, run: str) -> list[str]:
    """Those of `keys_of` that Redis will not remove by itself."""
    return [key for key in keys_of(client, run) if client.ttl(key) == -1]
