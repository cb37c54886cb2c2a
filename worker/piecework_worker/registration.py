"""RQ's registries, kept for `rq info` and dashboards: workers, their states, the chunk that each works on.

The ledger needs none of it, so nothing here may stop a worker: a server that is away, or that refuses one of
RQ's commands, is passed over. What a killed worker leaves behind expires, or goes with `reap` and `delete`.
"""

import logging
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from redis.exceptions import RedisError
from rq import worker_registration
from rq.executions import Execution
from rq.job import Job
from rq.worker import WorkerStatus

from piecework.patience import is_away

if TYPE_CHECKING:
    from piecework_worker.worker import DrainWorker

log = logging.getLogger("piecework.worker")

BEAT_SECONDS = 20
_ASKED_AFTER = 100
"""Registered workers that a worker asks after when it begins, on the average of many."""


def best_effort(*calls: Callable[[], object]) -> None:
    """Make the calls; the first that finds the server away is the last."""
    for call in calls:
        try:
            call()
        except RedisError as error:
            if is_away(error):
                return
            log.warning("RQ's registry: %s", error)


class Registration:
    """One worker's entries in RQ's registries."""

    def __init__(self, worker: "DrainWorker") -> None:
        self._worker = worker
        self._due = 0.0
        self._execution: Execution | None = None

    def begin(self) -> None:
        """Register; raises `RedisError`. Forgets workers that died, if their keys have expired."""
        worker = self._worker
        worker.connection.delete(worker.key)
        worker.register_birth()  # type: ignore[no-untyped-call]
        worker.set_state(WorkerStatus.STARTED)
        self._due = time.monotonic() + BEAT_SECONDS
        best_effort(self._forget_the_dead)

    def _forget_the_dead(self) -> None:
        """RQ asks after each worker by itself. Of many that start, few do it: the sum stays in proportion to them."""
        worker = self._worker
        known = worker.connection.scard(worker.ledger.keys.rq_workers)
        if random.random() * known < _ASKED_AFTER:
            worker_registration.clean_worker_registry(worker.queues[0])

    def state(self, state: WorkerStatus) -> None:
        """Show what the worker is at."""
        worker = self._worker
        if worker.get_state() != state:
            best_effort(lambda: worker.set_state(state))

    def stay(self) -> None:
        """Between chunks: stay registered, also with a server that has lost what it had."""
        now, worker = time.monotonic(), self._worker
        if now >= self._due:
            self._due = now + BEAT_SECONDS
            best_effort(
                lambda: worker.connection.hset(worker.key, mapping=worker.serialize()),
                lambda: worker_registration.register(worker),
                worker.heartbeat,
            )

    def started(self, job: Job | None) -> None:
        """A chunk is begun; a copy of one has no job."""
        worker = self._worker
        if job is None:
            self.state(WorkerStatus.BUSY)
            return

        def start() -> None:
            self._execution = worker.prepare_execution(job)
            with worker.connection.pipeline() as pipe:
                job.prepare_for_execution(worker.name, pipeline=pipe)
                if pipe.execute()[0] > 1:  # new fields: the run was deleted since the claim, and the job with it
                    worker.connection.delete(job.key)

        best_effort(start)

    def beat(self, job: Job | None) -> None:
        """While a chunk is worked on."""
        if job is None:
            self.stay()
            return
        now, execution = time.monotonic(), self._execution
        if now >= self._due and execution is not None:
            self._due = now + BEAT_SECONDS
            best_effort(lambda: self._worker.maintain_heartbeats(job, execution))

    def ended(self, job: Job | None) -> None:
        """A chunk is done with, for this worker."""
        worker, execution = self._worker, self._execution
        if job is None:
            return

        def end() -> None:
            with worker.connection.pipeline() as pipe:
                worker.cleanup_execution(job, pipe, execution)
                worker.increment_successful_job_count(pipe)
                pipe.execute()

        self._execution = None
        worker.executions.clear()
        if execution is not None:
            best_effort(end)
