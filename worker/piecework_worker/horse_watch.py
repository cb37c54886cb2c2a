"""Watches a horse at work: renews its chunk's lease, ends an item that is overdue, passes on a stop, sees it die."""

import os
import signal
import time
from threading import Event, Thread
from typing import TYPE_CHECKING, NamedTuple, Self

from redis.exceptions import RedisError
from rq.executions import Execution
from rq.job import Job

from piecework.errors import ServerLost
from piecework.ledger import Ledger
from piecework.patience import is_away
from piecework.records import Claim, Failure, Spec
from piecework.states import State, WorkerExit
from piecework_worker import horse
from piecework_worker.handlers import timed_out
from piecework_worker.recorder import retry_delay
from piecework_worker.settings import WorkerSettings

if TYPE_CHECKING:
    from piecework_worker.worker import DrainWorker

_TICK_SECONDS = 1.0
_OVERDUE_TICK_SECONDS = 0.05
_ITEM_TIMEOUT = "item-timeout"


class HorseEnd(NamedTuple):
    """How a horse ended, and what the ledger is to be told."""

    code: int | None
    """Its exit code if it ended on purpose; None: it crashed or was killed."""
    killed_for: str | None
    """Why its worker killed it."""
    index: int
    """The item in hand; negative: none, or nobody knows."""
    text: str

    def settle(
        self, ledger: Ledger, spec: Spec, settings: WorkerSettings, claim: Claim, worker: str
    ) -> str:
        """Hand back or charge what the horse left behind. Safe to repeat.

        Returns done, crash (by an unknown item), error, or server lost.
        """
        if self.code == horse.COMPLETE:
            return "done"
        if self.code is not None:
            ledger.release(claim.chunk, worker, self.text)
            return {horse.ERROR: "error", horse.SERVER_LOST: "server lost"}.get(self.code, "done")
        if self.killed_for == _ITEM_TIMEOUT:
            self._settle_overdue(ledger, spec, settings, claim, worker)
            return "done"
        if self.killed_for is not None:
            ledger.release(claim.chunk, worker, self.killed_for)
            return "done"
        if self.index >= 0:
            failure = Failure("Crash", f"the item's process {self.text}", "", claim.attempt + 1)
            if ledger.blame_crash(claim.chunk, worker, self.index, failure, spec.crash_limit) is not None:
                return "done"
        ledger.release(claim.chunk, worker, f"horse {self.text}", careful=True)
        return "crash"

    def _settle_overdue(
        self, ledger: Ledger, spec: Spec, settings: WorkerSettings, claim: Claim, worker: str
    ) -> None:
        if self.index < 0:
            ledger.release(claim.chunk, worker, "one of several items is overdue", careful=True)
            return
        attempt = claim.attempt + 1
        delay = retry_delay(attempt) if claim.attempt < spec.retries else None
        failure = timed_out(settings.item_timeout or 0.0, attempt)
        ledger.blame_failure(claim.chunk, worker, self.index, failure, delay)

    @classmethod
    def without_fork(cls, code: int) -> Self:
        """The end of a chunk that was worked on in the worker itself."""
        return cls(code, None, -1, "handed back")


def _describe(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        hint = "; the kernel does that when memory runs out" if number == signal.SIGKILL else ""
        return f"was killed by {name}{hint}"
    return f"exited with code {os.waitstatus_to_exitcode(status)} in mid-item"


class HorseWatch:
    """The main process's part while a horse works on a chunk."""

    def __init__(self, worker: "DrainWorker", claim: Claim, job: Job | None, execution: Execution | None) -> None:
        self._worker, self._claim, self._job, self._execution = worker, claim, job, execution
        self._renew_seconds = worker.settings.lease / 3
        self._renew_due = time.monotonic() + self._renew_seconds
        self._heartbeat_due = time.monotonic() + worker.job_monitoring_interval
        self._away_since: float | None = None
        self._told_to_stop = False
        self._kill_due: float | None = None
        self._closing = Event()
        self._thread: Thread | None = None

    def until_end(self) -> HorseEnd:
        """Return when the horse has ended, whatever it takes. Raises `ServerLost` after the patience."""
        worker, pid = self._worker, self._worker.horse_pid
        tick = _TICK_SECONDS if worker.settings.item_timeout is None else _OVERDUE_TICK_SECONDS
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return self._end(status)
            self._pass_on_stop(pid)
            self._end_overdue(pid)
            try:
                self._keep_lease(pid)
            except ServerLost:
                self._kill("server lost")
                os.waitpid(pid, 0)
                raise
            worker.wakeup.wait(max(0.0, min(tick, self._renew_due - time.monotonic())))

    def _end(self, status: int) -> HorseEnd:
        progress = self._worker.progress
        code = os.waitstatus_to_exitcode(status) if progress.concluded and os.WIFEXITED(status) else None
        text = _describe(status) if code is None else "handed back"
        return HorseEnd(code, self._worker.horse_killed_for, progress.index, text)

    def _kill(self, reason: str) -> None:
        self._worker.horse_killed_for = reason
        self._worker.kill_horse()

    def _pass_on_stop(self, pid: int) -> None:
        worker = self._worker
        if not worker.stopping:
            return
        now = time.monotonic()
        if self._kill_due is None:
            os.kill(pid, signal.SIGTERM)
            self._told_to_stop = True
            self._kill_due = now + worker.settings.grace
        if now >= self._kill_due or worker.stop_signals > 1:
            self._kill("the grace for the item in hand is over")

    def _end_overdue(self, pid: int) -> None:
        progress = self._worker.progress
        if not progress.overdue(time.monotonic_ns()):
            return
        # Stopped, the horse cannot go on to another item between the second look and the kill.
        os.kill(pid, signal.SIGSTOP)
        if progress.overdue(time.monotonic_ns()):
            self._kill(_ITEM_TIMEOUT)
        else:
            os.kill(pid, signal.SIGCONT)

    def _keep_lease(self, pid: int) -> None:
        now, worker = time.monotonic(), self._worker
        if now < self._renew_due:
            return
        try:
            renewed, state, paused = worker.ledger.renew(self._claim.chunk, worker.name, worker.settings.lease)
        except RedisError as error:
            if not is_away(error):
                raise
            self._away_since = self._away_since or now
            if now - self._away_since > worker.patience.seconds:
                raise ServerLost(f"Redis was away for {worker.patience.seconds:g} s: {error}") from error
            self._renew_due = time.monotonic() + 0.5
            return
        self._away_since = None
        self._renew_due = time.monotonic() + self._renew_seconds
        if state is not State.RUNNING:
            self._kill(f"the run is {state or 'gone'}")
        elif not renewed:
            self._kill("the lease was lost")
        elif paused and not self._told_to_stop:
            self._told_to_stop = True
            os.kill(pid, signal.SIGTERM)
        self._rq_heartbeat(now)

    def _rq_heartbeat(self, now: float) -> None:
        if now >= self._heartbeat_due and self._job is not None and self._execution is not None:
            self._heartbeat_due = now + self._worker.job_monitoring_interval
            try:
                self._worker.maintain_heartbeats(self._job, self._execution)
            except RedisError:  # the lease is what counts; RQ's registries are for people
                return

    # --- without isolation

    @classmethod
    def in_thread(cls, worker: "DrainWorker", claim: Claim) -> Self:
        """Renew the lease of a chunk that the worker's own process works on, until `stop`."""
        watch = cls(worker, claim, None, None)
        watch._thread = Thread(target=watch._keep_lease_of_own, name="piecework-lease", daemon=True)
        watch._thread.start()
        return watch

    def stop(self) -> None:
        """The chunk is done with."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _keep_lease_of_own(self) -> None:
        worker, ledger = self._worker, self._worker.ledger
        stop_due: float | None = None
        while not self._closing.wait(min(_TICK_SECONDS, self._renew_seconds)):
            now = time.monotonic()
            if worker.stopping:
                worker.stop_item("told to stop")
                stop_due = stop_due or now + worker.settings.grace
                if now >= stop_due:
                    # The item cannot be ended but with the process; what was recorded stays.
                    worker.patience(lambda: ledger.release(self._claim.chunk, worker.name, "the grace is over"))
                    os._exit(WorkerExit.HANDED_BACK)
            if now < self._renew_due:
                continue
            try:
                renewed, state, paused = ledger.renew(self._claim.chunk, worker.name, worker.settings.lease)
            except RedisError:  # the recorder's patience decides
                continue
            self._renew_due = now + self._renew_seconds
            if not renewed or state is not State.RUNNING or paused:
                worker.stop_item("paused" if paused else "the lease was lost")
