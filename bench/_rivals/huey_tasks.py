"""huey: a message for each item, a consumer with worker processes, results in Redis.

`huey` is the module's, which `huey_consumer` imports.
"""

import os
import sys
from collections.abc import Sequence

from huey import RedisHuey

from bench import _handlers
from bench._rivals._staged import LIVE, Pile, measure, server

huey = RedisHuey(LIVE, url=os.environ["BENCH_REDIS"])
TASKS = {name: huey.task(name=name)(getattr(_handlers, name)) for name in _handlers.NAMES}


class Tasks:
    """One `huey_consumer` with as many processes as there are to be workers."""

    packages = ("huey", "redis")

    def __init__(self) -> None:
        self._client = server()

    def commands(self, workers: int, piles: Sequence[Pile]) -> Sequence[Sequence[str]]:
        command = [sys.executable, "-m", "huey.bin.huey_consumer", "bench._rivals.huey_tasks.huey", "--quiet"]
        return [[*command, "--worker-type", "process", "--workers", str(workers), "--no-periodic"]]

    def ready(self, workers: int) -> bool:
        return True

    def enqueue(self, pile: Pile, queue: str) -> None:
        with self._client.pipeline(transaction=False) as pipe:
            for item in range(pile["items"]):
                pipe.lpush(queue, huey.serialize_task(TASKS[pile["handler"]].s(item)))
            pipe.execute()

    def release(self, queue: str) -> None:
        huey.storage.flush_results()
        self._client.rename(queue, huey.storage.queue_key)

    def done(self, queue: str, pile: Pile) -> int:
        return int(huey.storage.result_store_size())


if __name__ == "__main__":
    measure(Tasks())
