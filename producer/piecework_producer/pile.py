"""Fills runs: opens the ledger's run, streams the items into it, cuts them to chunks, seals.

A producer that dies at any line leaves a run that is being filled: no worker begins, the same command goes on where it
stopped, and its keys expire. Bad input, and Ctrl-C, end the filling and remove the run, since nothing of it has begun.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeVar

from redis import Redis
from redis.exceptions import RedisError

from piecework import codec
from piecework.errors import (
    PieceworkError,
    RunIsOver,
    ServerLost,
    ServerUnusable,
    SpecConflict,
    UnknownRun,
    UsageError,
)
from piecework.items import Pile, Range, blocks
from piecework.keys import queue_name
from piecework.ledger import Ledger
from piecework.records import Spec, budget
from piecework.states import State

WORKER_FUNCTION = "piecework_worker.chunk.drain"
"""The function that the RQ jobs name: by string, the producer does not import the worker."""
MOST_CHUNKS = 1_000_000
"""A chunk takes about 600 bytes of Redis until it is done; all of them are sealed in one script, 5 µs each."""
_CHUNKS_PER_WORKER = 4
_CHUNK_BYTES = 64 << 20
"""Payload of an automatic chunk, encoded: a worker that is lost leaves no more than that to be fetched again."""
T = TypeVar("T")


class Lasting(Protocol):
    """Makes a call to the server, again if the server is away for a while."""

    def __call__(self, call: Callable[[], T]) -> T:
        """What `call` gives; it must be safe to repeat."""


def _once(call: Callable[[], T]) -> T:
    return call()


def rq_job_template(client: Redis, run: str) -> dict[str, str | bytes | int | float]:
    """The RQ job that delivers each chunk, as RQ itself would store it; its id alone names the chunk."""
    from rq.job import Job, JobStatus
    from rq.serializers import JSONSerializer

    job = Job.create(
        WORKER_FUNCTION,
        connection=client,
        serializer=JSONSerializer,
        timeout=-1,
        result_ttl=0,
        origin=queue_name(run),
        status=JobStatus.QUEUED,
        description=f"a chunk of piecework run {run}",
    )
    return dict(job.to_dict())


def fill(
    ledger: Ledger,
    spec: Spec,
    pile: Pile,
    *,
    parallelism: int,
    chunk_size: int | None = None,
    keep_seconds: int,
    worker_arguments: Sequence[str] = (),
    progress: Callable[[int], None] = lambda filled: None,
    lasting: Lasting = _once,
) -> tuple[bool, State]:
    """Open the run or continue it, fill it, seal it: (whether it is new, its state).

    `chunk_size` None: a quarter of a worker's even share, or 64 MiB of payload if that is less. `progress` is told the
    number of items filled so far. `lasting` makes each call to the server, and may repeat it. Raises `SpecConflict` if
    the run exists with another specification or other items, `BadInput` for an item that cannot be read; the run is
    then removed, if it was still being filled.
    """
    limit = budget(spec.max_failures)
    template = rq_job_template(ledger.client, ledger.run)
    created = lasting(lambda: ledger.open(spec, template, keep_seconds, worker_arguments))
    filling = _Filling(ledger, progress, lasting)
    try:
        total = filling.range(pile) if isinstance(pile, Range) else filling.stream(pile.encoded)
        size = _size_of_chunks(total, filling.bytes, parallelism, chunk_size)
        state = lasting(ledger.status).state
        if state is State.FILLING:
            lasting(lambda: ledger.cut(size))
            state = lasting(lambda: ledger.seal(total, limit))
    except BaseException as error:
        if filling.is_useless_after(error, created):
            _remove_unbegun(ledger)
        raise
    return created, state


def _size_of_chunks(total: int, payload_bytes: int, parallelism: int, wanted: int | None) -> int:
    share = -(-total // (_CHUNKS_PER_WORKER * parallelism))
    fitting = max(total * _CHUNK_BYTES // max(1, payload_bytes), -(-total // MOST_CHUNKS))
    size = wanted or max(1, min(share, fitting))
    if total > size * MOST_CHUNKS:
        raise UsageError(
            f"--chunk-size {size} makes {-(-total // size):,} chunks of {total:,} items; at most {MOST_CHUNKS:,} are "
            f"allowed: leave it out, or give at least {-(-total // MOST_CHUNKS)}"
        )
    return size


def _remove_unbegun(ledger: Ledger) -> None:
    # The error that led here is the one to report.
    with suppress(PieceworkError, RedisError):
        if ledger.status().state is State.FILLING:
            ledger.delete()


class _Filling:
    """One pass over the input: skips what is filled already, after checking that it is the same."""

    def __init__(self, ledger: Ledger, progress: Callable[[int], None], lasting: Lasting) -> None:
        self._ledger, self._progress, self._lasting = ledger, progress, lasting
        self._filled, self._digest = lasting(ledger.filled)
        self._hash = hashlib.sha256()
        self._checked = self._filled == 0
        """All that is filled is this input's beginning."""
        self.bytes = 0
        """Size of the payload, encoded; 0 for a range."""
        self._lost = lasting(ledger.lost)
        """What a repair has found to be gone of it."""
        self._token = secrets.token_hex(8)

    def range(self, pile: Range) -> int:
        """Fill a range, in one call; returns the number of items."""
        if pile.total:
            self._lasting(lambda: self._ledger.fill(0, pile.total, b"", ""))
        return pile.total

    def stream(self, encoded: Iterator[bytes]) -> int:
        """Fill all of it; returns the number of items."""
        total = 0
        for start, block in blocks(encoded, lambda: self._filled):
            total = start + len(block)
            encoded_block = b"".join(block)
            self.bytes += len(encoded_block)
            self._hash.update(encoded_block)
            self._stage_lost(start, block)
            if total > self._filled:
                self._append(start, block)
            if total == self._filled:
                if self._hash.hexdigest() != self._digest:
                    raise self._other_items(total)
                self._checked = True
            self._progress(total)
        if total < self._filled:
            raise self._other_items(total)
        if self._lost:
            self._lasting(lambda: self._ledger.refill(self._token))
        return total

    def _stage_lost(self, start: int, block: list[bytes]) -> None:
        for first, count in self._lost:
            low, high = max(first - start, 0), min(first + count - start, len(block))
            if low < high:
                packed = codec.pack_encoded(block[low:high])
                self._lasting(partial(self._ledger.stage, self._token, start + low, packed))

    def is_useless_after(self, error: BaseException, created: bool) -> bool:
        """Whether nobody can go on with a run whose filling ended so."""
        if isinstance(error, RedisError | ServerLost | ServerUnusable | SpecConflict):
            return False
        return created or (isinstance(error, UsageError) and self._checked)

    def _append(self, start: int, block: list[bytes]) -> None:
        digest = self._hash.hexdigest()
        packed = codec.pack_encoded(block)
        accepted, _ = self._lasting(lambda: self._ledger.fill(start, len(block), packed, digest))
        if accepted:
            self._filled, self._digest = start + len(block), digest
            return
        self._filled, self._digest = self._lasting(self._ledger.filled)
        if self._filled < start + len(block):
            raise self._why_refused()

    def _why_refused(self) -> PieceworkError:
        run = self._ledger.run
        try:
            state = self._lasting(self._ledger.status).state
        except UnknownRun:
            return UnknownRun(f"run {run} was deleted while it was being filled")
        if state.over and not state.drained:
            return RunIsOver(f"run {run} is {state}: it takes no more items")
        return SpecConflict(f"run {run} is being filled with other items by somebody else: use another --run ID")

    def _other_items(self, read: int) -> SpecConflict:
        return SpecConflict(
            f"run {self._ledger.run} exists with other items: the {min(read, self._filled)} first ones of this input "
            f"are not those that it was filled with ({self._filled} so far). Use another --run ID, or delete the old "
            f"run: piecework delete {self._ledger.run}"
        )
