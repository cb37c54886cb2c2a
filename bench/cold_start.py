"""Ten items that do nothing, from nothing to the end: how long does it take to begin and to leave?

`piecework run` with one worker is the whole command: it starts a server, fills, starts the worker, prints the results
and stops the server. The rival is `rq worker --burst` alone, one worker, on a server that has ten jobs queued.
Other rows have piecework with a server that is there, and RQ with a server to start and a program that enqueues.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from redis import Redis
from rq import Queue

from bench._harness import ROOT, Claim, Table, arguments, interleaved, publish, repetitions
from bench._piecework import PIECEWORK
from piecework_producer.embedded import EmbeddedServer

ITEMS = 10
_ENQUEUE = """
import sys; from redis import Redis; from rq import Queue
queue = Queue("bench", connection=Redis.from_url(sys.argv[1]))
queue.enqueue_many([Queue.prepare_data("bench._handlers.noop", (item,)) for item in range(int(sys.argv[2]))])
"""


def seconds_of(command: Sequence[str]) -> tuple[float, str]:
    """(seconds from start to exit, standard output) of a command that succeeds."""
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return time.monotonic() - started, done.stdout


def piecework(state: str) -> float:
    """Seconds of `piecework run`, whose server may be there already."""
    command = [*PIECEWORK, "run", "bench._handlers:noop", "--range", f"0:{ITEMS}", "--state-dir", state, "-p", "1"]
    seconds, output = seconds_of(command)
    if output.count("\n") != ITEMS:
        raise SystemExit(f"piecework lost items:\n{output}")
    return seconds


def piecework_from_nothing() -> float:
    """Seconds, server included."""
    with tempfile.TemporaryDirectory() as state:
        return piecework(state)


def piecework_with_server() -> float:
    """Seconds, on a server that is there."""
    with tempfile.TemporaryDirectory() as state, EmbeddedServer(Path(state)):
        return piecework(state)


def rq_burst(worker_class: str) -> float:
    """Seconds of `rq worker --burst`, on a server that is there with the jobs."""
    with tempfile.TemporaryDirectory() as state, EmbeddedServer(Path(state)) as server:
        queue = Queue("bench", connection=Redis.from_url(server.url))
        queue.enqueue_many([Queue.prepare_data("bench._handlers.noop", (item,)) for item in range(ITEMS)])
        return burst(server.url, worker_class)


def rq_from_nothing() -> float:
    """Seconds of starting a server, enqueueing in a program, `rq worker --burst`, and stopping the server."""
    with tempfile.TemporaryDirectory() as state:
        started = time.monotonic()
        with EmbeddedServer(Path(state)) as server:
            seconds_of([sys.executable, "-c", _ENQUEUE, server.url, str(ITEMS)])
            burst(server.url, "rq.Worker")
        return time.monotonic() - started


def burst(url: str, worker_class: str) -> float:
    """Seconds of the worker, which has to have done all jobs."""
    rq = str(Path(sys.executable).parent / "rq")
    seconds, _ = seconds_of([rq, "worker", "--burst", "--quiet", "--url", url, "--worker-class", worker_class, "bench"])
    done = Queue("bench", connection=Redis.from_url(url)).finished_job_registry.get_job_count(cleanup=False)
    if done != ITEMS:
        raise SystemExit(f"RQ did {done} of {ITEMS} items")
    return seconds


def main() -> None:
    """Measure all in turn and print the table."""
    options = arguments(__doc__ or "")
    systems: dict[str, Callable[[], float]] = {
        "piecework run": piecework_from_nothing,
        "piecework run, server there": piecework_with_server,
        "rq worker --burst, server and jobs there": lambda: rq_burst("rq.Worker"),
        "rq worker --burst, SimpleWorker, as above": lambda: rq_burst("rq.SimpleWorker"),
        "server, enqueue, rq worker --burst": rq_from_nothing,
    }
    figures = interleaved(systems, repetitions(options, in_short=3))
    claims = [Claim(at_most=1.5, rivals=["rq worker --burst, server and jobs there"])]
    publish([Table(f"{ITEMS} no-op items from nothing to exit", "seconds", figures, subject="piecework run",
                   more_is_better=False, claims=claims)], options)  # fmt: skip


if __name__ == "__main__":
    main()
