"""Takes the next chunk from the run's RQ queue, and refuses whatever else lies on it.

Anybody who may write to the server can put a job there; none is executed, and none can stop a worker. What
is popped and then lost (the worker dies) is put back by the ledger's `tend`.
"""

import logging
from typing import TYPE_CHECKING, cast

from redis.exceptions import RedisError
from rq import Queue
from rq.exceptions import DequeueTimeout
from rq.job import Job, JobStatus
from rq.worker import WorkerStatus

from piecework.keys import chunk_of_job
from piecework.patience import is_away, is_refusal
from piecework_worker import chunk as chunk_function

if TYPE_CHECKING:
    from piecework_worker.worker import DrainWorker

log = logging.getLogger("piecework.worker")

POP_SECONDS = 0.8


class Deliveries:
    """The queue of one run, as one worker sees it."""

    def __init__(self, worker: "DrainWorker") -> None:
        self._worker = worker

    def next(self, seconds: float = POP_SECONDS) -> tuple[Job, int] | None:
        """A job and the chunk that it delivers; None: none came within `seconds`. Raises `RedisError`."""
        worker = self._worker
        worker.registration.state(WorkerStatus.IDLE)
        try:
            popped = worker.queue_class.dequeue_any(
                worker.queues,
                cast(int, seconds),
                connection=worker.connection,
                job_class=worker.job_class,
                serializer=worker.serializer,
                death_penalty_class=worker.death_penalty_class,
            )
        except DequeueTimeout:
            return None
        except RedisError as error:
            if is_away(error) or is_refusal(error):
                raise
            log.error("ignored what is on queue %s: %s", worker.queues[0].name, error)
            return None
        except Exception as error:  # a job hash that RQ cannot read: not ours; the ledger finds a lost chunk
            log.error("ignored an unreadable job on queue %s: %r", worker.queues[0].name, error)
            return None
        if popped is None:
            return None
        job, queue = popped
        chunk = chunk_of_job(worker.ledger.run, job.id)
        if chunk is not None and _names_our_function(job):
            return job, chunk
        self._refuse(job, queue)
        return None

    def _refuse(self, job: Job, queue: Queue) -> None:
        worker = self._worker
        log.error("refused job %r: it is not a chunk of run %s", job.id, worker.ledger.run)
        reason = f"refused by {worker.name}: this queue takes only chunks of piecework run {worker.ledger.run}"
        try:
            with worker.connection.pipeline() as pipe:
                pipe.lrem(queue.intermediate_queue_key, 0, job.id)
                job.set_status(JobStatus.FAILED, pipeline=pipe)
                queue.failed_job_registry.add(job, exc_string=reason, pipeline=pipe)
                pipe.execute()
        except RedisError:
            raise
        except Exception as error:  # RQ cannot write it as failed: then it is only dropped
            log.error("job %r cannot be marked as failed: %s", job.id, error)


def _names_our_function(job: Job) -> bool:
    try:
        return bool(job.func_name == chunk_function.NAME)
    except Exception:  # a foreign job with data that is not JSON: refused, never unpickled
        return False
