"""Collects the outcomes of a chunk's items and commits them, in index order, at latest every half second.

The handler's loop appends to `results`; a thread of the horse commits what has gathered there, so that a long item does
not hold back the ones before it. A horse that dies loses what was not committed; it is computed once more, by
whoever gets the chunk. A commit whose reply was lost is sent again and refused: the ledger's answer says where it
is, and the recorder goes on from there.
"""

import time
import traceback
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Any

import msgspec

from piecework import codec
from piecework.ledger import Ledger
from piecework.patience import Patience
from piecework.records import Claim, Committed, Failure, pack_failures
from piecework.spans import Span, spans_of, without

COMMIT_SECONDS = 0.5
_MOST_ITEMS = 100_000
_LONGEST_RETRY_DELAY = 60.0
_BUCKETS = 24


def retry_delay(attempt: int) -> float:
    """Seconds before the next attempt after `attempt` failed ones: 1, 2, 4, … up to 60."""
    return min(2.0 ** (attempt - 1), _LONGEST_RETRY_DELAY)


def failure_of(error: BaseException, attempt: int) -> Failure:
    """The record of an exception that a handler raised."""
    text = "".join(traceback.format_exception(error))
    return Failure(type(error).__qualname__, str(error), text, attempt)


class Recorder:
    """The outcomes of one claimed chunk, from `claim.next` on."""

    def __init__(
        self,
        ledger: Ledger,
        claim: Claim,
        worker: str,
        retries: int,
        patience: Patience,
        alive: Callable[[], bool] = lambda: True,
    ) -> None:
        self.results: list[object] = []
        """Outcomes of items base, base+1, …: the handler's loop appends. A failed item has None here."""
        self.base = claim.next
        self.stop_index = claim.stop
        """End of the chunk as last heard of."""
        self.stopped: str | None = None
        """Why no further item is to be begun."""
        self.error: Exception | None = None
        """What went wrong in the committing thread."""
        self._ledger, self._claim, self._worker = ledger, claim, worker
        self._retries_left = claim.attempt < retries
        self._attempt = claim.attempt + 1
        self.patience, self._alive = patience, alive
        self._failures: dict[int, Failure] = {}
        self._committed = 0
        self._careful = 1 if claim.careful else 0
        self._batch: list[Any] = []
        self._batch_end = claim.next
        self._abandoned = False
        self._lock = Lock()
        self._closing = Event()
        self._histogram = [0] * _BUCKETS
        self._since = time.monotonic()
        self._thread = Thread(target=self._tick, name="piecework-commit", daemon=True)

    @property
    def position(self) -> int:
        """Index of the next item to work on."""
        return self.base + len(self.results)

    @property
    def careful(self) -> int:
        """How many items may be begun before the next commit; 0: no limit."""
        return self._careful

    def start(self) -> None:
        """Commit from now on, every half second."""
        self._thread.start()

    def begin(self, batch: list[Any]) -> None:
        """The loop is about to iterate over `batch`, the items from `position` on.

        The list is emptied to stop the loop at the next item boundary: a list iterator sees that, at no cost per item.
        """
        self._batch, self._batch_end = batch, self.position + len(batch)
        if self.stopped:
            batch.clear()
        self._truncate()

    def stop(self, reason: str) -> None:
        """Begin no further item. Safe in a signal handler and in any thread."""
        if self.stopped is None:
            self.stopped = reason
        self._batch.clear()

    def fail(self, failure: Failure) -> None:
        """Record a failure of the item at `position`."""
        self._failures[len(self.results)] = failure
        self.results.append(None)

    def fail_with(self, error: BaseException) -> None:
        """Record the exception that the item at `position` raised."""
        self.fail(failure_of(error, self._attempt))

    def timed(self, seconds: float, items: int = 1) -> None:
        """Count `items` items of `seconds` each in the histogram of item times (powers of four from 1 µs)."""
        microseconds = max(1, int(seconds * 1e6))
        self._histogram[min(_BUCKETS - 1, (microseconds.bit_length() - 1) // 2)] += items

    def flush(self) -> None:
        """Commit all that has gathered, waiting for the server if need be. Raises `ServerLost`."""
        with self._lock:
            self._commit_all()
            if self._committed == len(self.results):
                self.base += self._committed
                self.results, self._failures, self._committed = [], {}, 0

    def close(self) -> None:
        """End the committing thread, after the last flush."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def uncommitted(self) -> int:
        """Number of outcomes that the ledger has not got yet."""
        return len(self.results) - self._committed

    @property
    def complete(self) -> bool:
        """Whether the ledger has every item of the chunk."""
        return self.base + self._committed >= self.stop_index and not self._abandoned

    def _tick(self) -> None:
        while not self._closing.wait(COMMIT_SECONDS):
            if not self._alive():
                self.stop("the worker has died")
                return
            try:
                with self._lock:
                    self._commit_all()
            except Exception as error:
                self.error = error
                self.stop(str(error))
                return

    def _commit_all(self) -> None:
        most = _MOST_ITEMS
        while not self._abandoned:
            upto = min(len(self.results), self.stop_index - self.base)
            if self._committed >= upto:
                return
            try:
                self._commit(self._committed, min(upto - self._committed, most))
            except codec.TooLarge:
                most = max(1, min(upto - self._committed, most) // 2)

    def _commit(self, first: int, count: int) -> None:
        start = self.base + first
        failures = {i: self._failures[i] for i in range(first, first + count) if i in self._failures} if (
            self._failures
        ) else {}
        packed = self._pack(self.results[first : first + count], failures, first)
        spans = without(start, count, [self.base + i for i in failures])
        recorded: tuple[list[Span], bytes] = ([], b"")
        retries: dict[int, float] = {}
        if failures and self._retries_left:
            retries = {self.base + i: retry_delay(self._attempt) for i in failures}
        elif failures:
            recorded = (spans_of(self.base + i for i in failures), pack_failures(list(failures.values())))
        now = time.monotonic()
        seconds = now - self._since
        careful = 2 * count if self._careful and (seconds < COMMIT_SECONDS or count == 1) else 0
        meta = {"worker": self._worker, "seconds": round(seconds, 6), "times": self._histogram}
        self._since, self._histogram = now, [0] * _BUCKETS
        reply = self.patience(
            lambda: self._ledger.commit(
                self._claim.chunk,
                start,
                count,
                careful=careful,
                results=(spans, packed),
                failures=recorded,
                retries=retries,
                meta=msgspec.msgpack.encode(meta),
            )
        )
        self._careful = careful
        self._take(reply, start, count)

    def _take(self, reply: Committed, start: int, count: int) -> None:
        """Go on from where the ledger is: recorded, recorded before (by us or by others), or cut short."""
        if reply.status == "over":
            self._abandon(f"the run is {reply.state or 'gone'}")
            return
        if reply.stop < self.stop_index:
            self.stop_index = reply.stop
            self._truncate()
        if start < reply.next <= start + count:
            first, settled = self._committed, reply.next - start
            self._committed += settled
            self.results[first : first + settled] = [None] * settled
        elif reply.next != start or reply.stop >= start + count:
            self._abandon("the rest of the chunk is somebody else's")
        if reply.paused:
            self.stop("paused")

    def _pack(self, outcomes: list[object], failures: dict[int, Failure], first: int) -> bytes:
        """Pack the results; an outcome that cannot be stored becomes a failure of its item."""
        values = [value for i, value in enumerate(outcomes, first) if i not in failures] if failures else outcomes
        try:
            return codec.pack(values) if values else b""
        except codec.Unstorable as error:
            if isinstance(error, codec.TooLarge) and len(values) > 1:
                raise
            for i, value in enumerate(outcomes, first):
                try:
                    codec.check(value)
                except codec.Unstorable as unstorable:
                    failures[i] = self._failures[i] = failure_of(unstorable, self._attempt)
            in_order = dict(sorted(failures.items()))
            failures.clear()
            failures.update(in_order)
            return self._pack(outcomes, failures, first)

    def _abandon(self, reason: str) -> None:
        self._abandoned = True
        self.stop(reason)

    def _truncate(self) -> None:
        excess = self._batch_end - self.stop_index
        if excess > 0 and self._batch:
            del self._batch[max(0, len(self._batch) - excess) :]
            self._batch_end = self.stop_index
