"""RQ: a job for each item, `rq worker` with its default class, which forks for each job."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rq import Queue

from bench._rivals._staged import LIVE, Pile, measure, server


class Rq:
    """`rq worker`, one program for each worker."""

    packages = ("rq", "redis")
    worker_class = "rq.Worker"

    def __init__(self) -> None:
        self._client = server()

    def commands(self, workers: int, piles: Sequence[Pile]) -> Sequence[Sequence[str]]:
        rq = Path(sys.executable).parent / "rq"
        url = self._client.connection_pool.connection_kwargs["path"]
        command = [str(rq), "worker", "--quiet", "--url", f"unix://{url}", "--worker-class", self.worker_class, LIVE]
        return [command] * workers

    def ready(self, workers: int) -> bool:
        return self._client.scard(f"rq:workers:{LIVE}") == workers

    def enqueue(self, pile: Pile, queue: str) -> None:
        handler = f"bench._handlers.{pile['handler']}"
        Queue(queue, connection=self._client).enqueue_many(
            [Queue.prepare_data(handler, (item,)) for item in range(pile["items"])]
        )

    def release(self, queue: str) -> None:
        self._client.rename(f"rq:queue:{queue}", f"rq:queue:{LIVE}")

    def done(self, queue: str, pile: Pile) -> int:
        # A job remembers the queue that it was put on.
        return int(self._client.zcard(f"rq:finished:{queue}"))


if __name__ == "__main__":
    measure(Rq())
