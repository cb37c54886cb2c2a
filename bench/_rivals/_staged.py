"""What the programs of the rival queues share: a drain with warm workers, timed.

The items are put on a queue that no worker looks at, and when the workers are there and have done a few items, that
queue is renamed to the one they wait for. So all items are there at the moment from which time is taken, as they are
when piecework seals. This runs in the rivals' environment and imports nothing of piecework.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Protocol, TypedDict

from redis import Redis

LIVE = "bench"
"""The queue that the workers wait for."""
WARM_UP = 8
"""Items for each worker before time is taken."""
_POLL_SECONDS = 0.005
_PATIENCE_SECONDS = 300.0


class Pile(TypedDict):
    """One measurement: the items are 0, 1, 2, …"""

    handler: str
    """A function of `bench._handlers`."""
    items: int
    chunk_size: int
    """For queues that have chunks."""


class Rival(Protocol):
    """A queue with its workers."""

    @property
    def packages(self) -> Sequence[str]:
        """Those whose versions matter."""

    def commands(self, workers: int, piles: Sequence[Pile]) -> Sequence[Sequence[str]]:
        """The programs that make so many workers, as a user would start them."""

    def ready(self, workers: int) -> bool:
        """Whether all workers are there. (True also if only the warm-up can tell.)"""

    def enqueue(self, pile: Pile, queue: str) -> None:
        """Put the pile on a queue."""

    def release(self, queue: str) -> None:
        """Rename the queue to the one that the workers wait for, which is empty."""

    def done(self, queue: str, pile: Pile) -> int:
        """How many items of the pile on that queue, the one that was released last, are done."""


def server() -> Redis:
    """The server that the caller has started."""
    return Redis.from_url(os.environ["BENCH_REDIS"])


def measure(rival: Rival) -> None:
    """The program: `WORKERS PILES` (JSON) are its arguments; prints JSON with seconds for each pile, and versions."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    workers, piles = int(sys.argv[1]), json.loads(sys.argv[2])
    # Their output must not get between the figures; a group each, so that their children can be ended too.
    processes = [
        subprocess.Popen(command, stdout=sys.stderr, start_new_session=True)
        for command in rival.commands(workers, piles)
    ]
    try:
        _wait(lambda: rival.ready(workers), processes)
        seconds = [_drain(rival, pile, number, workers, processes) for number, pile in enumerate(piles)]
    finally:
        _end(processes)
    print(json.dumps({"seconds": seconds, "versions": {package: version(package) for package in rival.packages}}))


def _drain(
    rival: Rival, pile: Pile, number: int, workers: int, processes: "Sequence[subprocess.Popen[bytes]]"
) -> float:
    """Seconds from the release of a pile until its last item is done."""
    staged, warm = f"pile-{number}", f"warm-up-{number}"
    warm_up: Pile = {"handler": "sleep_10_ms", "items": WARM_UP * workers, "chunk_size": 1}
    rival.enqueue(pile, staged)
    # After the filling, which takes a while: some workers look the less often the longer they find nothing.
    rival.enqueue(warm_up, warm)
    rival.release(warm)
    _wait(lambda: rival.done(warm, warm_up) == warm_up["items"], processes)
    started = time.monotonic()
    rival.release(staged)
    _wait(lambda: rival.done(staged, pile) == pile["items"], processes)
    return time.monotonic() - started


def _wait(condition: Callable[[], bool], processes: "Sequence[subprocess.Popen[bytes]]") -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        ended = [process.args for process in processes if process.poll() is not None]
        if ended or time.monotonic() > deadline:
            raise SystemExit(f"a worker has ended: {ended}" if ended else "the items are not done in time")
        time.sleep(_POLL_SECONDS)


def _end(processes: "Sequence[subprocess.Popen[bytes]]") -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
