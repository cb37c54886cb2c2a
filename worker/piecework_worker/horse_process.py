"""Forks a horse, and lives its life: the process between the fork and its exit.

The fork is made with the stop signals blocked, until the horse can hear them: one that comes in between is
delivered to it then, neither lost nor deadly.
"""

import logging
import os
import random
import signal
import sys
import traceback
from typing import TYPE_CHECKING

from piecework.ledger import Ledger
from piecework.records import Claim
from piecework.server import connect
from piecework_worker import ending, horse, item_memory
from piecework_worker.orphans import kill_group_without
from piecework_worker.own_signals import STOPS
from piecework_worker.wakeup import Wakeup

if TYPE_CHECKING:
    from piecework_worker.worker import DrainWorker

log = logging.getLogger("piecework.worker")


def fork_horse(worker: "DrainWorker", claim: Claim) -> int:
    """Fork a horse for the claimed chunk, as leader of a process group of its own; returns its pid.

    Raises `OSError` if there is no memory, or no process, for it.
    """
    ending.flush()  # or the horse would write it once more
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        pid = os.fork()
        if pid == 0:
            try:
                os.setpgid(0, 0)
                _live(worker, claim)
            finally:
                os._exit(horse.CRASHED)
        try:
            os.setpgid(pid, pid)  # whoever comes first: until then, its group is the worker's own
        except OSError:
            log.debug("horse %d was first", pid)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


def _live(worker: "DrainWorker", claim: Claim) -> None:
    """RQ's bookkeeping is left to the main process."""
    code = horse.CRASHED
    try:
        worker.leash.take()
        _reseed()
        client = connect(worker.settings.redis_url)
        ledger = Ledger(client, worker.ledger.run)
        recorder = worker.recorder_for(ledger, client, kill_group_without(worker.main_pid))
        item_memory.impose(worker.settings.item_memory, lambda: recorder.stop("an item met --item-memory"))
        Wakeup.install_in_horse(lambda: recorder.stop("told to stop"))
        code = horse.work(ledger, worker.spec, claim, worker.runner(), recorder, worker.progress)
    except BaseException:
        traceback.print_exc()
    finally:
        ending.flush()
        if code != horse.CRASHED:
            worker.progress.conclude()
        os._exit(code)


def _reseed() -> None:
    """Forks of one parent would draw the same random numbers."""
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
