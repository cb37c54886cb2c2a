"""One worker: an RQ worker that drains one run. RQ delivers chunks and forks; the ledger decides.

The main process claims a chunk, forks a horse for it, renews the lease, and outlives horses, reconnects and idle
spells. What a death leaves behind:

- the horse dies: the main process sees it and charges the item if it knows it, else has the chunk redone carefully;
- the main process dies: its horse dies with it, the lease runs out (or the launcher reaps it), the chunk is redone;
- Redis is away: the horse goes on computing; both give up after the patience, and the lease runs out.
"""

import gc
import logging
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, Worker
from rq.exceptions import DequeueTimeout
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.worker import WorkerStatus

from piecework.errors import PieceworkError, ServerLost, UnknownRun
from piecework.keys import chunk_of_job, queue_name
from piecework.ledger import Ledger
from piecework.patience import Patience, is_away
from piecework.records import Claim, Spec
from piecework.server import connect
from piecework.states import State, WorkerExit
from piecework_worker import chunk as chunk_function
from piecework_worker import horse
from piecework_worker.handlers import Runner
from piecework_worker.horse_watch import HorseEnd, HorseWatch
from piecework_worker.orphans import end_with_parent, kill_group_without, parent_is
from piecework_worker.progress import Progress
from piecework_worker.recorder import Recorder
from piecework_worker.settings import WorkerSettings
from piecework_worker.wakeup import Wakeup

log = logging.getLogger("piecework.worker")

_POP_SECONDS = 0.8
_RQ_HEARTBEAT_SECONDS = 20
_MOST_CRASHES_IN_A_ROW = 20


class Ending(NamedTuple):
    """Why a worker leaves."""

    code: WorkerExit
    reason: str


class DrainWorker(Worker):
    """An RQ worker for one run. `drain` takes the place of RQ's `work`, which exits 0 whatever happened."""

    def __init__(
        self, client: Redis, ledger: Ledger, spec: Spec, settings: WorkerSettings, name: str, runner: Callable[[], Runner]
    ) -> None:
        queue = Queue(queue_name(ledger.run), connection=client, serializer=JSONSerializer)
        super().__init__(
            [queue],
            name=name,
            connection=client,
            serializer=JSONSerializer,
            worker_ttl=60,
            job_monitoring_interval=_RQ_HEARTBEAT_SECONDS,
        )
        self.log_job_description = False
        self.ledger, self.spec, self.settings = ledger, spec, settings
        self.wakeup = Wakeup(self._on_stop)
        self.patience = Patience(settings.patience, client, log.warning, wait=self.wakeup.wait)
        self.progress = Progress()
        self._runner = runner
        self._claim: Claim | None = None
        self._recorder: Recorder | None = None
        self._stop_signals = 0
        self._crashes_in_a_row = 0
        self._heartbeat_due = 0.0
        self.horse_killed_for: str | None = None
        self.chunks_done = 0

    @property
    def connection_timeout(self) -> int:
        """RQ lengthens the client's time-out to its long blocking pop; ours is short."""
        return 1

    @property
    def stopping(self) -> str | None:
        """Why the worker is to hand back, or None."""
        if self._stop_signals:
            return "told to stop (SIGTERM)"
        if self.settings.parent is not None and not parent_is(self.settings.parent):
            return "the launcher is gone"
        return None

    @property
    def stop_signals(self) -> int:
        """How often the worker has been told to stop; a second Ctrl-C takes the grace away."""
        return self._stop_signals

    def _on_stop(self, number: int) -> None:
        self._stop_signals += 1 if number == signal.SIGTERM and self._stop_signals else 1
        self.patience.seconds = min(self.patience.seconds, self.settings.grace)
        self.stop_item("told to stop")

    def stop_item(self, reason: str) -> None:
        """Without isolation: begin no further item."""
        if self._recorder is not None:
            self._recorder.stop(reason)

    def drain(self) -> Ending:
        """Work until the run is over, or until this worker has to leave; hand back what is held then."""
        self.wakeup.install()
        gc.freeze()
        try:
            self.patience(self._begin)
            ending = self._loop()
        except ServerLost as error:
            ending = Ending(WorkerExit.HANDED_BACK, str(error))
        finally:
            self._leave()
        return ending

    def _begin(self) -> None:
        if self.ledger.join(self.name) is None:
            raise UnknownRun(f"run {self.ledger.run} is gone")
        self.connection.delete(self.key)
        self.register_birth()
        self.set_state(WorkerStatus.STARTED)
        self.subscribe()

    def _loop(self) -> Ending:
        while True:
            if stopping := self.stopping:
                return self._verdict_or(Ending(WorkerExit.HANDED_BACK, f"{stopping}; the run is not over"))
            tended = self.patience(lambda: self.ledger.tend(self.name))
            if tended.state is None:
                raise UnknownRun(f"run {self.ledger.run} is gone: deleted, or the server has lost its data")
            if tended.state.over:
                return self._verdict()
            self._stay_registered()
            if tended.state is State.FILLING or tended.paused:
                self._rq_state(WorkerStatus.SUSPENDED if tended.paused else WorkerStatus.IDLE)
                self.wakeup.wait(_POP_SECONDS)
            elif popped := self.patience(self._pop):
                self._deliver(*popped)

    def _verdict(self) -> Ending:
        """What the ledger says at the end; where the server can tell, only after it is on its disk."""
        if self.settings.parent is None:
            try:
                self.ledger.leave(self.name, "over")
                self.connection.execute_command("WAITAOF", 1, 0, 2000)
            except RedisError:  # Redis before 7.2, no append-only file, or away: the answer below tells
                pass
        status = self.patience(self.ledger.status)
        if not status.state.over:
            return self._loop()
        counts = f"{status.done} done, {status.failed} failed of {status.total}"
        reason = f"run {status.run} {status.state}: {status.reason or counts}"
        return Ending(WorkerExit.of(status.state), reason)

    def _verdict_or(self, ending: Ending) -> Ending:
        try:
            over = self.ledger.status().state.over
        except (RedisError, PieceworkError):
            return ending
        return self._verdict() if over else ending

    # --- delivery

    def _pop(self) -> tuple[Job, Queue] | None:
        self._rq_state(WorkerStatus.IDLE)
        try:
            return self.queue_class.dequeue_any(
                self.queues,
                cast(int, _POP_SECONDS),
                connection=self.connection,
                job_class=self.job_class,
                serializer=self.serializer,
                death_penalty_class=self.death_penalty_class,
            )
        except DequeueTimeout:
            return None
        except RedisError:
            raise
        except Exception as error:  # a job hash that RQ cannot read: not ours; the ledger finds a lost chunk
            log.error("ignored an unreadable job on queue %s: %s", self.queues[0].name, error)
            return None

    def _deliver(self, job: Job, queue: Queue) -> None:
        number = chunk_of_job(self.ledger.run, job.id)
        if number is None or not _names_our_function(job):
            self.patience(lambda: self._refuse(job, queue))
            return
        claim = self.patience(lambda: self.ledger.claim(number, self.name, self.settings.lease))
        if claim is not None:
            self._claim = claim
            self._work_on(job, queue, claim)
            self._claim = None

    def _refuse(self, job: Job, queue: Queue) -> None:
        log.error("refused job %s: it is not a chunk of run %s", job.id, self.ledger.run)
        reason = f"refused by {self.name}: this queue takes only chunks of piecework run {self.ledger.run}"
        with self.connection.pipeline() as pipe:
            job.set_status(JobStatus.FAILED, pipeline=pipe)
            queue.failed_job_registry.add(job, exc_string=reason, pipeline=pipe)
            pipe.lrem(queue.intermediate_queue_key, 0, job.id)
            pipe.execute()

    # --- one chunk

    def _work_on(self, job: Job, queue: Queue, claim: Claim) -> None:
        execution = self._rq_started(job)
        self.horse_killed_for = None
        self.progress.reset()
        try:
            if self.settings.isolation == "none":
                self._work_here(claim)
            else:
                self.fork_work_horse(job, queue)
                end = HorseWatch(self, claim, job, execution).until_end()
                self._horse_pid = 0
                self._conclude(claim, end)
        finally:
            self._rq_ended(job, execution)

    def _conclude(self, claim: Claim, end: HorseEnd) -> None:
        settled = self.patience(lambda: end.settle(self.ledger, self.spec, self.settings, claim, self.name))
        if settled == "crash":
            self._crashes_in_a_row += 1
            if self._crashes_in_a_row > _MOST_CRASHES_IN_A_ROW:
                raise RuntimeError(f"{self._crashes_in_a_row} horses in a row crashed; the last: {end.text}")
        else:
            self._crashes_in_a_row = 0
        if settled == "server lost":
            raise ServerLost(f"the horse lost Redis for longer than the patience ({self.settings.patience:g} s)")
        if settled == "error":
            raise PieceworkError(f"chunk {claim.chunk} cannot be worked on; see the error above")
        self.chunks_done += 1

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """In the fork: work through the claimed chunk; RQ's bookkeeping is left to the main process."""
        parent, code = os.getppid(), horse.CRASHED
        try:
            self._is_horse = True
            self.wakeup.uninstall_in_horse()
            if self.settings.exec is None:
                end_with_parent(signal.SIGKILL)
            _reseed()
            client = connect(self.settings.redis_url)
            code = self._drain_chunk(Ledger(client, self.ledger.run), client, kill_group_without(parent), handle_signals=True)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            if code != horse.CRASHED:
                self.progress.conclude()
            os._exit(code)

    def _drain_chunk(self, ledger: Ledger, client: Redis, alive: Callable[[], bool], handle_signals: bool) -> int:
        assert self._claim is not None
        patience = Patience(self.settings.patience, client, log.warning)
        recorder = Recorder(ledger, self._claim, self.name, self.spec.retries, patience, alive)
        self._recorder = recorder
        if handle_signals:
            signal.signal(signal.SIGTERM, lambda *_: recorder.stop("told to stop"))
        try:
            complete = horse.drain(ledger, self.spec, self._claim, self._runner(), recorder, self.progress)
        except ServerLost as error:
            log.error("%s", error)
            return horse.SERVER_LOST
        except UnknownRun:
            return horse.HANDED_BACK
        except PieceworkError as error:
            log.error("%s", error)
            return horse.ERROR
        finally:
            self._recorder = None
        return horse.COMPLETE if complete else horse.HANDED_BACK

    def _work_here(self, claim: Claim) -> None:
        """Without isolation: work in this process, while a thread renews the lease."""
        watch = HorseWatch.in_thread(self, claim)
        try:
            code = self._drain_chunk(self.ledger, self.connection, lambda: True, handle_signals=False)
        finally:
            watch.stop()
        self._conclude(claim, HorseEnd.without_fork(code))

    # --- RQ's registries: for `rq info` and dashboards; the ledger does not need them

    def _stay_registered(self) -> None:
        now = time.monotonic()
        if now >= self._heartbeat_due:
            self._heartbeat_due = now + _RQ_HEARTBEAT_SECONDS
            _best_effort(lambda: self.connection.hset(self.key, mapping=self.serialize()), self.heartbeat)

    def _rq_state(self, state: WorkerStatus) -> None:
        if self.get_state() != state:
            _best_effort(lambda: self.set_state(state))

    def _rq_started(self, job: Job) -> Execution | None:
        def start() -> None:
            nonlocal execution
            execution = self.prepare_execution(job)
            with self.connection.pipeline() as pipe:
                job.prepare_for_execution(self.name, pipeline=pipe)
                pipe.execute()

        execution: Execution | None = None
        _best_effort(start)
        return execution

    def _rq_ended(self, job: Job, execution: Execution | None) -> None:
        def end() -> None:
            with self.connection.pipeline() as pipe:
                self.cleanup_execution(job, pipe, execution)
                self.increment_successful_job_count(pipe)
                pipe.execute()

        if execution is not None:
            self.executions.pop(execution.id, None)
            _best_effort(end)

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """End the horse and all it started. RQ's stop commands come here too, and charge nothing to an item."""
        if self.horse_killed_for is None:
            self.horse_killed_for = "command"
        super().kill_horse(sig)

    def _pubsub_exception_handler(self, exc: Exception, pubsub: Any, pubsub_thread: Any) -> None:
        if not isinstance(exc, RedisError):
            raise exc
        time.sleep(1.0)

    def _leave(self) -> None:
        _best_effort(
            lambda: self.ledger.leave(self.name, "left"),
            self.register_death,
            lambda: self.connection.delete(self.key),
            self.unsubscribe,
        )


def _names_our_function(job: Job) -> bool:
    try:
        return bool(job.func_name == chunk_function.NAME)
    except Exception:  # a foreign job with data that is not JSON: refused, never unpickled
        return False


def _best_effort(*calls: Callable[[], object]) -> None:
    for call in calls:
        try:
            call()
        except RedisError as error:
            if not is_away(error):
                log.warning("RQ's registry: %s", error)


def _reseed() -> None:
    """Forks of one parent would draw the same random numbers."""
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
