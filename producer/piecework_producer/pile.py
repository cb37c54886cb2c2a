"""Fills runs: opens the ledger's run, streams the items into it, cuts them to chunks, seals.

A producer that dies at any line leaves a run that is being filled: no worker begins, the same command goes on where it
stopped, and its keys expire. Bad input ends the filling and removes the run, since nothing of it has begun.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence

from redis import Redis

from piecework import codec
from piecework.errors import BadInput, PieceworkError, SpecConflict, UsageError
from piecework.items import Pile, Range, blocks
from piecework.keys import queue_name
from piecework.ledger import Ledger
from piecework.records import Spec
from piecework.states import State

WORKER_FUNCTION = "piecework_worker.chunk.drain"
"""The function that the RQ jobs name: by string, the producer does not import the worker."""
_CHUNKS_PER_WORKER = 4


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


def budget(max_failures: str | None) -> tuple[float, bool] | None:
    """`N` or `P%` as (number, whether it is a percentage). Raises `UsageError`."""
    if max_failures is None:
        return None
    number, percent = max_failures.removesuffix("%"), max_failures.endswith("%")
    try:
        value = float(number) if percent else int(number)
    except ValueError:
        value = -1
    if not 0 <= value <= (100 if percent else 1 << 50):
        raise UsageError(f"--max-failures {max_failures!r} is neither a number of items nor a percentage, such as 5%")
    return value, percent


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
) -> tuple[bool, State]:
    """Open the run or continue it, fill it, seal it: (whether it is new, its state).

    `chunk_size` None: a quarter of a worker's even share. `progress` is told the number of items filled so far.
    Raises `SpecConflict` if the run exists with another specification or other items, `BadInput` for an item that
    cannot be read; the run is then removed, if it was still being filled.
    """
    limit = budget(spec.max_failures)
    created = ledger.open(spec, rq_job_template(ledger.client, ledger.run), keep_seconds, worker_arguments)
    try:
        total = _fill_range(ledger, pile) if isinstance(pile, Range) else _Filling(ledger, progress).stream(pile.encoded)
    except BaseException as error:
        unusable = isinstance(error, BadInput) or (created and not isinstance(error, PieceworkError))
        if unusable and ledger.status().state is State.FILLING:
            ledger.delete()
        raise
    state = ledger.status().state
    if state is State.FILLING:
        ledger.cut(chunk_size or max(1, -(-total // (_CHUNKS_PER_WORKER * parallelism))))
        state = ledger.seal(total, limit)
    return created, state


def _fill_range(ledger: Ledger, pile: Range) -> int:
    if pile.total:
        ledger.fill(0, pile.total, b"", "")
    return pile.total


class _Filling:
    """One pass over the input: skips what is filled already, after checking that it is the same."""

    def __init__(self, ledger: Ledger, progress: Callable[[int], None]) -> None:
        self._ledger, self._progress = ledger, progress
        self._filled, self._digest = ledger.filled()
        self._hash = hashlib.sha256()

    def stream(self, encoded: Iterator[bytes]) -> int:
        """Fill all of it; returns the number of items."""
        total = 0
        for start, block in blocks(encoded, lambda: self._filled):
            total = start + len(block)
            self._hash.update(b"".join(block))
            if total > self._filled:
                self._append(start, block)
            if total == self._filled and self._hash.hexdigest() != self._digest:
                raise self._other_items(total)
            self._progress(total)
        if total < self._filled:
            raise self._other_items(total)
        return total

    def _append(self, start: int, block: list[bytes]) -> None:
        digest = self._hash.hexdigest()
        accepted, _ = self._ledger.fill(start, len(block), codec.pack_encoded(block), digest)
        if accepted:
            self._filled, self._digest = start + len(block), digest
            return
        self._filled, self._digest = self._ledger.filled()
        if self._filled < start + len(block):
            raise SpecConflict(
                f"run {self._ledger.run} is being filled with other items by somebody else, or was deleted just now: "
                "use another --run ID"
            )

    def _other_items(self, read: int) -> SpecConflict:
        return SpecConflict(
            f"run {self._ledger.run} exists with other items: the {min(read, self._filled)} first ones of this input "
            f"are not those that it was filled with ({self._filled} so far). Use another --run ID, or delete the old "
            f"run: piecework delete {self._ledger.run}"
        )
