"""Watches a horse at work: renews its lease, ends an item that is overdue, passes on a stop, sees it die."""

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

from redis.exceptions import RedisError
from rq.job import Job

from piecework.errors import ServerLost
from piecework.patience import is_away
from piecework.records import Claim
from piecework.states import State
from piecework_worker import item_memory
from piecework_worker.horse_end import ITEM_TIMEOUT, HorseEnd, describe

if TYPE_CHECKING:
    from piecework_worker.worker import DrainWorker

_TICK_SECONDS = 1.0
_OVERDUE_TICK_SECONDS = 0.05
_AWAY_SECONDS = 0.5


class HorseWatch:
    """The main process's part while a horse works on a chunk."""

    def __init__(self, worker: "DrainWorker", claim: Claim, job: Job | None) -> None:
        self._worker, self._claim, self._job = worker, claim, job
        self._renew_seconds = worker.settings.lease / 3
        self._renew_due = time.monotonic() + self._renew_seconds
        self._away_since: float | None = None
        self._told_to_stop = False
        self._kill_due: float | None = None
        self._overdue_ns: int | None = None

    def until_end(self) -> HorseEnd:
        """Return when the horse has ended, whatever it takes. Raises `ServerLost` after the patience.

        Whatever is raised, the horse has ended then.
        """
        worker, pid = self._worker, self._worker.horse_pid
        tick = _TICK_SECONDS if worker.settings.item_timeout is None else _OVERDUE_TICK_SECONDS
        try:
            worker.registration.started(self._job)  # while the horse begins
            while True:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    return self._end(pid, status)
                self._pass_on_stop(pid)
                self._end_overdue()
                self._keep_lease(pid)
                worker.wakeup.wait(max(0.0, min(tick, self._renew_due - time.monotonic())))
        except BaseException as error:
            if worker.horse_pid:
                self._kill(str(error))
                self._end(pid, os.waitpid(pid, 0)[1])
            raise

    def _end(self, pid: int, status: int) -> HorseEnd:
        worker, progress = self._worker, self._worker.progress
        worker.horse_is_gone()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # what it has started, a command for one, ends with it
        if progress.concluded and os.WIFEXITED(status):
            code = os.waitstatus_to_exitcode(status)
            return HorseEnd(code, worker.horse_killed_for, progress.index, "handed back")
        killed_for = worker.horse_killed_for
        if self._overdue_ns is not None and not progress.overdue(self._overdue_ns):
            killed_for = "an item ended just when it was overdue"
        elif killed_for is None and self._told_to_stop and os.WIFSIGNALED(status):
            # The handler, or a library of its, has put SIGTERM's default action back.
            killed_for = "told to stop" if os.WTERMSIG(status) == signal.SIGTERM else None
        text = describe(status) + item_memory.hint(worker.settings.item_memory)
        return HorseEnd(None, killed_for, progress.index, text)

    def _kill(self, reason: str) -> None:
        self._worker.horse_killed_for = reason
        self._worker.kill_horse()

    def _pass_on_stop(self, pid: int) -> None:
        worker = self._worker
        if not worker.stopping:
            return
        if self._claim.copy:  # the owner goes on
            self._kill("told to stop")
            return
        now = time.monotonic()
        if self._kill_due is None:
            self._tell_to_stop(pid)
            self._kill_due = now + worker.settings.grace
        if now >= self._kill_due or worker.stop_signals > 1:
            self._kill("the grace for the item in hand is over")

    def _tell_to_stop(self, pid: int) -> None:
        self._told_to_stop = True
        os.kill(pid, signal.SIGTERM)

    def _end_overdue(self) -> None:
        now = time.monotonic_ns()
        if self._overdue_ns is None and self._worker.progress.overdue(now):
            self._overdue_ns = now  # whether it still was when the horse died shows at its end
            self._kill(ITEM_TIMEOUT)

    def _keep_lease(self, pid: int) -> None:
        now, worker = time.monotonic(), self._worker
        if now < self._renew_due and not worker.renew_now:
            return
        worker.renew_now = False
        try:
            renewed, state, paused = worker.ledger.renew(self._claim.chunk, worker.name, worker.settings.lease)
        except RedisError as error:
            if not is_away(error):
                raise
            self._away_since = self._away_since or now
            if now - self._away_since > worker.patience.seconds:
                raise ServerLost(f"Redis was away for {worker.patience.seconds:g} s: {error}") from error
            self._renew_due = time.monotonic() + min(_AWAY_SECONDS, self._renew_seconds)
            return
        self._away_since = None
        self._renew_due = time.monotonic() + self._renew_seconds
        if state is not State.RUNNING:
            self._kill(f"the run is {state or 'gone'}")
        elif not renewed:
            self._kill("the lease was lost")
        elif paused and not self._told_to_stop:
            self._tell_to_stop(pid)
        worker.registration.beat(self._job)
