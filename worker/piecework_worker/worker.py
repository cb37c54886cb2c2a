"""One worker: an RQ worker that drains one run. RQ delivers chunks; the ledger decides.

The main process claims a chunk, forks a horse for it, renews the lease, and outlives horses, reconnects and
idle spells. What a death leaves behind:

- the horse dies: the main process charges the item if it is known; else the chunk is redone carefully;
- the main process dies: its horse dies with it, the lease runs out (or the launcher reaps it), the chunk is
  redone;
- Redis is away: the horse goes on computing; both give up after the patience, and the lease runs out.
"""

import gc
import logging
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, Worker
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.worker import WorkerStatus

from piecework.errors import PieceworkError, ServerLost, ServerUnusable, UnknownRun
from piecework.keys import nudge_channel, queue_name
from piecework.ledger import Ledger
from piecework.patience import Patience
from piecework.records import Claim, Spec, Tended
from piecework.replicas import Replicas
from piecework.server import check
from piecework.states import State, WorkerExit
from piecework_worker import horse
from piecework_worker.deliveries import POP_SECONDS, Deliveries
from piecework_worker.ending import Ending
from piecework_worker.handlers import Runner
from piecework_worker.horse_end import HorseEnd
from piecework_worker.horse_process import fork_horse
from piecework_worker.horse_watch import HorseWatch
from piecework_worker.nudge import Nudge
from piecework_worker.orphans import Leash, parent_is
from piecework_worker.own_watch import OwnWatch
from piecework_worker.progress import Progress
from piecework_worker.recorder import Recorder
from piecework_worker.registration import BEAT_SECONDS, Registration, best_effort
from piecework_worker.settings import WorkerSettings
from piecework_worker.wakeup import Wakeup

log = logging.getLogger("piecework.worker")

_AFTER_FAILED_FORK_SECONDS = 1.0
_STEAL_SECONDS = 4.0
"""So long nothing new to steal turns up, if all that is leased is in hand: what is put back comes by the queue."""
_CROWD = 1000
_LONGEST_POP_SECONDS = 4.0
"""Below the client's time-out for an answer."""
_MOST_CRASHES_IN_A_ROW = 20


def idle_seconds(workers: int) -> float:
    """How long an idle worker waits for a delivery before it looks after the run.

    More than a thousand look as often together as a thousand do: idle workers alone would keep the server busy else.
    """
    return min(_LONGEST_POP_SECONDS, POP_SECONDS * max(1.0, workers / _CROWD))


class DrainWorker(Worker):
    """An RQ worker for one run. `drain` takes the place of RQ's `work`, which exits 0 whatever happened."""

    def __init__(
        self,
        client: Redis,
        ledger: Ledger,
        spec: Spec,
        settings: WorkerSettings,
        name: str,
        runner: Callable[[], Runner],
    ) -> None:
        queue = Queue(queue_name(ledger.run), connection=client, serializer=JSONSerializer)
        super().__init__(
            [queue],
            name=name,
            connection=client,
            serializer=JSONSerializer,
            worker_ttl=3 * BEAT_SECONDS,
            job_monitoring_interval=BEAT_SECONDS,
        )
        self.log_job_description = False
        self.ledger, self.spec, self.settings = ledger, spec, settings
        self.wakeup = Wakeup(self._on_stop)
        self.leash = Leash()
        self.patience = Patience(settings.patience, client, log.warning, wait=self.wakeup.wait)
        self.progress, self.nudge = Progress(), Nudge()
        self.registration = Registration(self)
        self._deliveries = Deliveries(self)
        self._replicas = self._replicas_by(client)
        self.renew_now = False
        """Somebody else may have done the item in hand: the ledger knows."""
        self.stop_signals = 0
        """How often the worker has been told to stop; a second Ctrl-C takes the grace away."""
        self.horse_killed_for: str | None = None
        self.main_pid = os.getpid()
        self.runner = runner
        self.claim: Claim | None = None
        """The chunk that is held."""
        self._recorder: Recorder | None = None
        self._crashes_in_a_row = 0
        self._steal_due = 0.0

    @property
    def connection_timeout(self) -> int:
        """RQ lengthens the client's time-out to its long blocking pop; ours is short."""
        return 1

    # --- being told to stop

    @property
    def stopping(self) -> str | None:
        """Why the worker is to hand back, or None."""
        if self.stop_signals:
            return "told to stop (SIGTERM)"
        if self.settings.parent is not None and not parent_is(self.settings.parent):
            return "the launcher is gone"
        return None

    def _on_stop(self, number: int) -> None:
        # SIGTERM may well come more than once, or after a SIGINT: that is no second Ctrl-C.
        if number == signal.SIGINT or not self.stop_signals:
            self.stop_signals += 1
        self.patience.seconds = min(self.patience.seconds, self.settings.grace if self.claim else 0.0)
        self.stop_item("told to stop")

    def stop_item(self, reason: str) -> None:
        """Without isolation: begin no further item."""
        if self._recorder is not None:
            self._recorder.stop(reason)

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """End the horse and all it started. RQ's commands come here too; they charge nothing to an item."""
        pid = self._horse_pid
        if not pid:
            self.stop_item("stopped by a command")
            return
        if self.horse_killed_for is None:
            self.horse_killed_for = "stopped by a command"
        try:
            os.killpg(pid, sig)
        except (ProcessLookupError, PermissionError):
            log.debug("horse %d has ended already", pid)

    def horse_is_gone(self) -> None:
        """It has been waited for: its pid may be another process's now."""
        self._horse_pid = 0

    # --- the loop

    def drain(self) -> Ending:
        """Work until the run is over, or until this worker has to leave; hand back what is held then."""
        self.wakeup.install()
        gc.freeze()
        try:
            self.patience(self._replicas.wait)  # who cannot record safely claims nothing
            self.patience(self._begin)
            return self._loop()
        except ServerLost as error:
            return Ending(WorkerExit.HANDED_BACK, str(error))
        finally:
            self.leave()

    def _begin(self) -> None:
        if self.ledger.join(self.name) is None:
            raise UnknownRun(f"run {self.ledger.run} is gone")
        self.registration.begin()
        self.subscribe()

    def _loop(self) -> Ending:
        while True:
            if stopping := self.stopping:
                return self._verdict_if_over() or Ending(WorkerExit.HANDED_BACK, f"{stopping}; the run is not over")
            tended = self.patience(lambda: self.ledger.tend(self.name))
            if tended.state is None:
                raise UnknownRun(f"run {self.ledger.run} is gone: deleted, or the server has lost its data")
            if tended.state.over:
                if verdict := self._verdict():
                    return verdict
                continue
            self.registration.stay()
            if tended.state is State.FILLING or tended.paused:
                self.registration.state(WorkerStatus.SUSPENDED if tended.paused else WorkerStatus.IDLE)
                self.wakeup.wait(idle_seconds(tended.workers))  # the seal, or the end of the pause, ends it
            else:
                seconds, copy = self._looked_elsewhere(tended)
                if copy is not None:
                    self._hold(copy)
                elif delivery := self.patience(partial(self._deliveries.next, seconds)):
                    self._take(*delivery)

    def _looked_elsewhere(self, tended: Tended) -> tuple[float, Claim | None]:
        """With nothing on the queue, take from who has most, or do the last item of another as well (`--speculate`).

        Returns the seconds to wait for a delivery, or a copy to work on.
        """
        now, pop_seconds = time.monotonic(), idle_seconds(tended.workers)
        if tended.waiting or not tended.leased or now < self._steal_due:
            return pop_seconds, None
        stolen, again_seconds = self.patience(lambda: self.ledger.steal(self.name))
        copy = None
        if self.settings.speculate and not stolen and not tended.delayed:
            copy, copy_seconds = self.patience(lambda: self.ledger.copy(self.name, self.settings.lease))
            again_seconds = min(filter(None, (again_seconds, copy_seconds)), default=0.0)
        rarely = _STEAL_SECONDS * pop_seconds / POP_SECONDS
        self._steal_due = now + (0.0 if stolen or copy else min(again_seconds or rarely, rarely))
        return min(pop_seconds, max(0.05, again_seconds or pop_seconds)), copy

    def _verdict(self) -> Ending | None:
        """What the ledger says at the end, after `--wait-replicas`; where the server can tell, after it is on its disk.

        None: it is not over after all (failed items are retried, or the server has lost its last writes).
        """
        if self.settings.parent is None:
            try:
                self.ledger.leave(self.name, "over")
                self.connection.execute_command("WAITAOF", 1, 0, 2000)  # type: ignore[no-untyped-call]
            except RedisError:
                log.debug("Redis before 7.2, no append-only file, or away: the answer below tells")
        self.patience(self._replicas.wait)
        status = self.patience(self.ledger.status)
        if not status.state.over:
            return None
        counts = f"{status.done} done, {status.failed} failed of {status.total}"
        reason = f"run {status.run} {status.state}: {status.reason or counts}"
        return Ending(WorkerExit.of(status.state), reason)

    def _verdict_if_over(self) -> Ending | None:
        try:
            return self._verdict() if self.ledger.status().state.over else None
        except (RedisError, PieceworkError):
            return None

    def leave(self) -> None:
        """Hand back what is held, and sign off; best effort, as the server may be away. Safe to repeat."""
        claim = self.claim
        best_effort(
            lambda: claim and not claim.copy and self.ledger.release(claim.chunk, self.name, "the worker leaves"),
            lambda: self.ledger.leave(self.name, "left"),
            self.register_death,
            lambda: self.connection.delete(self.key),
            self.unsubscribe,
        )

    def subscribe(self) -> None:
        """As RQ does, to its commands, and to what the ledger's scripts have to say."""
        pubsub: Any = self.connection.pubsub()  # type: ignore[no-untyped-call]
        channels: dict[str, Callable[[Any], None]] = {
            self.pubsub_channel_name: self.handle_payload,
            nudge_channel(self.ledger.run): lambda message: self.wakeup.wake(),
            nudge_channel(self.ledger.run, self.name): self._on_nudge,
        }
        pubsub.subscribe(**channels)
        thread: Any = pubsub.run_in_thread(sleep_time=60, daemon=True, exception_handler=self._pubsub_exception_handler)
        self.pubsub, self.pubsub_thread = pubsub, thread

    def _on_nudge(self, message: Any) -> None:
        """The chunk was cut short, which concerns the horse, or its item is done, which concerns its watch."""
        if message["data"] == b"over":
            self.renew_now = True
            self.wakeup.wake()
        else:
            self.nudge.give()

    def unsubscribe(self) -> None:
        """End the command channel. (RQ tells its thread too late, and may wait a second for it.)"""
        thread: Any = self.pubsub_thread
        if thread:
            thread.stop()
            thread.pubsub.unsubscribe()

    def _pubsub_exception_handler(self, exc: Exception, pubsub: Any, pubsub_thread: Any) -> None:
        """Commands are a convenience: one that cannot be read, or a server that is away, ends nothing."""
        log.debug("RQ's command channel: %s", exc)
        time.sleep(1.0)

    # --- one chunk

    def _take(self, job: Job, chunk: int) -> None:
        claim = self.patience(lambda: self.ledger.claim(chunk, self.name, self.settings.lease))
        if claim is not None:
            self._hold(claim, job)

    def _hold(self, claim: Claim, job: Job | None = None) -> None:
        self.claim = claim
        if not self.stopping:  # else `leave` hands it back
            self._work_on(job, claim)
            self.claim = None

    def _work_on(self, job: Job | None, claim: Claim) -> None:
        self.horse_killed_for = None
        self.progress.reset()
        try:
            if self.settings.isolation == "none":
                self.registration.started(job)
                end = self._work_here(claim)
            else:
                try:
                    self._horse_pid = fork_horse(self, claim)
                except OSError as error:
                    end = HorseEnd.unborn(error)
                    self.wakeup.wait(_AFTER_FAILED_FORK_SECONDS)
                else:
                    end = HorseWatch(self, claim, job).until_end()
            self._conclude(claim, end)
        finally:
            self.registration.ended(job)

    def _conclude(self, claim: Claim, end: HorseEnd) -> None:
        if end.code == horse.SERVER_LOST:  # it has had the patience
            raise ServerLost(f"the horse lost Redis for longer than {self.patience.seconds:g} s{self._why()}")
        settled = self.patience(
            lambda: end.settle(self.ledger, self.spec, claim, self.name, self.settings.item_timeout)
        )
        if settled == "error":
            raise PieceworkError(f"chunk {claim.chunk} cannot be worked on; see the error above")
        if claim.copy and end.code is None and end.killed_for is None:
            log.info("the process that did item %d a second time %s", claim.next, end.text)
        self._crashes_in_a_row = self._crashes_in_a_row + 1 if settled == "crash" else 0
        if self._crashes_in_a_row > _MOST_CRASHES_IN_A_ROW:
            raise PieceworkError(f"{self._crashes_in_a_row} horses in a row: the last {end.text}")

    def _why(self) -> str:
        """What is wrong with the server, if it tells: full memory, say."""
        try:
            check(self.connection)
        except ServerUnusable as error:
            return f": {error}"
        return ""

    def recorder_for(self, ledger: Ledger, client: Redis, alive: Callable[[], bool] = lambda: True) -> Recorder:
        """A recorder for the chunk that is held."""
        claim, patience = cast(Claim, self.claim), Patience(self.settings.patience, client, log.warning)
        replicated = self._replicas_by(client).wait
        return Recorder(ledger, claim, self.name, self.spec.retries, patience, self.nudge, alive, replicated)

    def _replicas_by(self, client: Redis) -> Replicas:
        return Replicas(client, self.ledger.run, self.settings.wait_replicas)

    def _work_here(self, claim: Claim) -> HorseEnd:
        """Without isolation: work in this process, while a thread renews the lease."""
        self._recorder = recorder = self.recorder_for(self.ledger, self.connection)
        watch = OwnWatch(self, claim)
        try:
            code = horse.work(self.ledger, self.spec, claim, self.runner(), recorder, self.progress)
        finally:
            self._recorder = None
            watch.stop()
        return HorseEnd.without_fork(code)
