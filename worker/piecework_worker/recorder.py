"""Collects the outcomes of a chunk's items and commits them, in index order, at latest every half second.

The handler's loop appends to `results`; a thread of the horse commits what has gathered there, so that a
long item does not hold back the ones before it. A horse that dies loses what was not committed; it is
computed once more, by whoever gets the chunk. A commit whose reply was lost is sent again and refused: the
ledger's answer says where it is, and the recorder goes on from there.
"""

import os
import time
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Any

import msgspec

from piecework.ledger import COMMIT_SECONDS, Ledger
from piecework.patience import Patience
from piecework.records import Claim, Committed, Failure, pack_failures
from piecework.spans import Span, spans_of, without
from piecework_worker.nudge import Nudge
from piecework_worker.outcomes import Outcomes, failure_of, retry_delay

_MOST_ITEMS = 200_000
_MOST_FAILURES = 2_000
"""Each has up to 20 KB of text, or makes a chunk for its next attempt."""
_COMMIT_BYTES = 16 << 20
_MOST_UNCOMMITTED = 200_000
_UNCOMMITTED_BYTES = 64 << 20
_COMPACT = 50_000
_WORTH_FREEING_BYTES = 100
_BUCKETS = 24


class Recorder:
    """The outcomes of one claimed chunk, from `claim.next` on."""

    def __init__(
        self,
        ledger: Ledger,
        claim: Claim,
        worker: str,
        retries: int,
        patience: Patience,
        nudge: Nudge,
        alive: Callable[[], bool] = lambda: True,
        replicated: Callable[[], None] = lambda: None,
    ) -> None:
        self.results: list[object] = []
        """Outcomes of items base, base+1, …: the handler's loop appends. A failed item has None here."""
        self.base = claim.next
        self.stop_index = claim.stop
        """End of the chunk as last heard of."""
        self.begun = claim.next
        """Index of the first item that is not begun, as far as the runner says: it may have several in hand."""
        self.stopped: str | None = None
        """Why no further item is to be begun."""
        self.error: Exception | None = None
        """What went wrong in the committing thread."""
        self.patience, self._nudge, self._alive, self._replicated = patience, nudge, alive, replicated
        self._ledger, self._claim, self._worker = ledger, claim, worker
        self._retries_left = claim.attempt < retries
        self._attempt = claim.attempt + 1
        self._failures: dict[int, Failure] = {}
        self._committed = 0
        self._careful = 1 if claim.careful else 0
        self._item_bytes = 0
        self._batch: list[Any] = []
        self._batch_end = claim.next
        self._abandoned = False
        self._lock = Lock()
        self._closing = Event()
        self._histogram = [0] * _BUCKETS
        self._since = time.monotonic()
        self._pace = _Pace(claim.next)
        self._pid = os.getpid()
        self._thread = Thread(target=self._tick, name="piecework-commit", daemon=True)

    # --- for the handler's loop

    @property
    def position(self) -> int:
        """Index of the next item to work on."""
        return self.base + len(self.results)

    @property
    def careful(self) -> int:
        """How many items may be begun before the next commit; 0: no limit."""
        return self._careful

    @property
    def uncommitted(self) -> int:
        """Number of outcomes that the ledger has not got yet."""
        return len(self.results) - self._committed

    @property
    def full(self) -> bool:
        """Whether the loop has to wait: too much is uncommitted (the server is away, or too slow)."""
        most = min(_MOST_UNCOMMITTED, _UNCOMMITTED_BYTES // max(1, self._item_bytes))
        return self.uncommitted > most or len(self._failures) > _MOST_FAILURES

    @property
    def complete(self) -> bool:
        """Whether the ledger has every item of the chunk."""
        return self.base + self._committed >= self.stop_index and not self._abandoned

    def start(self) -> None:
        """Commit from now on, every half second."""
        self._thread.start()

    def begin(self, batch: list[Any]) -> None:
        """The loop is about to iterate over `batch`, the items from `position` on.

        The list is emptied to stop the loop at the next item boundary: a list iterator sees that, at no cost
        per item.
        """
        self.end_stray_fork()
        if self._committed >= _COMPACT and self._lock.acquire(blocking=False):
            self._compact()
            self._lock.release()
        self._batch, self._batch_end = batch, self.position + len(batch)
        if self.stopped:
            batch.clear()
        self._truncate()

    def stop(self, reason: str) -> None:
        """Begin no further item. Safe in a signal handler and in any thread."""
        if self.stopped is None:
            self.stopped = reason
        self._batch.clear()

    def fail_with(self, error: BaseException) -> None:
        """Record the exception that the item at `position` raised."""
        self.end_stray_fork(error)
        self._failures[self.position] = failure_of(error, self._attempt)
        self.results.append(None)

    def timed(self, seconds: float, items: int = 1) -> None:
        """Count `items` items of `seconds` each in the histogram of item times (powers of four from 1 µs)."""
        microseconds = max(1, int(seconds * 1e6))
        self._histogram[min(_BUCKETS - 1, (microseconds.bit_length() - 1) // 2)] += items

    def end_stray_fork(self, error: BaseException | None = None) -> None:
        """A handler's own fork must not go on as a second horse when it returns or leaves: it ends here."""
        if os.getpid() == self._pid:
            return
        code = error.code if isinstance(error, SystemExit) else 1
        os._exit(code if isinstance(code, int) else int(code is not None))

    def flush(self) -> None:
        """Commit all that has gathered, waiting for the server if need be. Raises `ServerLost`."""
        self.end_stray_fork()
        with self._lock:
            if self.error:  # the committing thread has had its patience already
                raise self.error
            self._commit_all()
            self._compact()

    def close(self) -> None:
        """End the committing thread, after the last flush."""
        self._closing.set()
        self._nudge.give()
        if self._thread.is_alive():
            self._thread.join()

    # --- committing, under the lock

    def _tick(self) -> None:
        while True:
            nudged = self._nudge.wait(COMMIT_SECONDS)
            if self._closing.is_set():
                return
            if not self._alive():
                self.stop("the worker has died")
                return
            try:
                with self._lock:
                    self._commit_all()
                    if nudged and not self._abandoned:
                        self._ask_for_the_end()
            except MemoryError:  # an item may have all that --item-memory allows: the next commit, or `flush`, has more
                continue
            except Exception as error:
                self.error = error
                self.stop(str(error))
                return

    def _compact(self) -> None:
        """Forget what is committed. Only between batches, in the loop's thread."""
        del self.results[: self._committed]
        self.base, self._committed = self.base + self._committed, 0

    def _ask_for_the_end(self) -> None:
        """A chunk that was cut short is known to be before the item in hand has ended."""
        start = self.base + self._committed
        reply = self.patience(lambda: self._ledger.commit(self._claim.chunk, start, 0))
        if reply.status == "over" or reply.next != start:
            self._abandon("the chunk is somebody else's, or over")
        else:
            self._end_at(reply.stop)

    def _commit_all(self) -> None:
        self._pace.at(self.position)
        while not self._abandoned:
            waiting = min(len(self.results), self.stop_index - self.base) - self._committed
            if waiting <= 0:
                return
            self._commit(min(waiting, _MOST_ITEMS, max(1, _COMMIT_BYTES // max(1, self._item_bytes))))

    def _commit(self, count: int) -> None:
        start = self.base + self._committed
        gathered = self.results[self._committed : self._committed + count]
        outcomes = Outcomes(start, gathered, self._failures, self._attempt)
        packed = outcomes.pack(_MOST_FAILURES)
        self._item_bytes, count = outcomes.item_bytes, len(outcomes.values)
        spans = without(start, count, outcomes.failures)
        recorded: tuple[list[Span], bytes] = ([], b"")
        retries: dict[int, float] = {}
        if outcomes.failures and self._retries_left:
            retries = dict.fromkeys(outcomes.failures, retry_delay(self._attempt))
        elif outcomes.failures:
            recorded = (spans_of(outcomes.failures), pack_failures(list(outcomes.failures.values())))
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
                worker=self._worker,
                careful=careful,
                results=(spans, packed),
                failures=recorded,
                retries=retries,
                meta=msgspec.msgpack.encode(meta),
                begun=max(self.begun, self.position + 1),
                item_seconds=self._pace.item_seconds,
            )
        )
        self.patience(self._replicated)  # also if it is refused: a lost reply may have been the one that recorded it
        self._careful = careful
        self._take(reply, start, count, list(outcomes.failures))

    def _take(self, reply: Committed, start: int, count: int, failed: list[int]) -> None:
        """Go on from where the ledger is: recorded, recorded before (by us or by others), or cut short."""
        if reply.status == "over":
            gone = "the chunk is gone" if reply.state == "running" else f"the run is {reply.state or 'gone'}"
            self._abandon(gone)
            return
        self._end_at(reply.stop)
        if start < reply.next <= start + count:
            first, settled = self._committed, reply.next - start
            self._committed += settled
            if self._item_bytes > _WORTH_FREEING_BYTES:  # small ones can wait for `_compact`
                self.results[first : first + settled] = [None] * settled
            for index in failed:
                if index < reply.next:
                    self._failures.pop(index, None)
        elif reply.next != start or reply.stop >= start + count:
            self._abandon("the rest of the chunk is somebody else's")
        if reply.paused:
            self.stop("paused")

    def _end_at(self, stop: int) -> None:
        if stop < self.stop_index:
            self.stop_index = stop
            self._truncate()

    def _abandon(self, reason: str) -> None:
        self._abandoned = True
        self.stop(reason)

    def _truncate(self) -> None:
        excess = self._batch_end - self.stop_index
        if excess > 0 and self._batch:
            del self._batch[max(0, len(self._batch) - excess) :]
            self._batch_end = self.stop_index


class _Pace:
    """How long an item takes, as of the last look."""

    def __init__(self, position: int) -> None:
        self._position, self._since = position, time.monotonic()
        self.item_seconds = 0.0
        """0: not known yet."""

    def at(self, position: int) -> None:
        now = time.monotonic()
        if position > self._position:
            self.item_seconds = (now - self._since) / (position - self._position)
            self._position, self._since = position, now
