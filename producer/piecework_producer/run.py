"""A submitted run, as a program sees it: wait for it, read its results, steer it."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Self

from redis.exceptions import RedisError

from piecework.errors import UnknownRun
from piecework.ledger import Ledger
from piecework.patience import is_away
from piecework.records import Spec, Status
from piecework.results import Outcome, ResultReader
from piecework.states import State
from piecework_producer.session import Session

_LOOK_SECONDS = 0.2
_MOST_LEASES_PER_SECOND = 10_000
"""What `status` may look through; it takes the server 2 or 3 µs for each, and all workers wait meanwhile."""


class RunVanished(UnknownRun):
    """The run was there, and is no more."""


class Run:
    """One run on an open server. Close it (or use a with-block) to let the embedded server go.

    Every call raises `UnknownRun` when the run is deleted, `ServerLost` when the server is away for too long.
    """

    def __init__(self, session: Session, run: str) -> None:
        """Raises `UnknownRun`, `ContractMismatch`."""
        self.session = session
        self.ledger = Ledger(session.client, run)
        self.spec: Spec = self.ledger.spec()

    @property
    def id(self) -> str:
        """The run's id."""
        return self.ledger.run

    def status(self) -> Status:
        """One consistent picture of the run now."""
        try:
            return self.ledger.status()
        except UnknownRun:
            raise RunVanished(
                f"run {self.id} is gone: somebody has deleted it, or its time to be kept is over"
            ) from None

    def wait(
        self, timeout_seconds: float | None = None, on_status: Callable[[Status], None] = lambda status: None
    ) -> Status:
        """Wait until the run is over; raises `TimeoutError` when it is not by then. Starts no workers."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            status = self.session.lasting(self.status)
            on_status(status)
            if status.state.over:
                return status
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"run {self.id} is still {status.state}: {status.done} of {status.total} done")
            time.sleep(max(_LOOK_SECONDS, status.leased / _MOST_LEASES_PER_SECOND))

    def results(self, *, ordered: bool = True, follow: bool = False) -> Iterator[Outcome]:
        """The outcomes: what is there now, or with `follow` all until the run is over.

        `ordered`: in index order; without `follow` items that have no outcome yet are left out. Else as they came.
        """
        reader = ResultReader(self.ledger, self.spec)
        while True:
            over = not follow or self.session.lasting(self.status).state.over
            read = reader.in_order if ordered else reader.as_they_come
            yield from self._told(partial(read, 0.0 if over else _LOOK_SECONDS))
            if over:
                break
        if ordered:
            yield from self._told(reader.rest)

    def failures(self) -> Iterator[Outcome]:
        """The items that failed, in index order."""
        reader = ResultReader(self.ledger, self.spec, failures_only=True)
        yield from self._told(reader.in_order)
        yield from self._told(reader.rest)

    def _told(self, read: Callable[[], Iterator[Outcome]]) -> Iterator[Outcome]:
        """What a reader tells, which keeps its place while the server is away."""
        while True:
            try:
                yield from read()
            except RedisError as error:
                if not is_away(error):
                    raise
                self.session.revive()
            else:
                return

    def pause(self) -> State:
        """Have workers finish the items in hand, hand back, and wait."""
        return self.ledger.pause(True)

    def resume(self) -> State:
        """Let workers go on."""
        return self.ledger.pause(False)

    def retry(self) -> int:
        """Open the failed items again; returns how many. Raises `RunIsOver` for a cancelled run."""
        return self.ledger.retry()

    def cancel(self, reason: str = "cancelled") -> State:
        """End the run; what is recorded stays. A run that is over already stays as it is."""
        return self.ledger.abort(State.CANCELLED, reason)

    def delete(self) -> None:
        """Remove the run and all its results."""
        self.ledger.delete()

    def close(self) -> None:
        """Let go of the server."""
        self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
