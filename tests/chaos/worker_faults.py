"""What happens to workers and horses: signals at any moment, and at each call that they send to Redis."""

import contextlib
import os
import signal

from tests.chaos.stage import Stage
from tests.chaos.work import LEASE_SECONDS
from tests.worker_fixture import children, descendants

MAIN_CALLS = (*("claim", "tend", "renew", "steal", "copy", "join", "release", "blame"), "status", "blmove", "pipeline")
HORSE_CALLS = ("commit", "hget", "zrevrangebyscore")
_PLACES = 4
"""At the first of so many that it reaches, a process dies."""


def kill_worker(stage: Stage) -> None:
    """SIGKILL to a worker; its horse dies with it."""
    if worker := stage.crew.any():
        worker.send(signal.SIGKILL)


def kill_all_workers(stage: Stage) -> None:
    for worker in stage.crew.running:
        worker.send(signal.SIGKILL)


def kill_horse(stage: Stage) -> None:
    """SIGKILL to a horse, if one is at work."""
    if worker := stage.crew.any():
        for pid in children(worker.pid)[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def stop_worker_for_longer_than_its_lease(stage: Stage) -> None:
    """SIGSTOP to a worker, to its horse, or to both, and SIGCONT when somebody else may have what it held."""
    if worker := stage.crew.any():
        below = descendants(worker.pid)
        stage.crew.suspend(stage.rng.choice([[worker.pid], below, [worker.pid, *below]]))
        stage.after(LEASE_SECONDS * stage.rng.uniform(0.8, 2.5), stage.crew.resume)


def stop_all_for_longer_than_their_leases(stage: Stage) -> None:
    stage.crew.suspend([pid for each in stage.crew.running for pid in [each.pid, *descendants(each.pid)]])
    stage.after(LEASE_SECONDS * stage.rng.uniform(1.2, 2.0), stage.crew.resume)


def sigterm_storm(stage: Stage) -> None:
    """SIGTERM to some workers, once or again and again, to their horses too, or Ctrl-C twice."""
    for worker in stage.crew.some():
        pids = [worker.pid, *children(worker.pid)] if stage.rng.random() < 0.3 else [worker.pid]
        number = signal.SIGINT if stage.rng.random() < 0.2 else signal.SIGTERM
        for _ in range(stage.rng.choice([1, 2, 5])):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)


def arm_fault_points(stage: Stage) -> None:
    """Each worker that starts from now on dies at one of some calls, until there were enough."""

    def arm() -> dict[str, str]:
        if len(stage.died_at) >= stage.faults:
            return {}
        return stage.dying_at(";".join(_place(stage) for _ in range(_PLACES)))

    stage.environs.append(arm)


def _place(stage: Stage) -> str:
    """Where a worker or its horse dies."""
    alone = "none" in stage.work.options
    role = "main" if alone else stage.rng.choice(["main", "horse"])
    calls = HORSE_CALLS if role == "horse" or (alone and stage.rng.random() < 0.5) else MAIN_CALLS
    when, number = stage.rng.choice(["before", "after"]), stage.rng.choice([1, 1, 2, 3])
    return f"{when}:{stage.rng.choice(calls)}:{number}:SIGKILL:{role}"
