"""Celery: prefork workers, `task.chunks`, results in Redis; events, gossip and mingling off.

The application is the module's `app`, which `celery worker` imports.
"""

import os
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

from celery import Celery

from bench import _handlers
from bench._rivals._staged import LIVE, Pile, measure, server

# kombu's name for a server's socket, and the one of Celery's results.
_SOCKET = urlsplit(os.environ["BENCH_REDIS"]).path
app = Celery("bench", broker=f"redis+socket://{_SOCKET}", backend=f"redis+socket://{_SOCKET}")
app.conf.update(worker_prefetch_multiplier=4, task_default_queue=LIVE, worker_hijack_root_logger=False)
TASKS = {name: app.task(name=name)(getattr(_handlers, name)) for name in _handlers.NAMES}


class Chunks:
    """One `celery worker` with as many processes as there are to be workers."""

    packages = ("celery", "kombu", "redis")

    def __init__(self) -> None:
        self._client = server()
        self._pending: dict[str, list[tuple[str, int]]] = {}
        """Keys of the results that are not there yet, each with the number of its items, by queue."""

    def commands(self, workers: int, piles: Sequence[Pile]) -> Sequence[Sequence[str]]:
        command = [sys.executable, "-m", "celery", "-A", "bench._rivals.celery_chunks", "worker", "--queues", LIVE]
        command += ["--pool", "prefork", "--concurrency", str(workers), "--loglevel", "ERROR"]
        return [[*command, "--without-gossip", "--without-mingle", "--without-heartbeat"]]

    def ready(self, workers: int) -> bool:
        return True

    def enqueue(self, pile: Pile, queue: str) -> None:
        items, size = pile["items"], pile["chunk_size"]
        chunks = TASKS[pile["handler"]].chunks(((item,) for item in range(items)), size)
        results = chunks.group().apply_async(queue=queue).results
        keys = [app.backend.get_key_for_task(result.id).decode() for result in results]
        sizes = [min(size, items - start) for start in range(0, items, size)]
        self._pending[queue] = list(zip(keys, sizes, strict=True))

    def release(self, queue: str) -> None:
        self._client.rename(queue, LIVE)

    def done(self, queue: str, pile: Pile) -> int:
        """Looks at the oldest ones only: it is asked often, and must not keep the server busy."""
        pending = self._pending[queue]
        while pending and self._client.exists(*(key for key, _ in pending[:20])) == len(pending[:20]):
            del pending[:20]
        return pile["items"] - sum(size for _, size in pending)


if __name__ == "__main__":
    measure(Chunks())
