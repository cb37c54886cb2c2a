"""RQ's registries, kept for `rq info` and dashboards: workers, their states, the chunk that each works on.

The ledger needs none of it, so nothing here may stop a worker: a server that is away, or that refuses one of
RQ's commands, is passed over. What a killed worker leaves behind expires, or goes with `reap` and `delete`: each write
is in one transaction with a lifetime, and the job's hash, which has none, is written by the ledger's `claim` alone.
"""

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from redis.client import Pipeline
from redis.exceptions import RedisError
from rq import worker_registration
from rq.executions import Execution
from rq.job import Job
from rq.utils import now
from rq.worker import WorkerStatus

from piecework.patience import is_away

if TYPE_CHECKING:
    from piecework_worker.worker import DrainWorker

log = logging.getLogger("piecework.worker")

BEAT_SECONDS = 20
_STAYS_SECONDS = BEAT_SECONDS + 60
_SHARED_SECONDS = 86_400
"""For what all workers of a run write; at its end the ledger gives it the run's own lifetime."""
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
        worker.birth_date = now()
        with worker.connection.pipeline() as pipe:
            pipe.delete(worker.key)
            worker.set_state(WorkerStatus.STARTED, pipeline=pipe)
            self._register(pipe)
        best_effort(self._forget_the_dead)

    def _register(self, pipe: Pipeline) -> None:
        worker = self._worker
        self._due = time.monotonic() + BEAT_SECONDS
        worker.heartbeat(_STAYS_SECONDS, pipeline=pipe)
        pipe.hset(worker.key, mapping=worker.serialize())
        worker_registration.register(worker, pipe)
        pipe.expire(worker.ledger.keys.rq_workers, _SHARED_SECONDS)
        pipe.execute()

    def _forget_the_dead(self) -> None:
        """RQ asks after each worker by itself. Of many that start, few do it: the sum stays in proportion to them."""
        worker = self._worker
        known = worker.connection.scard(worker.ledger.keys.rq_workers)
        if random.random() * known < _ASKED_AFTER:
            worker_registration.clean_worker_registry(worker.queues[0])

    @contextmanager
    def _lasting(self) -> Iterator[Pipeline]:
        """A transaction that writes to the worker's hash: it would be made anew if it has expired."""
        with self._worker.connection.pipeline() as pipe:
            yield pipe
            pipe.expire(self._worker.key, _STAYS_SECONDS)
            pipe.execute()

    def state(self, state: WorkerStatus) -> None:
        """Show what the worker is at."""
        worker = self._worker

        def show() -> None:
            with self._lasting() as pipe:
                worker.set_state(state, pipeline=pipe)

        if worker.get_state() != state:
            best_effort(show)

    def stay(self) -> None:
        """Between chunks: stay registered, also with a server that has lost what it had."""

        def register() -> None:
            with self._worker.connection.pipeline() as pipe:
                self._register(pipe)

        if time.monotonic() >= self._due:
            best_effort(register)

    def started(self, job: Job | None) -> None:
        """A chunk is begun; a copy of one has no job."""
        worker = self._worker
        if job is None:
            self.state(WorkerStatus.BUSY)
            return

        def start() -> None:
            with self._lasting() as pipe:
                execution = Execution.create(job, _STAYS_SECONDS, pipeline=pipe, worker_name=worker.name)
                worker.set_state(WorkerStatus.BUSY, pipeline=pipe)
                pipe.expire(job.started_job_registry.key, _SHARED_SECONDS)
                worker.executions[execution.id] = self._execution = execution

        best_effort(start)

    def beat(self, job: Job | None) -> None:
        """While a chunk is worked on."""
        worker, execution = self._worker, self._execution
        if job is None or execution is None:
            self.stay()
            return

        def live() -> None:
            self._due = time.monotonic() + BEAT_SECONDS
            with worker.connection.pipeline() as pipe:
                worker.heartbeat(_STAYS_SECONDS, pipeline=pipe)
                execution.heartbeat(job.started_job_registry, _STAYS_SECONDS, pipeline=pipe)
                pipe.execute()

        if time.monotonic() >= self._due:
            best_effort(live)

    def ended(self, job: Job | None) -> None:
        """A chunk is done with, for this worker."""
        worker, execution = self._worker, self._execution
        if job is None:
            return

        def end() -> None:
            with self._lasting() as pipe:
                worker.cleanup_execution(job, pipe, execution)
                worker.increment_successful_job_count(pipe)

        self._execution = None
        worker.executions.clear()
        if execution is not None:
            best_effort(end)
