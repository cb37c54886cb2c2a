"""Simulated workers, 100 and more to a process: the real worker, but that its horses are threads.

`DrainWorker` with all that it sends to the server is used as it is: its loop, ledger, deliveries, registration, renewal
of the lease, recorder with its thread, the horse's own connection, the channel of commands. Only the fork is replaced,
and signals are not installed. bench/scale.py compares what real and simulated workers send.

    python -m bench._simulated URL RUN WORKERS ITEM_SECONDS NAME
"""

import logging
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Any

from rq.job import Job

from piecework.ledger import Ledger
from piecework.patience import Patience
from piecework.records import Claim
from piecework.server import connect
from piecework_worker import horse, worker
from piecework_worker.each_item import EachItem
from piecework_worker.horse_end import HorseEnd
from piecework_worker.horse_watch import HorseWatch
from piecework_worker.progress import IDLE
from piecework_worker.settings import WorkerSettings

MOST_IN_A_PROCESS = 100
"""Each has about seven descriptors, and `select` takes none above 1,023."""
_START_SECONDS = 0.1


class Simulated(worker.DrainWorker):
    """A worker whose horse is a thread."""

    horse_thread: Thread
    horse_code: int

    def kill_horse(self, sig: Any = None) -> None:
        """A thread ends at the next item."""
        self.stop_item("killed")


def fork_horse(simulated: Simulated, claim: Claim) -> int:
    """In place of `horse_process.fork_horse`: what that does in the fork, in a thread."""

    def live() -> None:
        client = connect(simulated.settings.redis_url)
        ledger = Ledger(client, simulated.ledger.run)
        recorder = simulated._recorder = simulated.recorder_for(ledger, client)
        code = horse.work(ledger, simulated.spec, claim, simulated.runner(), recorder, simulated.progress)
        simulated.horse_code = code
        client.close()
        simulated.wakeup.wake()  # in place of SIGCHLD

    simulated.horse_thread = Thread(target=live, daemon=True)
    simulated.horse_thread.start()
    return 1


class ThreadWatch(HorseWatch):
    """In place of `HorseWatch`: a thread is joined, not waited for as a process."""

    def __init__(self, simulated: Simulated, claim: Claim, job: Job) -> None:
        super().__init__(simulated, claim, job)
        self._simulated = simulated

    def until_end(self) -> HorseEnd:
        """As the real one, without stops and overdue items."""
        simulated = self._simulated
        simulated.registration.started(self._job)
        while simulated.horse_thread.is_alive():
            self._keep_lease(0)
            simulated.wakeup.wait(max(0.0, min(1.0, self._renew_due - time.monotonic())))
        return HorseEnd(simulated.horse_code, None, IDLE, "handed back")


def drain(url: str, run: str, name: str, function: Callable[[Any], Any]) -> None:
    """One worker, until the run is over."""
    client = connect(url)
    ledger = Ledger(client, run)
    settings = WorkerSettings(run=run, redis=url, handler="bench._handlers:noop", name=name)
    patience = Patience(settings.patience, client, logging.warning)
    spec = patience(ledger.spec)
    simulated = patience(lambda: Simulated(client, ledger, spec, settings, name, lambda: EachItem(function, None)))
    simulated.wakeup.install = lambda: None  # type: ignore[method-assign]
    simulated.drain()


def main() -> None:
    """Start the workers one after another, and wait for all.

    They are behind the server in the queue for the cores, and hundreds of threads do not wake every 5 ms to ask for the
    interpreter's lock: else it is the simulation that would be measured.
    """
    os.nice(15)
    sys.setswitchinterval(0.1)
    url, run, count, item_seconds, name = sys.argv[1:]
    logging.basicConfig(level=logging.WARNING)
    setattr(worker, "fork_horse", fork_horse)  # noqa: B010 - a name that the module does not export
    setattr(worker, "HorseWatch", ThreadWatch)  # noqa: B010
    sleep = partial(_sleep, float(item_seconds))
    threads = [Thread(target=drain, args=(url, run, f"{name}-{number}", sleep)) for number in range(int(count))]
    for thread in threads:
        thread.start()
        time.sleep(_START_SECONDS)
    for thread in threads:
        thread.join()


def _sleep(seconds: float, item: int) -> int:
    time.sleep(seconds)
    return item


if __name__ == "__main__":
    main()
