"""Renews the lease of a chunk that the worker's own process works on (`--isolation none`), in a thread."""

import os
import time
from threading import Event, Thread
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from piecework.records import Claim
from piecework.states import State, WorkerExit
from piecework_worker.ending import Ending, last_words

if TYPE_CHECKING:
    from piecework_worker.worker import DrainWorker

_TICK_SECONDS = 0.25


class OwnWatch:
    """The watching thread; an item cannot be ended but with the whole process."""

    def __init__(self, worker: "DrainWorker", claim: Claim) -> None:
        self._worker, self._claim = worker, claim
        self._closing = Event()
        self._thread = Thread(target=self._watch, name="piecework-lease", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """The chunk is done with."""
        self._closing.set()
        self._thread.join()

    def _watch(self) -> None:
        worker = self._worker
        renew_seconds = worker.settings.lease / 3
        renew_due = time.monotonic() + renew_seconds
        stop_due: float | None = None
        grace = 0.0 if self._claim.copy else worker.settings.grace  # its owner goes on
        while not self._closing.wait(min(_TICK_SECONDS, renew_seconds)):
            now = time.monotonic()
            if worker.stopping:
                worker.stop_item("told to stop")
                stop_due = stop_due or now + grace
                if now >= stop_due or worker.stop_signals > 1:
                    self._leave_in_mid_item()
            if now < renew_due:
                continue
            try:
                renewed, state, paused = worker.ledger.renew(self._claim.chunk, worker.name, worker.settings.lease)
            except RedisError:  # the recorder's patience decides
                continue
            renew_due = now + renew_seconds
            if not renewed or state is not State.RUNNING or paused:
                worker.stop_item("paused" if paused else "the lease was lost")

    def _leave_in_mid_item(self) -> None:
        """What was recorded stays, the rest goes back."""
        worker = self._worker
        try:
            worker.leave()
        finally:
            reason = f"{worker.stopping}, and the grace for the item in hand is over; the run is not over"
            last_words(Ending(WorkerExit.HANDED_BACK, reason))
            os._exit(WorkerExit.HANDED_BACK)
